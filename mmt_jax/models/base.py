"""The protocol that trainer, evaluators and exporter know: encode, then fuse.

What depends on one item alone happens in `encode_text` and `encode_image`, once an item; what
depends on a pair happens in `fuse`, once a pair. This is the only place where modules become pure
functions of parameters.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Float32, Int

from mmt_jax import params as params_lib
from mmt_jax.configs.config import Config
from mmt_jax.nn.heads import Calibration, RegionHead, WordHead, scored
from mmt_jax.nn.layers import Sizes
from mmt_jax.nn.places import Rows
from mmt_jax.nn.primitives import Linear, Table, split
from mmt_jax.typing import Array, Encoded, Image, Key, Params, Text, record


@record
class Fused:
    """What a pair's two items say of each other, for P pairs and the L layers that are scored."""

    text: Float[Array, "P T _"] | None  # None: not asked for
    image: Float[Array, "P R _"] | None
    scores: Float32[Array, "L P"]  # higher = better match; the last layer's count
    logits: Float32[Array, "L P 2"]  # softmax(...)[..., 0] is the match probability
    pooled: Float[Array, "P E"] | None = None  # the pair as heads of tasks read it; None: no head


class Network(nnx.Module):
    """What a family implements, on its own parameters; `Model` has the same as pure functions."""

    itms: ClassVar[tuple[str, ...]] = ("classification", "contrastive")  # of ITM, the kinds it has
    trains: ClassVar[tuple[str, ...]] = ("itm", "mlm", "mrm")  # losses of `ObjectiveConfig`
    places: ClassVar[Rows] = ()  # of parameters that no other family has
    # What the records of a task may hold, of which it answers questions: see `configs.tasks`.
    answers_on: ClassVar[tuple[tuple[str, ...], ...]] = ()
    # Heads, of families and objectives that have them.
    answer_head: Callable[..., Array]
    region_head: RegionHead
    word_head: WordHead
    match: Linear | None = None
    calibration: Calibration | None = None
    text: Any
    image: Any

    @classmethod
    def check(cls, config: Config) -> None:
        """Refuses a config that the family cannot build, with a UsageError that names the field."""

    @classmethod
    def separable(cls, config: Config) -> bool:
        """Whether a score is an inner product of two embeddings; see `Model`."""
        del config
        return False

    @classmethod
    def embeds(cls, config: Config) -> bool:
        """Whether captions and photos have embeddings; see `Model`."""
        return cls.separable(config)

    @classmethod
    def remembered(cls, config: Config) -> str | None:
        """A regex of all parameters that `text_features` are made of.

        None: the family, or a model of this config, does not read `Text.features`.
        """
        del config
        return None

    @classmethod
    def adopt(cls, params: Params, wanted: Params) -> Params:
        """Parameters of a run of the same family with what this config has more of them."""
        del wanted
        return params

    def __init__(self, config: Config):
        raise NotImplementedError

    def build_match(self, config: Config, width: int) -> None:
        """A linear head over the pooled vectors of pairs, where these are scored."""
        itm = config.objective.itm
        two = itm == "classification"  # a softmax over candidates cancels a bias
        self.match = None if itm == "none" else Linear(width, 1 + two, bias=two)
        self.calibration = Calibration() if itm == "contrastive" else None

    def build_masked(self, config: Config, **words: Any) -> None:
        """Heads over hidden words, with options of `WordHead`, and over hidden regions."""
        model = config.model
        if config.objective.mlm:
            self.word_head = WordHead(model.width, model.vocab_size, **words)
        if config.objective.mrm:
            parts = {
                "attributes": model.num_attributes or 0,
                "classes": model.num_classes,
                "features": model.regressed,
            }
            self.region_head = RegionHead(model.width, parts)

    def text_states(self, text: Text, *, key: Key = None) -> list[Float[Array, "B T _"]]:
        """States of captions after the embedding and each layer of a family's text encoder."""
        return self.text(text, key=key)

    def image_states(self, image: Image, *, key: Key = None) -> list[Float[Array, "B S _"]]:
        """Of photos likewise; what stands for the whole photo, where there is such, comes first."""
        return self.image(image, key=key)

    def text_features(self, text: Text) -> Float[Array, "B ..."]:
        """What the parameters of `remembered` make of captions, without dropout."""
        raise NotImplementedError

    def encode_text(self, text: Text, *, key: Key = None) -> Encoded:
        """Text of B captions → what they say alone; from `Text.features`, where these are given."""
        raise NotImplementedError

    def encode_image(self, image: Image, *, key: Key = None) -> Encoded:
        """Image of B photos → what they say alone."""
        raise NotImplementedError

    def encode_images(self, images: Sequence[Image], *, key: Key = None) -> tuple[Encoded, ...]:
        """The photos of B records that hold several, in order: `encode_image` for each place."""
        keys = split(key, len(images))
        return tuple(self.encode_image(image, key=k) for image, k in zip(images, keys))

    def fuse(self, text: Encoded, image: Encoded, *, key: Key = None, states: bool = True) -> Fused:
        """Row p of `text` meets row p of `image`: P pairs → Fused.

        Without `states`, the last layers compute only what scores and `pooled` read.
        """
        raise NotImplementedError

    def matched(self, pooled: Float32[Array, "P E"]) -> Float32[Array, "1 P _"] | None:
        """What `match` puts out, of one layer."""
        return None if self.match is None else self.match(pooled)[None]

    def judged(self, shown: Any, outs: Float32[Array, "L P _"] | None, pooled: Array) -> Fused:
        """Pairs with what a match head puts out of L layers; None = nothing is scored (L = 0)."""
        text, image = shown
        if outs is None:
            pairs = pooled.shape[0]  # symbolic when exported
            return Fused(text, image, jnp.zeros((0, pairs)), jnp.zeros((0, pairs, 2)), pooled)
        return Fused(text, image, *scored(outs, self.calibration), pooled)

    def pool(self, item: Encoded) -> Float[Array, "B E"]:
        """Items of one modality, as heads of tasks read them."""
        raise NotImplementedError

    def answers(self, pooled: Float[Array, "B E"], *, key: Key = None) -> Float32[Array, "B A"]:
        """Pairs (several side by side) or items → logits of a task's answers."""
        return self.answer_head(pooled, key=key)

    def logits(self, scores: Float[Array, "*P"]) -> Float32[Array, "*P 2"]:
        """Scores of a contrastive model, or products of embeddings → match logits, 0 = match."""
        assert self.calibration is not None
        return self.calibration(scores)

    def words(self, states: Float[Array, "*S D"]) -> Float32[Array, "*S V"]:
        """Text states → vocabulary logits."""
        return self.word_head(states, self.token_table.embedding[...])

    @property
    def token_table(self) -> Table:
        """The embeddings of tokens."""
        return self.text.embed.tokens

    def regions(self, states: Float[Array, "*S D"]) -> Float32[Array, "*S CF"]:
        """Region states → class logits [..., C], then features [..., F] if regressed."""
        return self.region_head(states, "classes", "features")

    def attributes(self, states: Float[Array, "*S D"]) -> Float32[Array, "*S A"]:
        """Region states → attribute logits."""
        return self.region_head(states, "attributes")

    def embed_text(self, text: Encoded) -> Float32[Array, "B E"]:
        """Encoded captions → vectors whose products with `embed_image` rank as scores do."""
        raise NotImplementedError

    def embed_image(self, image: Encoded) -> Float32[Array, "B E"]:
        """Encoded photos likewise."""
        raise NotImplementedError

    def contrast(
        self, text: Encoded, image: Encoded, *, key: Key = None
    ) -> Float32[Array, "K B B"]:
        """What the image–text contrast of B pairs compares: logits.

        Of models that embed beside a joint score. Each row of each of the K matrices has its match
        on the diagonal. The first compares captions with photos.
        """
        raise NotImplementedError


