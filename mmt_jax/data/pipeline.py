"""Corpora as pairs of photo and caption, in memory or read photo by photo from disk.

Which of them make a batch, and in which order, is `feed`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from mmt_jax.configs.config import Config
from mmt_jax.corpus import AllCaptions, Corpus, Photos, agreed
from mmt_jax.corpus import starts as starts_of
from mmt_jax.data import buckets as buckets_lib
from mmt_jax.data import regions, schema
from mmt_jax.data.buckets import Size
from mmt_jax.errors import UsageError
from mmt_jax.photo import BOXES, FEATURES, IDS, LABELS, PIXELS, PROBS
from mmt_jax.photos import augment, processors
from mmt_jax.photos.processors import Processor
from mmt_jax.text.base import Tokenizer
from mmt_jax.typing import Batch, Image, Text

_CHUNK = 4096  # captions tokenised at once where they lie on disk


class Examples:
    """Corpora as one list of N photos and one list of M captions.

    Shapes are static: T is the longest caption's, at most `text_length`; the most regions that a
    photo keeps, at most `max_regions`, and the global region make R. Captions in memory are
    tokenised once, those on disk whenever they are drawn.

    Attributes:
      sizes: photos of each corpus, in order.
      image_ids: [N] i64, as the corpora have them. Photos of equal id count as the same photo, so
        that two corpora over the same photos never make each other's mismatched pairs.
      captions: the M captions as they are written.
      caption_to_image: [M] i64, the photo of each caption.
      num_classes: of the class distributions; 0 = none.
      num_attributes: of the regions' attributes; 0 = none, or they are not asked for.
    """

    def __init__(
        self,
        corpora: Sequence[Photos],
        tokenizer: Tokenizer,
        *,
        text_length: int = 25,
        max_regions: int = 100,
        reading: str = "plain",
        patch_size: int | None = None,
        layout: str = "release",
        global_region: bool = True,
        attributes: bool = False,
        bare: bool = False,
    ):
        """Lays corpora out.

        Args:
          corpora: one, or the parts of a mixture; records of one detector.
          text_length: T at most, `[SEP]` and `[CLS]` included; longer captions are cut.
          max_regions: of a photo, the global one not counted.
          reading: "plain" or "release", see `regions`.
          patch_size: given, records are patches of the photos' pixels in place of their regions.
          layout: of captions, see `Tokenizer.layout`.
          global_region: whether the whole photo follows a photo's regions as the last of them.
          attributes: whether regions come with their attributes, where they have some.
          bare: whether photos without captions are taken too.

        Raises:
          UsageError: the corpora do not fit together, or a caption is empty.
        """
        self.sizes = tuple(len(corpus) for corpus in corpora)
        self.image_ids = np.concatenate([corpus.image_ids for corpus in corpora])
        self._photo_ids = np.unique(self.image_ids, return_inverse=True)[1].astype(np.int32)
        self._patch_size, self._global_region = patch_size, global_region
        self._corpora, self._starts = tuple(corpora), starts_of(self.sizes)
        self.num_classes = self.num_attributes = 0
        if patch_size:
            self._check_pixels()
        else:
            named = [(corpus.name, corpus) for corpus in corpora]
            agreed(named, "feature_dim")
            self.num_classes, found = (agreed(named, field) for field in LABELS.values())
            self.num_attributes = found if attributes else 0
            self._lay_out_regions(regions.Reading(max_regions, reading, global_region))
        self._tokenizer, self._layout = tokenizer, layout
        self._lay_out_captions(text_length, bare)

    @classmethod
    def of(
        cls,
        config: Config,
        corpora: Sequence[Photos],
        tokenizer: Tokenizer,
        *,
        bare: bool = False,
        cache: str | None = None,
        processor: Processor | None = None,
    ) -> Examples:
        """Examples as a config asks for them.

        Args:
          config: of the model.
          corpora, tokenizer, bare: as of `Examples`.
          cache: a folder to keep decoded photos in: a run gives its `config.data.cache`, while
            others who read its config write nothing.
          processor: how photos are shown, where the weights came with that; None = as the config
            says.

        Raises:
          UsageError: also where `config.data.text_length` is more than the model's positions, or
            regions have other features than the model reads.
        """
        wanted = None if config.model.pixels else config.model.feature_dim
        if config.model.pixels and any(PIXELS not in corpus.shapes for corpus in corpora):
            processor = processor or processors.of(config)
            recipe = augment.RECIPES.get(config.data.augment)
            corpora = [corpus.shown(processor, recipe, cache) for corpus in corpora]
        for corpus in corpora:
            if wanted and wanted != corpus.feature_dim:
                raise UsageError(
                    f"{corpus.name} has features of width {corpus.feature_dim}, but the model "
                    f"reads {wanted}; give records of the detector that it was trained with"
                )
        if config.data.text_length > config.model.max_positions:
            raise UsageError(
                f"config.data.text_length is {config.data.text_length}, but the model has only "
                f"{config.model.max_positions} positions (config.model.max_positions)"
            )
        return cls(
            corpora,
            tokenizer,
            text_length=config.data.text_length,
            max_regions=config.data.max_regions,
            reading=config.data.regions,
            patch_size=config.model.patch_size if config.model.pixels else None,
            layout=config.model.layout,
            global_region=config.model.global_region,
            attributes=bool(config.model.num_attributes),
            bare=bare,
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def photo_names(self) -> tuple[str, ...]:
        """[N] names of photos, as people know them."""
        return tuple(part.photo_name(i) for part in self._corpora for i in range(len(part)))

    def _check_pixels(self) -> None:
        for corpus in self._corpora:
            if PIXELS not in corpus.shapes:
                raise UsageError(f"{corpus.name} has no pixels, which config.model.pixels asks for")
        shapes = {corpus.shapes[PIXELS] for corpus in self._corpora}
        if len(shapes) > 1:
            raise UsageError(f"the corpora have photos of different sizes: {sorted(shapes)}")
        (self._shape,) = shapes
        nothing = self.images(np.arange(0))  # says now if the patches do not fit
        self._width = nothing.mask.shape[1]
        self._real_regions = np.full(len(self), self._width)

    def _lay_out_regions(self, reading: regions.Reading) -> None:
        self._reading = reading
        self._width = max(reading.width(corpus.offsets) for corpus in self._corpora)
        kept = [reading.kept(corpus.offsets) for corpus in self._corpora]
        self._real_regions = np.maximum(np.concatenate(kept) + self._global_region, 1)
        wanted = [BOXES, FEATURES]
        for kind, number in LABELS.items():
            wanted += [IDS[kind], PROBS[kind]] if getattr(self, number) else []
        self._shapes = {
            key: max(corpus.shapes.get(key, (0,)) for corpus in self._corpora) for key in wanted
        }

    def _lay_out_captions(self, text_length: int, bare: bool) -> None:
        self.captions: Sequence[str] = AllCaptions(self._corpora)
        self._caption_starts = self.captions.starts
        counts = np.diff(self._caption_starts)
        if not (bare or counts.all()):
            missing = self.image_ids[np.flatnonzero(counts == 0)[0]]
            raise UsageError(f"photo {missing} has no caption; leave it out")
        self.caption_to_image = np.repeat(np.arange(len(counts)), counts)
        self._texts: Text | None = None
        if all(isinstance(corpus.captions, tuple) for corpus in self._corpora):
            self.captions = tuple(
                c for corpus in self._corpora for own in corpus.captions for c in own
            )
            encoded = self._tokenizer.encode_all(self.captions)
            self._length = min(max(map(len, encoded), default=1) + 2, text_length)
            self._texts = self._laid_out(encoded)
        else:
            self._length = self._longest(text_length)

    def _longest(self, most: int) -> int:
        """T of captions on disk; they are read until one is as long as may be."""
        longest = 0
        for start in range(0, len(self.captions), _CHUNK):
            encoded = self._tokenizer.encode_all(self.captions[start : start + _CHUNK])
            longest = max(longest, *(len(ids) + 2 for ids in encoded))
            if longest >= most:
                return most
        return longest

    def _laid_out(self, encoded: Sequence[Sequence[int]]) -> Text:
        return self._tokenizer.layout(encoded, length=self._length, layout=self._layout)

    def images(self, indices: np.ndarray, keys: np.ndarray | None = None) -> Image:
        """Photos [B] of 0 ≤ index < N as numpy arrays; `keys` as of `batch`."""
        if self._patch_size:
            return regions.pixel_image(
                self.pixels(indices, keys), self._patch_size, global_region=self._global_region
            )
        taken = self._taken(indices)
        return schema.to_image(self._reading.batch(taken, self._shapes, self._width))

    def pixels(self, indices: np.ndarray, keys: np.ndarray | None = None) -> np.ndarray:
        """[B, H, W, 3] f32 in 0..1 of photos, where records are patches of these."""
        pixels = np.zeros((len(indices), *self._shape), np.float32)
        for place, photos in self._taken(indices, keys):
            pixels[place] = photos.pixels
        return pixels / 255

    def _taken(
        self, indices: np.ndarray, keys: np.ndarray | None = None
    ) -> list[tuple[np.ndarray, Corpus]]:
        """What each corpus has of photos, and their places among them."""
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        places = [np.flatnonzero(owner == part) for part in range(len(self.sizes))]

        def of(corpus: Photos, place: np.ndarray, start: int) -> Corpus:
            own = indices[place] - start
            return corpus.take(own) if keys is None else corpus.drawn(own, keys[place])

        return [
            (place, of(corpus, place, start))
            for place, corpus, start in zip(places, self._corpora, self._starts, strict=False)
            if len(place)
        ]

    def texts(self, indices: np.ndarray) -> Text:
        """Captions [B] of 0 ≤ index < M as numpy arrays."""
        if self._texts is None:
            said = [self.captions[int(index)] for index in indices]
            return self._laid_out(self._tokenizer.encode_all(said))
        return jax.tree.map(lambda values: values[indices], self._texts)

    @property
    def tokens(self) -> Text | None:
        """All captions [M]; None where they lie on disk."""
        return self._texts

    def remember(self, features: np.ndarray) -> None:
        """`Text.features` [M, …] of all captions, which are in memory."""
        assert self._texts is not None
        self._texts = dataclasses.replace(self._texts, features=features)

    @property
    def masks(self) -> np.ndarray:
        """[N, R] bool of all photos, True = real."""
        return np.arange(self._width) >= self._width - self._real_regions[:, None]

    @property
    def size(self) -> Size:
        """T and R."""
        return self._length, self._width

    def needed(self, images: np.ndarray, captions: np.ndarray) -> np.ndarray:
        """[B, 2] i64: tokens and regions of each pair that are no padding."""
        known = self._texts  # of which features, where there are any, are not asked for
        mask = self.texts(captions).mask if known is None else known.mask[captions]
        return np.stack([mask.sum(axis=1), self._real_regions[images]], axis=1)

    def cut(self, batch: Batch, size: Size) -> Batch:
        """A batch without the padding beyond `size`, which holds its pairs."""
        return buckets_lib.cut(batch, size, self._layout)

    def batch(
        self,
        image_indices: np.ndarray,
        caption_indices: np.ndarray,
        keys: np.ndarray | None = None,
    ) -> Batch:
        """Pairs of photo [B] and caption [B], row by row.

        `keys` [B, k] are whole numbers that `config.data.augment` changes photos by; None = it does
        not.
        """
        images = self.images(image_indices, keys)
        return Batch(self.texts(caption_indices), images, self._photo_ids[image_indices])

    def random_captions(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One caption [B] for each of the photos [B], uniformly among its own."""
        start = self._caption_starts[images]
        count = self._caption_starts[images + 1] - start
        return start + (rng.random(len(images)) * count).astype(np.int64)
