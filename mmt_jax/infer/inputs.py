"""What a model reads: photos, records and captions, checked and laid out as exported models do."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmt_jax import detectors
from mmt_jax.configs.config import Config
from mmt_jax.corpus import Photos
from mmt_jax.data import regions, schema
from mmt_jax.data.pipeline import Examples
from mmt_jax.detectors import base as detected
from mmt_jax.detectors.base import Detector
from mmt_jax.errors import UsageError, reading, trying
from mmt_jax.infer.export import signature
from mmt_jax.infer.pairs import Items
from mmt_jax.ingest import unpickle
from mmt_jax.photo import PICKLED, RECORDS
from mmt_jax.photos import pictures, processors
from mmt_jax.photos.processors import Processor
from mmt_jax.text.base import Tokenizer
from mmt_jax.typing import Image, Text

# One photo's keys, the file of them (`read_record`), or the photo, as `pictures.given` takes it.
Record = Any
Inputs = Mapping[str, np.ndarray]  # keys of the exported signature, batched


class Reader:
    """Prepares photos and captions as one model reads them.

    `processor` is how it is shown photos, where its weights came with that; None = as its family.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer, processor: Processor | None = None):
        wanted = config.model.vocab_size
        if wanted is not None and tokenizer.vocab_size != wanted:
            raise UsageError(
                f"the vocabulary has {tokenizer.vocab_size} pieces, but the model was trained with "
                f"{wanted}; give the one that it was trained with"
            )
        self.config, self.tokenizer, self.processor = config, tokenizer, processor

    @property
    def name(self) -> str:
        """What messages call the model."""
        return self.config.tag or "this model"

    def texts(self, captions: Sequence[str], *, truncate: bool) -> dict[str, np.ndarray]:
        """The text keys of captions.

        UsageError: there is none, or one that is no string, empty or, not cut, too long.
        """
        if isinstance(captions, str):
            raise UsageError(f"captions must be a list; write [{captions!r}]")
        captions = list(captions if isinstance(captions, Iterable) else [captions])  # of arrays too
        if not captions:
            raise UsageError("there is no caption; give one or more")
        for caption in captions:  # tables of captions have NaN where one is missing
            if not isinstance(caption, str):
                raise UsageError(f"a caption is {caption!r}; give each as one string")
        length, layout = self.config.data.text_length, self.config.model.layout
        encoded = self.tokenizer.encode_all(captions)
        for caption, ids in zip(captions, encoded, strict=True):
            if len(ids) > length - 2 and not truncate:
                raise UsageError(
                    f"the text {caption!r} has {len(ids)} pieces, but the model reads "
                    f"{length - 2}; shorten it, or have it cut (truncate=True, or --truncate)"
                )
        return schema.from_text(self.tokenizer.layout(encoded, length=length, layout=layout))

    def images(
        self,
        records: Sequence[Record],
        detector: str | Detector | None = None,
        size_divisor: int | None = None,
    ) -> dict[str, np.ndarray]:
        """The image keys of photos and records; arguments and errors as `Scorer.score`."""
        if not records:
            raise UsageError("there is no record; give one or more")
        if any(map(_is_photo, records)):
            detector = detectors.load(detector) if isinstance(detector, str) else detector
        elif detector is not None or size_divisor is not None:
            name = "size_divisor" if detector is None else "detector"
            raise UsageError(f"a record is what is read of a photo already; leave {name} out")
        read = []
        for index, record in enumerate(records):
            if _is_photo(record):
                name = f"photo {index}" if len(records) > 1 else "the photo"
                how = {"detector": detector, "size_divisor": size_divisor}
                read.append(self.record(record, **how, name=name))
                continue
            named = isinstance(record, Mapping)
            read.append(record if named else read_record(record))
            self.check_record(read[-1], f"record {index}" if named else os.fspath(record))
        if self.config.model.pixels:
            return _stack_pixels([record[schema.PIXELS] for record in read])
        return _stack_regions(read)

    def _text(self, captions: Sequence[str], truncate: bool) -> Text:
        return schema.to_text(self.texts(captions, truncate=truncate))

    def _image(self, records: Record | Sequence[Record], *how: Any) -> Image:
        """Photos, or one, with a batch axis; as `images` otherwise."""
        return signature.image(self.config, self.images(listed(records)[0], *how))

    def examples(self, corpora: Sequence[Photos], *, bare: bool = False) -> Examples:
        """Photos and captions of sources, as this model reads them; as `Examples.of`."""
        return Examples.of(
            self.config, corpora, self.tokenizer, bare=bare, processor=self.processor
        )

    def record(
        self,
        photo: Any,
        *,
        detector: str | Detector | None = None,
        size_divisor: int | None = None,
        name: str = "the photo",
    ) -> dict[str, np.ndarray]:
        """The record of a photo, as this model reads it; arguments as of `Scorer.score`.

        `name` is what errors call it where it has none. UsageError: no picture, no detector where
        the model reads regions, no region, or those of another detector than it was trained with.
        """
        picture, name = pictures.given(photo, name)
        if self.config.model.pixels:
            if detector is not None:
                raise UsageError(f"{self.name} reads a photo's pixels; leave detector out")
            return {schema.PIXELS: self._processor(size_divisor)(picture)}
        if detector is None:
            raise UsageError(
                f"{name} is a photo, and this model reads regions; give the detector that it was "
                f"trained with (detector=, or --detector), or a record"
            )
        loaded = detectors.load(detector) if isinstance(detector, str) else detector
        reading = regions.Reading.of(self.config)
        result = detected.record(detected.answer(loaded, picture, name), reading)
        self.check_record(result, name)
        return result

    def _processor(self, divisor: int | None) -> Processor:
        if self.processor is None or divisor is not None:
            return processors.of(self.config, divisor=32 if divisor is None else divisor)
        return self.processor

    def check_record(self, record: Mapping[str, np.ndarray], name: str) -> None:
        """Refuses a record with a fault, or of another detector; `name` says whose it is."""
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