class Towers(Network):
    """What gives each item one vector, its one head, whose product is the score of a pair."""

    itms = ("contrastive",)

    @classmethod
    def separable(cls, config: Config) -> bool:
        """Where there is a score."""
        return config.objective.itm != "none"

    def fuse(self, text: Encoded, image: Encoded, *, key: Key = None, states: bool = True) -> Fused:
        """The states are there."""
        del key, states
        scores = (self.embed_text(text) * self.embed_image(image)).sum(-1)
        logits = self.logits(scores)
        return Fused(text.states, image.states[:, 1:], scores[None], logits[None])

    def embed_text(self, text: Encoded) -> Float32[Array, "B E"]:
        """The head."""
        return text.heads[0]

    def embed_image(self, image: Encoded) -> Float32[Array, "B E"]:
        """The head."""
        return image.heads[0]


def _pure(method: Callable[..., Any]) -> Callable[..., Any]:
    """A network's method as a function of the parameters, which come first."""

    @functools.wraps(method)
    def call(self: Model, params: Params, *args: Any, **kwargs: Any) -> Any:
        return self.apply(params, getattr(self.network, method.__name__), *args, **kwargs)

    return call


@dataclasses.dataclass(frozen=True)
class Model:
    """A network as pure functions of its parameters, a nested dict with string keys.

    Models that have embeddings (`embeds`) have `embed_text` and `embed_image`, by whose inner
    product pairs can be ranked. In `separable` ones it is the score itself, up to a constant.
    """

    config: Config
    network: type[Network]
    separable: bool

    text_features = _pure(Network.text_features)
    encode_text = _pure(Network.encode_text)
    encode_image = _pure(Network.encode_image)
    encode_images = _pure(Network.encode_images)
    fuse = _pure(Network.fuse)
    pool = _pure(Network.pool)
    answers = _pure(Network.answers)
    logits = _pure(Network.logits)
    words = _pure(Network.words)
    regions = _pure(Network.regions)
    attributes = _pure(Network.attributes)
    embed_text = _pure(Network.embed_text)
    embed_image = _pure(Network.embed_image)
    contrast = _pure(Network.contrast)

    @property
    def embeds(self) -> bool:
        """Whether there are embeddings of captions and photos."""
        return self.network.embeds(self.config)

    @property
    def fuses(self) -> bool:
        """Whether it reads photos at all: some families are text encoders."""
        return self.network.fuse is not Network.fuse

    def init(self, key: jax.Array) -> Params:
        """Fresh float32 parameters: of each, a function of the key and its path alone.

        Matrices and tables are drawn from BERT's initialiser, N(0, std) cut at two deviations.
        BERT's 0.02 is that of its width, 768; in narrower models, which would hardly pass anything
        on with it, products keep their variance.
        """
        return jax.jit(self._init)(key)

    def abstract(self) -> Params:
        """Shapes and dtypes of the parameters; allocates nothing."""
        _, params = _structure(self.network, self.config)
        return jax.tree.map(lambda leaf: leaf, params)  # callers may change theirs

    def adopt(self, params: Params) -> Params:
        """As `Network.adopt`."""
        return self.network.adopt(params, self.abstract())

    def _init(self, key: jax.Array) -> Params:
        params = nnx.to_pure_dict(nnx.state(self.network(self.config), nnx.Param))
        flat = params_lib.flatten(params)
        drawn = [path for path in flat if path.endswith(("/kernel", "/embedding"))]
        std = 0.02 * math.sqrt(768 / self.config.model.width)
        draws = _draw(key, {path: flat[path].shape for path in drawn})
        return params_lib.unflatten(flat | {path: std * draws[path] for path in drawn})

    def apply(self, params: Params, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls `method` of the network on `params`."""
        graph, _ = _structure(self.network, self.config)
        module = nnx.merge(graph, nnx.State(params))
        return method(module, *args, **kwargs)


_DRAWN = 2048  # values drawn with one key: all keys go through one compiled draw


def _draw(key: jax.Array, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """Standard normal values cut at two deviations, by path, whatever other paths there are."""
    counts = {path: -(-math.prod(shape) // _DRAWN) for path, shape in shapes.items()}
    names = np.repeat([zlib.crc32(path.encode()) for path in counts], [*counts.values()])
    places = np.concatenate([np.arange(count) for count in counts.values()])
    own = jax.random.key_data(key)[None, :2] ^ np.stack([names, places], axis=-1).astype(np.uint32)
    keys = jax.random.wrap_key_data(own, impl="threefry2x32")
    draw = jax.vmap(lambda key: jax.random.truncated_normal(key, -2.0, 2.0, (_DRAWN,)))
    # Compiled once: a compiler for GPUs would rather draw in each of the slices below.
    values = jax.lax.optimization_barrier(draw(keys).reshape(-1))
    drawn, start = {}, 0
    for path, shape in shapes.items():
        drawn[path] = values[start : start + math.prod(shape)].reshape(shape)
        start += counts[path] * _DRAWN
    return drawn


@functools.lru_cache(maxsize=64)
def _structure(network: type[Network], config: Config) -> tuple[nnx.GraphDef, Params]:
    """The network without its parameters, and their shapes and dtypes."""
    graph, state = nnx.split(nnx.eval_shape(lambda: network(config)))
    return graph, nnx.to_pure_dict(state)


def sizes(config: Config, width: int, heads: int, mlp_dim: int, **own: Any) -> Sizes:
    """Sizes of a stack; `own` are fields of `Sizes` that not all stacks of a run's model share."""
    model = config.model
    common = {
        "dropout": model.dropout,
        "attention_dropout": model.attention_rate,
        "attention": config.attention,
        "remat": config.remat == "layers",
    }
    return Sizes(width, heads, mlp_dim, **common | own)


def take(items: Any, index: Int[Array, " P"]) -> Any:
    """Rows `index` of each leaf of `items`."""
    return jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=0), items)
