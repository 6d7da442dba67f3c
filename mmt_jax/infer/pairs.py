"""Which items and pairs are computed together: each item is encoded once, each pair is fused once.

Items are sorted by length and cut into chunks, and a chunk is cut to its own longest item, so that
little padding is computed and few shapes are compiled. Caption chunks stay encoded on the device;
photos pass by, chunk after chunk, and meet them all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from mmt_jax.progress import Counter
from mmt_jax.typing import Array

_BUCKET = 8  # lengths are rounded up to a multiple: a shape that is new must be compiled


@dataclasses.dataclass(frozen=True)
class Items:
    """n captions or n photos, which are fetched when their turn comes."""

    mask: Bool[np.ndarray, "n S"]  # True = real; all padding is in front, or all is behind
    fetch: Callable[[np.ndarray], Any]  # rows [m] → a tree of numpy arrays [m, S, ...]

    @classmethod
    def of(cls, items: Any, mask: Bool[np.ndarray, "n S"] | None = None) -> Items:
        """A tree of arrays [n, S, ...] in memory, such as a `Text`; or items as they are."""
        if isinstance(items, cls):
            return items

        def fetch(rows: np.ndarray) -> Any:
            return jax.tree.map(lambda leaf: leaf[rows], items)

        return cls(items.mask if mask is None else mask, fetch)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Items of similar length."""

    index: Int[np.ndarray, " n"]  # which items
    size: int  # ≥ n, the same for each chunk
    kept: slice  # of tokens or regions: the others are padding in every item

    def take(self, items: Items) -> Any:
        """[size, kept, ...] of each leaf; the last item fills the places that are left."""
        rows = np.pad(self.index, (0, self.size - len(self.index)), mode="edge")
        return jax.tree.map(lambda leaf: leaf[:, self.kept], items.fetch(rows))


def chunks(mask: Bool[np.ndarray, "n S"], size: int, multiple: int = 1) -> Iterator[Chunk]:
    """Cuts items with `mask` into the fewest chunks of at most `size`, shortest first.

    Chunks are made equal, rounded up to `multiple`, so that few places are left over.
    """
    slots, behind = mask.shape[1], bool(mask[:, 0].all())
    lengths = slots - (mask[:, ::-1] if behind else mask).argmax(axis=1)
    order = np.argsort(lengths, kind="stable")
    size = math.ceil(len(order) / math.ceil(len(order) / size))
    size = multiple * math.ceil(size / multiple)
    for start in range(0, len(order), size):
        index = order[start : start + size]
        length = min(slots, _BUCKET * math.ceil(lengths[index[-1]] / _BUCKET))
        kept = slice(length) if behind else slice(slots - length, None)
        yield Chunk(index, size, kept if length < slots else slice(None))


def pairwise(
    texts: Items,
    images: Items,
    *,
    encode_text: Callable[[Any], Any],
    encode_image: Callable[[Any], Any],
    score: Callable[..., Array],
    pairs: int,
    chosen: Bool[np.ndarray, "M N"] | None = None,
    multiple: int = 1,
    progress: bool = False,
) -> Float32[np.ndarray, "M N"]:
    """The blocks of a score matrix of M captions and N photos, whatever computes them.

    `encode_text` is called once for each chunk of captions, and what it gives is kept;
    `encode_image` once for each chunk of photos. `score` takes both, of A captions and B photos,
    A · B being about `pairs` → [A, B]; where pairs are `chosen` (None = all) it also takes P rows
    of the captions and P of the photos → [P]. `multiple` divides A, or P. What is not chosen
    scores -inf.
    """
    num_texts, num_images = len(texts.mask), len(images.mask)
    scores = np.full((num_texts, num_images), -np.inf, np.float32)
    side = min(num_images, math.isqrt(max(pairs, 1)))
    captions = [
        (chunk, encode_text(chunk.take(texts)))
        for chunk in chunks(texts.mask, max(1, pairs // side), multiple)
    ]
    total = scores.size if chosen is None else int(chosen.sum())
    with Counter("pairs", total, shown=progress) as counter:
        for photos in chunks(images.mask, side):
            encoded = encode_image(photos.take(images))
            blocks = []
            for chunk, text in captions:
                place, rows = np.ix_(chunk.index, photos.index), []
                if chosen is not None:
                    row, column = np.nonzero(chosen[place])
                    if not len(row):
                        continue
                    place = chunk.index[row], photos.index[column]
                    rows = [filled(row, multiple), filled(column, multiple)]
                blocks.append((place, score(text, encoded, *rows)))
            # Asked for all at once, blocks are computed while later ones are still being sent off.
            found = jax.device_get([block for _, block in blocks])
            for (place, _), block in zip(blocks, found, strict=True):
                shape = scores[place].shape
                scores[place] = block[tuple(map(slice, shape))]
                counter.add(math.prod(shape))
    return scores


def best(scores: Float[np.ndarray, "M N"], top: int) -> Bool[np.ndarray, "M N"]:
    """Whether a score is among the `top` of its row or of its column."""
    chosen = np.zeros(scores.shape, bool)
    for axis in (0, 1):
        kept = min(top, scores.shape[axis])
        rows = np.take(np.argpartition(-scores, kept - 1, axis=axis), range(kept), axis=axis)
        np.put_along_axis(chosen, rows, True, axis=axis)
    return chosen


def filled(rows: Int[np.ndarray, " n"], multiple: int = 1) -> Int[np.ndarray, " m"]:
    """Rows, the last repeated up to one of few lengths, which is a multiple of `multiple`."""
    size = multiple * math.ceil((1 << (len(rows) - 1).bit_length()) / multiple)
    return np.pad(rows, (0, size - len(rows)), mode="edge")