def batched(inputs: Inputs | Items) -> Items:
    """Captions or photos in memory, by the signature's keys, as items; items as they are."""
    if isinstance(inputs, Items):
        return inputs
    if schema.PIXELS in inputs:
        return Items.of(dict(inputs), np.ones(inputs[schema.PIXELS].shape[:2], bool))
    padding = schema.IMAGE_PADDING if schema.IMAGE_PADDING in inputs else schema.TEXT_PADDING
    return Items.of(dict(inputs), schema.mask(inputs[padding]))


def read_record(path: str | os.PathLike) -> dict[str, Any]:
    """The record in a file: an npz, or a pickle as the MMT release has them, of which no code runs.

    It is read in this process, which a damaged pickle may end; `mmt data convert` reads those of
    strangers in another. UsageError: it is not there, damaged, or holds Python objects.
    """
    if pathlib.Path(path).suffix not in PICKLED:
        return schema.read_record(path)
    with trying(f"{path} is damaged", "; fetch or save it again"), reading(path):
        found = unpickle.record(path)
        for key in schema.IMAGE_KEYS:
            if isinstance(value := found.get(key), np.ndarray):
                dtype = np.int32 if key == schema.IMAGE_PADDING else np.float32
                found[key] = value.astype(dtype, copy=False)
    return found


def listed(records: Any) -> tuple[list[Record], bool]:
    """Photos or records as a list, and whether there was one alone, not in a list.

    What is neither counts as one photo, which `pictures.given` refuses.
    """
    alone = Mapping | str | bytes | os.PathLike
    one = isinstance(records, alone) or hasattr(records, "convert")  # as Pillow's images have
    one = one or getattr(records, "ndim", 0) == 3 or not isinstance(records, Iterable)
    return ([records] if one else list(records)), one


def _is_photo(record: Record) -> bool:
    """Whether it is a photo, and no record; the path of a record ends as RECORDS do."""
    if isinstance(record, str | os.PathLike):
        return pathlib.Path(record).suffix not in RECORDS
    return not isinstance(record, Mapping)


def _stack_regions(records: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """[R, ...] each → [N, R, ...], padded in front to the most regions."""
    slots = max(len(record[schema.IMAGE_PADDING]) for record in records)
    return {
        key: np.concatenate(
            [signature.padded(np.asarray(record[key])[None], key, slots) for record in records]
        )
        for key in schema.IMAGE_KEYS
    }


def _stack_pixels(photos: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    sizes = {photo.shape for photo in photos}
    if len(sizes) > 1:
        height, width = sorted(shape[:2] for shape in sizes)[0]
        raise UsageError(
            f"the records' photos have {len(sizes)} different sizes; resize them all alike, such "
            f"as to {height} × {width}, or score them one by one"
        )
    return {schema.PIXELS: np.stack(photos)}
