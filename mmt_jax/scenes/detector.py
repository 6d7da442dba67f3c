"""A stand-in for an object detector: jittered boxes, features of the pixels, class distributions.

Like a real one it misses objects, sees some that are not there, and takes like for like: its class
distribution spreads over look-alike shapes and neighbouring colours. Classes are background (0) and
shape × colour.
"""

from __future__ import annotations

import functools

import numpy as np

from mmt_jax import photo
from mmt_jax.scenes import render, world

GRID = 8  # cells a side that a box is averaged over
POOLED = 4  # cells a side after pooling
BINS = 4  # of a colour histogram, for each of R, G and B
FEATURE_DIM = POOLED * POOLED * (3 + 4) + BINS**3  # colours, edges in four directions, histogram
NUM_CLASSES = 1 + len(world.SHAPES) * len(world.COLOURS)
LABELS = ("background", *(f"{c} {s}" for s in world.SHAPES for c in world.COLOURS))  # by class
TOP_K = 8  # likeliest classes kept

CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # (y, x) of the cells that an edge is between

MISSED = 0.04  # share of objects without a region
SPURIOUS = 0.15  # share of pictures with a region that holds nothing in particular

LOOK_ALIKES = (
    ("circle", "ring"),
    ("circle", "heart"),
    ("square", "diamond"),
    ("triangle", "diamond"),
    ("triangle", "heart"),
    ("star", "cross"),
    ("red", "orange"),
    ("red", "pink"),
    ("red", "brown"),
    ("orange", "yellow"),
    ("orange", "brown"),
    ("yellow", "green"),
    ("green", "blue"),
    ("blue", "purple"),
    ("purple", "pink"),
)
# Logits of a class, relative to the right one.
LOOK_ALIKE, OTHER, BACKGROUND = -2.5, -4.5, -3.0
LOGIT_NOISE = 0.7
SHARPNESS = (0.8, 1.0, 1.2)  # by size: small objects are harder to tell


