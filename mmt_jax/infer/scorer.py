"""What a notebook holds after `mmt_jax.load`: a model that is asked about photos and sentences.

`Scorer` prepares photos, records and sentences as the model reads them; how scores are computed is
left to its two kinds, in `mmt_jax.infer.api`.
"""

from __future__ import annotations

import abc
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TypeGuard

import numpy as np

from mmt_jax import detectors
from mmt_jax.configs.config import Config
from mmt_jax.data import schema
from mmt_jax.detectors import base as detected
from mmt_jax.detectors.base import Detector
from mmt_jax.errors import UsageError
from mmt_jax.infer.fill import Word
from mmt_jax.infer.show.explain import Explanation
from mmt_jax.photos import pictures, processors
from mmt_jax.photos.processors import Processor
from mmt_jax.text.base import Tokenizer

# One photo's keys, its npz file, or the photo itself.
Record = Mapping[str, np.ndarray] | str | os.PathLike
Inputs = Mapping[str, np.ndarray]  # keys of the exported signature, batched


class Scorer(abc.ABC):
    """A trained model that scores photos and captions, in float32.

    Attributes:
      config: the run's config.
      tokenizer: its vocabulary.
      processor: how it is shown photos, where its weights came with that; None = as its family is.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer, processor: Processor | None = None):
        wanted = config.model.vocab_size
        if wanted is not None and tokenizer.vocab_size != wanted:
            raise UsageError(
                f"the vocabulary has {tokenizer.vocab_size} pieces, but the model was trained with "
                f"{wanted}; give the one that it was trained with"
            )
        self.config = config
        self.tokenizer = tokenizer
        self.processor = processor

    def score(
        self,
        records: Record | Sequence[Record],
        captions: Sequence[str],
        *,
        truncate: bool = False,
        detector: str | Detector | None = None,
        size_divisor: int | None = None,
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
          size_divisor: of BridgeTower's photos, see `processors.Processor`; None = as its weights
            came with, or 32.

        Returns:
          [photos, captions] f32; [captions] if `records` is one photo and no list.

        Raises:
          UsageError: the model scores no pairs, or the first fault of a record or caption, and its
            remedy.
        """
        odds = self._odds(records, captions, truncate, detector, size_divisor)
        return np.exp(-np.logaddexp(np.float32(0), -odds))

    def choose(
        self,
        records: Record | Sequence[Record],
        captions: Sequence[str],
        *,
        truncate: bool = False,
        detector: str | Detector | None = None,
        size_divisor: int | None = None,
    ) -> np.ndarray:
        """The probability of each caption, given that one of them is the photo's.

        The softmax of the log odds over captions: classification without training, as CLIP's
        (Radford et al., 2021, section 3.1). Arguments, shapes and errors are those of `score`.
        """
        odds = self._odds(records, captions, truncate, detector, size_divisor)
        weights = np.exp(odds - odds.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)

    def fill(
        self,
        record: Record | None,
        sentence: str,
        *,
        top: int = 5,
        detector: str | Detector | None = None,
        size_divisor: int | None = None,
    ) -> list[list[Word]]:
        """The likeliest words at each `<mask>` (or `[MASK]`) of a sentence.

        Args:
          record: a photo, as `score` takes it; None for models that read sentences alone.
          sentence: with at least one blank.
          top: how many words.
          detector: as of `score`.
          size_divisor: as of `score`.

        Returns:
          For each blank, in order, its `top` likeliest pieces of the vocabulary with their
          probabilities, best first.

        Raises:
          UsageError: this is a module, the model has learned no words, or the first fault of record
            or sentence.
        """
        del record, sentence, top, detector, size_divisor
        raise self._only_scores()

    def trace(self, record: Record, caption: str) -> dict[str, list[np.ndarray]]:
        """Hidden states and attention maps of a record (no photo) and a caption, to be looked at.

        Of LXMERT; `Explanation.attention` is there for other models too.

        Returns:
          `text` and `image`: states after the embedding and after each layer, [S, D], S tokens
          (padding included) or regions. `text_attention`, `image_attention`: the weights with which
          each unimodal layer reads, [N, S, S]. `text_to_image`, `image_to_text`: those of each
          cross-modal layer, [N, T, R] and [N, R, T].

        Raises:
          UsageError: this is a module, the model is none that can be traced, or the record or
            caption has a fault.
        """
        del record, caption
        raise self._only_scores()

    def _only_scores(self) -> UsageError:
        return UsageError("a module tells nothing but its scores; give the workdir it was made of")

    def _odds(self, records, captions, truncate, detector, size_divisor) -> np.ndarray:
        """Log odds, in the shape that `score` returns."""
        self.check_scores()
        single = isinstance(records, Mapping | str | os.PathLike)
        records = [records] if single else list(records)
        images = self._images(self._records(records, detector, size_divisor))
        odds = self.log_odds(self._texts(captions, truncate), images).T
        return odds[0] if single else odds

    def check_scores(self) -> None:
        """Refuses to score with a model that cannot.

        Raises:
          UsageError: it was trained without an ITM loss.
        """
        if self.config.objective.itm == "none":
            raise UsageError(
                f"{self.config.tag or 'this model'} scores no pairs of image and text; score with "
                f"a model that was trained with an ITM loss"
            )

    def _records(
        self,
        records: Sequence[Record],
        detector: str | Detector | None,
        size_divisor: int | None,
    ) -> list[Record]:
        """With the records of photos in the place of these."""
        if isinstance(detector, str) and any(map(_is_photo, records)):
            detector = detectors.load(detector)
        return [
            self.record(record, detector=detector, size_divisor=size_divisor)
            if _is_photo(record)
            else record
            for record in records
        ]

    def record(
        self,
        photo: str | os.PathLike,
        *,
        detector: str | Detector | None = None,
        size_divisor: int | None = None,
    ) -> dict[str, np.ndarray]:
        """The record of a photo, as this model reads it; arguments as of `score`.

        Raises:
          UsageError: no picture, no detector where the model reads regions, no region on the photo,
            or regions of another detector than the model was trained with.
        """
        model, data = self.config.model, self.config.data
        picture, name = pictures.read(photo), os.fspath(photo)
        if model.pixels:
            return {schema.PIXELS: self._processor(size_divisor)(picture)}
        if detector is None:
            raise UsageError(
                f"{name} is a photo, and this model reads regions; give the detector that it was "
                f"trained with (detector=, or --detector), or a record"
            )
        loaded = detectors.load(detector) if isinstance(detector, str) else detector
        result = detected.record(
            detected.answer(loaded, picture, name),
            max_regions=data.max_regions,
            reading=data.regions,
            global_region=model.global_region,
        )
        self.check_record(result, name)
        return result

    def _processor(self, divisor: int | None) -> Processor:
        if self.processor is None or divisor is not None:
            return processors.of(self.config, divisor=32 if divisor is None else divisor)
        return self.processor

    def explain(self, record: Record, caption: str) -> Explanation:
        """What the score of a record (no photo) and a caption rests on.

        Raises:
          UsageError: this is no workdir, or the record has a fault.
        """
        del record, caption
        raise self._only_scores()

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
        if len(captions) == 0:
            raise UsageError("there is no caption; give one or more")
        length, layout = self.config.data.text_length, self.config.model.layout
        encoded = self.tokenizer.encode_all(captions)
        for caption, ids in zip(captions, encoded, strict=True):
            if len(ids) > length - 2 and not truncate:
                raise UsageError(
                    f"the caption {caption!r} has {len(ids)} pieces, but the model reads "
                    f"{length - 2}; shorten it, or have it cut (truncate=True, or --truncate)"
                )
        return schema.from_text(self.tokenizer.layout(encoded, length=length, layout=layout))

    def _images(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        if not records:
            raise UsageError("there is no record; give one or more")
        loaded = []
        for index, record in enumerate(records):
            named = isinstance(record, Mapping)
            name = f"record {index}" if named else os.fspath(record)
            loaded.append(record if named else schema.read_record(record))
            self.check_record(loaded[-1], name)
        if self.config.model.pixels:
            return _stack_pixels([record[schema.PIXELS] for record in loaded])
        return _stack_regions(loaded)

    def check_record(self, record: Mapping[str, np.ndarray], name: str) -> None:
        """Refuses a record that this model does not read.

        Raises:
          UsageError: it has a fault, or is of another detector; `name` says whose record it is.
        """
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


def _is_photo(record: Record) -> TypeGuard[str | os.PathLike]:
    """Whether it is the path of a photo; that of a record ends in .npz."""
    return not isinstance(record, Mapping) and pathlib.Path(record).suffix != ".npz"


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
