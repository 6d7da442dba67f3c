"""What a notebook calls: `load`, to ask about photos and captions, and `build`, for fresh weights.

scorer = mmt_jax.load("work/cc")  # a training workdir, a SavedModel, or a hub handle
scorer.score("photo.npz", ["a red circle", "two stars"])  # one probability a caption
scorer.score("photo.jpg", ["a dog"], detector="frozen_graph:detector.pb")  # of a photo itself
scorer.fill("photo.npz", "a red <mask>")  # the likeliest words at each mask

model, params = mmt_jax.build("architecture_coattention")
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmt_jax.configs import config as config_lib
from mmt_jax.configs import variants
from mmt_jax.configs.config import RELEASE_SPEC, Config, DataSpec
from mmt_jax.data import schema, sources
from mmt_jax.detectors.base import Detector
from mmt_jax.errors import UsageError
from mmt_jax.hub import preparation
from mmt_jax.infer import fill as cloze
from mmt_jax.infer import pairs as scoring
from mmt_jax.infer.export import signature
from mmt_jax.infer.export.loading import SavedModel
from mmt_jax.infer.scorer import Inputs, Record, Scorer
from mmt_jax.infer.show.explain import Explanation, explain
from mmt_jax.models import registry
from mmt_jax.models.base import Encoded, Model
from mmt_jax.models.lxmert.network import Lxmert
from mmt_jax.text import store, vocabulary
from mmt_jax.typing import Image, Params, Text


class Built(NamedTuple):
    """A model and its parameters."""

    model: Model
    params: Params


def load(path: str | os.PathLike, *, vocab: str | os.PathLike | None = None) -> Scorer:
    """Loads a trained model for scoring.

    Args:
      path: a training workdir (its best checkpoint is taken), a SavedModel folder, or a TensorFlow
        Hub handle that begins with https://; the last two need TensorFlow.
      vocab: the file of a vocabulary, for modules that carry none, such as the release's.

    Raises:
      UsageError: nothing of the kind is there, or it is damaged.
    """
    folder = pathlib.Path(path)
    if "://" in str(path) or (folder / "saved_model.pb").is_file():
        return _SavedScorer(SavedModel(path), vocab)
    if (folder / "config.json").is_file():
        if vocab is not None:
            raise UsageError(f"{path} is a workdir, which has its vocabulary; leave vocab= out")
        return _TrainedScorer(folder)
    problem = "is neither a training workdir nor a SavedModel"
    raise UsageError(
        f"{path} {problem if folder.exists() else 'does not exist'}; give the --workdir of "
        f"`mmt train`, the --out of `mmt export`, or a TensorFlow Hub handle"
    )


def build(
    tag: str,
    *,
    scale: str = "tiny",
    seed: int = 0,
    spec: DataSpec | None = None,
) -> Built:
    """A model of the study with fresh weights, `(model, params)`.

    Args:
      tag: as `mmt list` prints.
      scale: as `variants.get_config` takes it; "full" has the release's sizes.
      seed: of the weights.
      spec: sizes that the model takes from its data; None = `data_spec`.

    Raises:
      UsageError: no such tag or scale.
    """
    config = variants.get_config(tag, scale=scale)
    model = registry.build(config_lib.with_spec(config, spec or data_spec(config)))
    return Built(model, model.init(jax.random.key(seed)))


def data_spec(config: Config) -> DataSpec:
    """The release's sizes for a full model, the generated scenes' for the smaller scales."""
    if config.scale != "full":
        return sources.spec(config)
    if config.model.pixels:
        return DataSpec(3 * config.model.patch_size**2, 0, RELEASE_SPEC.vocab_size)
    return RELEASE_SPEC


class _TrainedScorer(Scorer):
    """From a training workdir, with JAX: each item is encoded once."""

    def __init__(self, workdir: pathlib.Path):
        from mmt_jax.train import checkpoint

        trained = checkpoint.load(workdir)
        settings = preparation.read(workdir)
        super().__init__(
            trained.config,
            store.stored_tokenizer(workdir),
            preparation.processor(settings, trained.config, name=str(workdir))
            if settings
            else None,
        )
        config = dataclasses.replace(trained.model.config, dtype="float32")
        self._model = dataclasses.replace(trained.model, config=config)
        self._params = trained.params

    def logits(self, inputs: Inputs) -> np.ndarray:
        self.check_scores()
        return np.asarray(_logits(self._model, self._params, dict(inputs)))

    def explain(self, record: Record, caption: str) -> Explanation:
        self.check_scores()
        image = signature.image(self.config, self._images([record]))
        return explain(self._model, self._params, self.tokenizer, caption, image)

    def fill(
        self,
        record: Record | None,
        sentence: str,
        *,
        top: int = 5,
        detector: str | Detector | None = None,
        size_divisor: int | None = None,
    ) -> list[list[cloze.Word]]:
        image = None
        if record is not None and self._model.fuses:
            records = self._records([record], detector, size_divisor)
            image = signature.image(self.config, self._images(records))
        elif record is not None:
            raise UsageError(
                f"{self.config.tag} reads sentences alone; give None in the photo's place"
            )
        return cloze.fill(self._model, self._params, self.tokenizer, sentence, image, top=top)

    def trace(self, record: Record, caption: str) -> dict[str, list[np.ndarray]]:
        if not issubclass(self._model.network, Lxmert):
            raise UsageError(
                f"{self.config.tag or 'this model'} is of the family {self.config.model.family}, "
                f"and LXMERT alone can be traced; `explain` tells what words read of regions"
            )
        text = schema.to_text(self._texts([caption], truncate=False))
        image = signature.image(self.config, self._images([record]))
        found = _trace(self._model, self._params, text, image)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[0], found)

    def log_odds(
        self,
        texts: Inputs,
        images: Inputs,
        *,
        pairs: int = 256,
        progress: bool = False,
    ) -> np.ndarray:
        self.check_scores()
        text, image = schema.to_text(texts), signature.image(self.config, images)
        return scoring.pairwise(
            text,
            image,
            text_mask=text.mask,
            image_mask=image.mask,
            encode_text=functools.partial(_encode, self._model, "encode_text", self._params),
            encode_image=functools.partial(_encode, self._model, "encode_image", self._params),
            score=functools.partial(_log_odds, self._model, self._params),
            pairs=pairs,
            progress=progress,
        )


class _SavedScorer(Scorer):
    """From a SavedModel, with TensorFlow: a signature takes pairs, so it encodes each of them."""

    def __init__(self, module: SavedModel, vocab: str | os.PathLike | None):
        model = vocab or module.vocabulary
        if model is None:
            raise UsageError(
                f"{module.name} carries no vocabulary; give the file of its vocabulary as vocab="
            )
        super().__init__(module.config, vocabulary.load(model))
        self._module = module

    def logits(self, inputs: Inputs) -> np.ndarray:
        return self._module.logits(inputs)

    def log_odds(
        self,
        texts: Inputs,
        images: Inputs,
        *,
        pairs: int = 256,
        progress: bool = False,
    ) -> np.ndarray:
        if schema.PIXELS in images:
            image_mask = np.ones(images[schema.PIXELS].shape[:2], bool)
        else:
            image_mask = images[schema.IMAGE_PADDING] == 0
        return scoring.pairwise(
            dict(texts),
            dict(images),
            text_mask=texts[schema.TEXT_PADDING] == 0,
            image_mask=image_mask,
            encode_text=dict,
            encode_image=dict,
            score=self._block,
            pairs=pairs,
            progress=progress,
        )

    def _block(self, texts: Inputs, images: Inputs) -> np.ndarray:
        """A captions, B photos → [A, B]."""
        a, b = len(texts[schema.TOKEN_IDS]), len(next(iter(images.values())))
        inputs = {key: np.repeat(value, b, axis=0) for key, value in texts.items()}
        inputs |= {key: np.concatenate([value] * a) for key, value in images.items()}
        logits = self.logits(inputs)
        return (logits[:, 0] - logits[:, 1]).reshape(a, b)


@functools.partial(jax.jit, static_argnums=0)
def _logits(model: Model, params: Params, inputs: dict[str, Any]) -> jax.Array:
    return signature.default(model, params, inputs)[signature.OUTPUT]


@functools.partial(jax.jit, static_argnums=0)
def _trace(model: Model, params: Params, text: Text, image: Image) -> dict[str, list[jax.Array]]:
    return model.apply(params, Lxmert.trace, text, image)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(model: Model, method: str, params: Params, items: Any) -> Encoded:
    return getattr(model, method)(params, items)


@functools.partial(jax.jit, static_argnums=0)
def _log_odds(model: Model, params: Params, text: Encoded, image: Encoded) -> jax.Array:
    """A captions, B photos → [A, B]."""
    a, b = text.mask.shape[0], image.mask.shape[0]
    text = jax.tree.map(lambda leaf: jnp.repeat(leaf, b, axis=0), text)
    image = jax.tree.map(lambda leaf: jnp.concatenate([leaf] * a), image)
    logits = model.fuse(params, text, image).logits[-1]
    return (logits[:, 0] - logits[:, 1]).reshape(a, b)