def detect(
    scenes: world.Scenes, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Finds the regions of B pictures; what is seen in them `box_features` says.

    Args:
      scenes: what is on them.
      rng: decides what is missed, and what is taken for what.

    Returns:
      [B] int, rows of each picture, and its rows by key, the whole photo last: boxes, and the
      likeliest classes; the whole photo has the score 1 and no class.
    """
    size, slots = scenes.present.shape
    # Slots of a picture: the whole photo, each object, one spurious region.
    boxes = np.empty((size, slots + 2, 4), np.float32)
    boxes[:, 0] = 0, 0, 1, 1
    boxes[:, 1:-1] = _object_boxes(scenes, rng)
    sides = rng.uniform(0.15, 0.4, (size, 2))  # of the spurious one
    corner = rng.random((size, 2)) * (1 - sides)
    boxes[:, -1] = np.concatenate([corner, corner + sides], axis=1)
    keep = np.ones(boxes.shape[:2], bool)
    keep[:, 1:-1] = scenes.present & (rng.random(scenes.present.shape) >= MISSED)
    keep[:, -1] = rng.random(size) < SPURIOUS

    logits = np.empty((*keep.shape, NUM_CLASSES), np.float32)
    logits[:, 0] = 0
    logits[:, 1:-1] = class_logits()[scenes.shape, scenes.colour]
    logits[:, 1:-1] *= np.asarray(SHARPNESS, np.float32)[scenes.size][..., None]
    logits[:, -1] = OTHER
    logits[:, -1, 0] = 0
    logits += LOGIT_NOISE * rng.standard_normal(logits.shape, np.float32)

    keep = np.roll(keep, -1, axis=1)  # the whole photo last
    boxes, logits = np.roll(boxes, -1, axis=1), np.roll(logits, -1, axis=1)
    _, slot = np.nonzero(keep)
    boxes, whole = boxes[keep], slot == slots + 1
    ids, probs, scores = _top(logits[keep])
    return keep.sum(axis=1), photo.rows(
        None,
        boxes,
        scores=np.where(whole, 1, scores).astype(np.float32),
        class_ids=ids,
        class_probs=np.where(whole[:, None], 0, probs).astype(np.float32),
    )


def box_features(pixels: np.ndarray, picture: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """What is seen in each box: [rows, 176] f32 in 0..1, all from its `cell_colours`.

    First the colours, pooled: (y, x, RGB) of 4 × 4 cells. Then edges, pooled likewise: (y, x,
    direction), the mean difference over R, G and B between a cell and the one right of it, below
    it, below right of it, and between the two on the other diagonal; at the box's end a cell is its
    own neighbour. Then the square root of each colour's share of the cells: R, G, B in 4 bins each.
    Like a trained detector's features, and unlike pixels, they all but tell shape, colour and
    texture to a linear reader.

    Args: as those of `cell_colours`.
    """
    colours = cell_colours(pixels, picture, boxes)
    here = np.pad(colours, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    corner, right, below, across = (here[:, y : y + GRID, x : x + GRID] for y, x in CORNERS)
    pairs = (right - corner, below - corner, across - corner, below - right)
    edges = np.stack([abs(pair).mean(axis=-1) for pair in pairs], axis=-1)

    rows, cells = len(boxes), GRID * GRID
    binned = np.minimum((colours.reshape(rows, cells, 3) * BINS).astype(int), BINS - 1)
    binned = binned @ np.array([BINS**2, BINS, 1]) + BINS**3 * np.arange(rows)[:, None]
    counts = np.bincount(binned.ravel(), minlength=rows * BINS**3).reshape(rows, BINS**3)

    parts = (_pool(colours), _pool(edges), np.sqrt(counts / cells))
    return np.concatenate(parts, axis=1, dtype=np.float32)


def cell_colours(pixels: np.ndarray, picture: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Colours of each box on a grid of cells: [rows, 8, 8, 3] f32 in 0..1.

    A cell's colour is the mean over the pixels that it touches.

    Args:
      pixels: [B, H, W, 3] uint8.
      picture: [rows] int, the picture of each box.
      boxes: [rows, 4] f32: ymin, xmin, ymax, xmax in 0..1.
    """
    height, width = pixels.shape[1:3]
    # Sums over all that is above and left of a corner; integers, so that differences are exact.
    sums = np.zeros((len(pixels), height + 1, width + 1, 3), np.int32)
    for y in range(height):  # a row of all pictures at once: a third of what cumsum takes
        np.add(sums[:, y, 1:], pixels[:, y], out=sums[:, y + 1, 1:])
    np.cumsum(sums[:, 1:, 1:], axis=2, out=sums[:, 1:, 1:])
    top, bottom = _cells(boxes[:, 0], boxes[:, 2], height)
    left, right = _cells(boxes[:, 1], boxes[:, 3], width)
    row = (picture * (height + 1))[:, None]
    flat = sums.reshape(-1, 3)

    def corner(y, x):
        return flat.take(((row + y) * (width + 1))[:, :, None] + x[:, None, :], axis=0)

    total = corner(bottom, right) - corner(bottom, left) - corner(top, right) + corner(top, left)
    area = (bottom - top)[:, :, None] * (right - left)[:, None, :]
    return (total / (255.0 * area[..., None])).astype(np.float32)


def _pool(cells: np.ndarray) -> np.ndarray:
    """[rows, GRID, GRID, C] → [rows, POOLED · POOLED · C], means of blocks."""
    rows, step = len(cells), GRID // POOLED
    blocks = cells.reshape(rows, POOLED, step, POOLED, step, -1)
    return blocks.mean(axis=(2, 4)).reshape(rows, -1)


def _cells(low: np.ndarray, high: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """First pixel and end of each of a box' cells along one axis: [rows, GRID] int each."""
    steps = np.arange(GRID + 1) / GRID
    edges = (low[:, None] + (high - low)[:, None] * steps) * side
    start = np.floor(edges[:, :-1]).astype(int).clip(0, side - 1)
    stop = np.ceil(edges[:, 1:]).astype(int).clip(1, side)
    return start, np.maximum(stop, start + 1)


def _object_boxes(scenes: world.Scenes, rng: np.random.Generator) -> np.ndarray:
    """[B, S, 4]: extents of the objects, each edge off by up to 2 pixels, mostly outwards."""
    extents = render.extents()[scenes.shape, scenes.size] + np.tile(scenes.centre, 2)
    outwards = np.array([-1, -1, 1, 1]) * rng.uniform(-0.5, 2, extents.shape)
    return ((extents + outwards) / world.CANVAS).clip(0, 1)


@functools.cache
def class_logits() -> np.ndarray:
    """Noiseless logits of an object of each shape and colour: [shape, colour, NUM_CLASSES] f32."""
    shape, colour = _likeness(world.SHAPES), _likeness(world.COLOURS)
    pairs = shape[:, None, :, None] + colour[None, :, None, :]
    pairs = pairs.reshape(len(shape), len(colour), -1)
    background = np.full((*pairs.shape[:2], 1), BACKGROUND)
    return np.concatenate([background, pairs], axis=-1).astype(np.float32)


def _likeness(names: tuple[str, ...]) -> np.ndarray:
    matrix = np.full((len(names), len(names)), OTHER)
    np.fill_diagonal(matrix, 0)
    for one, other in LOOK_ALIKES:
        if one in names:
            i, j = names.index(one), names.index(other)
            matrix[i, j] = matrix[j, i] = LOOK_ALIKE
    return matrix


def _top(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Softmax of [rows, C]: the likeliest ids and probabilities [rows, k], best non-background."""
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    ids = np.argpartition(-probs, TOP_K, axis=1)[:, :TOP_K]
    order = np.argsort(-np.take_along_axis(probs, ids, axis=1), axis=1, kind="stable")
    ids = np.take_along_axis(ids, order, axis=1)
    return ids.astype(np.int32), np.take_along_axis(probs, ids, axis=1), probs[:, 1:].max(axis=1)
