"""What a notebook calls: `load`, to score photos and captions, and `build`, for fresh weights.

scorer = mmt_jax.load("work/cc")  # a training workdir, a SavedModel, or a hub handle
scorer.score("photo.npz", ["a red circle", "two stars"])  # one probability a caption
scorer.score("photo.jpg", ["a dog"], detector="frozen_graph:detector.pb")  # of a photo itself

model, params = mmt_jax.build("architecture_coattention")
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmt_jax import config as config_lib
from mmt_jax import detectors, scoring, variants
from mmt_jax.config import RELEASE_SPEC, Config, DataSpec, UsageError
from mmt_jax.data import pictures, processors, schema, sources
from mmt_jax.data import text as text_lib
from mmt_jax.data.text import Tokenizer
from mmt_jax.detectors import base as detected
from mmt_jax.detectors.base import Detector
from mmt_jax.export import signature
from mmt_jax.export.loading import SavedModel
from mmt_jax.models import registry
from mmt_jax.models.base import Encoded, Model
from mmt_jax.show.explain import Explanation, explain
from mmt_jax.typing import Params

# One photo's keys, its npz file, or the photo itself.
Record = Mapping[str, np.ndarray] | str | os.PathLike
Inputs = Mapping[str, np.ndarray]  # keys of the exported signature, batched


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


class Scorer(abc.ABC):
    """A trained model that scores photos and captions, in float32.

    Attributes:
      config: the run's config.
      tokenizer: its vocabulary.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer):
        if config.objective.itm == "none":
            raise UsageError(
                f"{config.tag or 'this model'} scores no pairs of image and text; score with a "
                f"model that was trained with an ITM loss"
            )
        wanted = config.model.vocab_size
        if wanted is not None and tokenizer.vocab_size != wanted:
            raise UsageError(
                f"the vocabulary has {tokenizer.vocab_size} pieces, but the model was trained with "
                f"{wanted}; give the one that it was trained with"
            )
        self.config = config
        self.tokenizer = tokenizer

    def score(
        self,
        records: Record | Sequence[Record],
        captions: Sequence[str],
        *,
        truncate: bool = False,
        detector: str | Detector | None = None,
        size_divisor: int = 32,
    ) -> np.ndarray:
        """The probability that photo and caption match, for each photo with each caption.

        Args:
          records: one photo or a list of them. A photo is a dict of `image/bboxes` [R, 5] f32,
            `image/detection_features` [R, F] f32 and `image/padding_mask` [R] i32 (or, where the
            model reads pixels, `image/pixels` [H, W, 3] f32 in 0..1), or the path of an npz file
            that holds these, or that of a photo.
          captions: plain sentences.
          truncate: cut captions that are too long, as training does, in place of refusing them.
          detector: of photos' regions, as `detectors.load` takes it, or gives it; models that read
            pixels need none.
          size_divisor: of BridgeTower's photos; see `processors.Processor`.

        Returns:
          [photos, captions] f32; [captions] if `records` is one photo and no list.

        Raises:
          UsageError: the first fault of a record or caption, and its remedy.
        """
        single = isinstance(records, Mapping | str | os.PathLike)
        records = [records] if single else list(records)
        if isinstance(detector, str) and any(map(_is_photo, records)):
            detector = detectors.load(detector)
        records = [
            self.record(record, detector=detector, size_divisor=size_divisor)
            if _is_photo(record)
            else record
            for record in records
        ]
        images = self._images(records)
        odds = self.log_odds(self._texts(captions, truncate), images).T
        probabilities = np.exp(-np.logaddexp(np.float32(0), -odds))
        return probabilities[0] if single else probabilities

    def record(
        self,
        photo: str | os.PathLike,
        *,
        detector: str | Detector | None = None,
        size_divisor: int = 32,
    ) -> dict[str, np.ndarray]:
        """The record of a photo, as this model reads it; arguments as of `score`.

        Raises:
          UsageError: no picture, no detector where the model reads regions, no region on the photo,
            or regions of another detector than the model was trained with.
        """
        model, data = self.config.model, self.config.data
        picture, name = pictures.read(photo), os.fspath(photo)
        if model.pixels:
            return {schema.PIXELS: processors.of(self.config, divisor=size_divisor)(picture)}
        if detector is None:
            raise UsageError(
                f"{name} is a photo, and this model reads regions; give the detector that it was "
                f"trained with (detector=, or --detector), or a record"
            )
        loaded = detectors.load(detector) if isinstance(detector, str) else detector
        (found,) = loaded.detect([picture])
        result = detected.record(
            detected.photo(found),
            max_regions=data.max_regions,
            reading=data.regions,
            global_region=model.global_region,
        )
        self._validate(result, name)
        return result

    def explain(self, record: Record, caption: str) -> Explanation:
        """What the score of a record (no photo) and a caption rests on.

        Raises:
          UsageError: this is no workdir, or the record has a fault.
        """
        del record, caption
        raise UsageError("a module tells nothing but its scores; give the workdir it was made of")

    @abc.abstractmethod
    def logits(self, inputs: Inputs) -> np.ndarray:
        """All keys of the signature, B pairs → [B, 2] f32; softmax(...)[:, 0] = match."""

    @abc.abstractmethod
    def log_odds(
        self,
        texts: Inputs,
        images: Inputs,
        *,
        pairs: int = 256,
        progress: bool = False,
    ) -> np.ndarray:
        """Text keys of M captions, image keys of N photos → log odds of a match, [M, N] f32.

        They rank as probabilities do, but do not saturate. About `pairs` pairs are computed at
        once; `progress` shows a line on stderr.
        """

    def _texts(self, captions: Sequence[str], truncate: bool) -> dict[str, np.ndarray]:
        if isinstance(captions, str):
            raise UsageError(f"captions must be a list; write [{captions!r}]")
        if not captions:
            raise UsageError("there is no caption; give one or more")
        length = self.config.data.text_length
        encoded = self.tokenizer.encode_all(captions)
        for caption, ids in zip(captions, encoded, strict=True):
            if len(ids) > length - 2 and not truncate:
                raise UsageError(
                    f"the caption {caption!r} has {len(ids)} pieces, but the model reads "
                    f"{length - 2}; shorten it, or have it cut (truncate=True, or --truncate)"
                )
        layout = self.config.model.layout
        return schema.from_text(self.tokenizer.layout(encoded, length=length, layout=layout))

    def _images(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        if not records:
            raise UsageError("there is no record; give one or more")
        loaded = []
        for index, record in enumerate(records):
            named = isinstance(record, Mapping)
            name = f"record {index}" if named else os.fspath(record)
            loaded.append(record if named else schema.read_record(record))
            self._validate(loaded[-1], name)
        if self.config.model.pixels:
            return _stack_pixels([record[schema.PIXELS] for record in loaded])
        return _stack_regions(loaded)

    def _validate(self, record: Mapping[str, np.ndarray], name: str) -> None:
        model = self.config.model
        if model.pixels:
            schema.validate_pixels(record, name=name, patch_size=model.patch_size)
        else:
            schema.validate_record(
                record,
                name=name,
                feature_dim=model.feature_dim,
                max_regions=self.config.data.max_regions,
                global_region=model.global_region,
            )


def _is_photo(record: Record) -> bool:
    """Whether it is the path of a photo; that of a record ends in .npz."""
    return not isinstance(record, Mapping) and pathlib.Path(record).suffix != ".npz"


class _TrainedScorer(Scorer):
    """From a training workdir, with JAX: each item is encoded once."""

    def __init__(self, workdir: pathlib.Path):
        from mmt_jax.train import checkpoint

        trained = checkpoint.load(workdir)
        super().__init__(trained.config, sources.stored_tokenizer(workdir))
        config = dataclasses.replace(trained.model.config, dtype="float32")
        self._model = dataclasses.replace(trained.model, config=config)
        self._params = trained.params

    def logits(self, inputs: Inputs) -> np.ndarray:
        return np.asarray(_logits(self._model, self._params, dict(inputs)))

    def explain(self, record: Record, caption: str) -> Explanation:
        image = signature.image(self.config, self._images([record]))
        return explain(self._model, self._params, self.tokenizer, caption, image)

    def log_odds(
        self,
        texts: Inputs,
        images: Inputs,
        *,
        pairs: int = 256,
        progress: bool = False,
    ) -> np.ndarray:
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
        if vocab is None and module.vocabulary is None:
            raise UsageError(
                f"{module.name} carries no vocabulary; give the file of its vocabulary as vocab="
            )
        super().__init__(module.config, text_lib.load(vocab or module.vocabulary))
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


def _stack_regions(records: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """[R, ...] each → [N, R, ...], padded in front to the most regions."""
    slots = max(len(record[schema.IMAGE_PADDING]) for record in records)
    stacked = {}
    for key in schema.IMAGE_KEYS:
        rows = []
        for record in records:
            value = np.asarray(record[key])
            widths = [(slots - len(value), 0)] + [(0, 0)] * (value.ndim - 1)
            rows.append(np.pad(value, widths, constant_values=key == schema.IMAGE_PADDING))
        stacked[key] = np.stack(rows)
    return stacked


def _stack_pixels(photos: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    sizes = {photo.shape for photo in photos}
    if len(sizes) > 1:
        height, width = sorted(shape[:2] for shape in sizes)[0]
        raise UsageError(
            f"the records' photos have {len(sizes)} different sizes; resize them all alike, such "
            f"as to {height} × {width}, or score them one by one"
        )
    return {schema.PIXELS: np.stack(photos)}
