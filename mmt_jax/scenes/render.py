"""Scenes as pixels: antialiased sprites pasted on drawn backgrounds."""

from __future__ import annotations

import functools

import numpy as np

from mmt_jax.scenes import world

RGB = np.array(  # in the order of world.COLOURS
    [
        (0.85, 0.12, 0.12),
        (0.96, 0.55, 0.08),
        (0.98, 0.88, 0.15),
        (0.13, 0.60, 0.20),
        (0.12, 0.30, 0.85),
        (0.50, 0.18, 0.65),
        (0.97, 0.55, 0.72),
        (0.45, 0.27, 0.12),
    ],
    np.float32,
)

SUPERSAMPLING = 4  # samples a pixel a side
HALF = tuple(int(np.ceil(radius)) for radius in world.RADII)  # pixels from a sprite's centre


def render(scenes: world.Scenes) -> np.ndarray:
    """Paints B scenes: [B, 64, 64, 3] uint8."""
    # In place from here on: fresh memory of this size takes as long as the arithmetic.
    canvas = backdrops()[scenes.background, scenes.variant]
    canvas *= scenes.light[:, None, None, None]
    paint = RGB[scenes.colour] + scenes.tint
    stamps = sprites()
    slots = np.argwhere(scenes.present)
    drawn = zip(
        slots.tolist(),
        scenes.shape[scenes.present].tolist(),
        scenes.size[scenes.present].tolist(),
        scenes.texture[scenes.present].tolist(),
        scenes.centre[scenes.present].tolist(),
        paint[scenes.present],
    )
    for (picture, _), shape, size, texture, (y, x), colour in drawn:
        alpha, shade, white = stamps[shape, size, texture]
        h = HALF[size]
        window = canvas[picture, y - h : y + h + 1, x - h : x + h + 1]
        window += alpha * (colour * shade + white - window)
    canvas.clip(0, 1, out=canvas)
    canvas *= 255
    canvas += 0.5
    return canvas.astype(np.uint8)


@functools.cache
def sprites() -> dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(shape, size, texture) → coverage, shade and added white, each [S, S, 1] f32.

    An object of colour c shows c · shade + white where coverage is 1.
    """
    stamps = {}
    for size, (radius, half) in enumerate(zip(world.RADII, HALF)):
        samples = (np.arange((2 * half + 1) * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - half - 0.5
        y, x = np.meshgrid(samples / radius, samples / radius, indexing="ij")
        for shape, name in enumerate(world.SHAPES):
            for texture, fill in enumerate(world.TEXTURES):
                shade, white = _texture(fill, y, x)
                planes = (_inside(name, y, x), shade, white)
                stamps[shape, size, texture] = tuple(_downsample(plane) for plane in planes)
    return stamps


@functools.cache
def extents() -> np.ndarray:
    """Pixels that an object covers, from its centre: [shape, size, 4] int; ymin, xmin, ymax, xmax.

    Upper ends are exclusive.
    """
    found = np.zeros((len(world.SHAPES), len(world.SIZES), 4), int)
    for (shape, size, _), (alpha, _, _) in sprites().items():
        rows, columns = np.nonzero(alpha[..., 0] >= 0.25)
        low, high = (rows.min(), columns.min()), (rows.max() + 1, columns.max() + 1)
        found[shape, size] = np.array([*low, *high]) - HALF[size]
    return found


def _downsample(plane: np.ndarray) -> np.ndarray:
    side = len(plane) // SUPERSAMPLING
    blocks = plane.reshape(side, SUPERSAMPLING, side, SUPERSAMPLING)
    return blocks.mean(axis=(1, 3), dtype=np.float32)[..., None]


def _inside(shape: str, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """True where a point, in units of the object's radius and y downwards, is in the shape."""
    radius = np.hypot(y, x)
    if shape == "circle":
        return radius <= 1
    if shape == "ring":
        return (radius <= 1) & (radius >= 0.6)
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.86
    if shape == "diamond":
        return abs(x) / 0.8 + abs(y) <= 1
    if shape == "triangle":
        return (y <= 0.8) & (abs(x) <= (y + 0.95) * 0.56)
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) <= 0.3) & (np.maximum(abs(x), abs(y)) <= 0.95)
    if shape == "star":
        # Folded on its ten half-points, a star is what lies below the line from tip to notch.
        tenth = np.pi / 5
        turn = abs((np.arctan2(x, -y) + tenth) % (2 * tenth) - tenth)
        notch_x, notch_y = 0.42 * np.cos(tenth), 0.42 * np.sin(tenth)
        return notch_y * (1 - radius * np.cos(turn)) >= (1 - notch_x) * radius * np.sin(turn)
    assert shape == "heart", shape
    u, v = 1.2 * x, 0.15 - 1.15 * y
    return (u**2 + v**2 - 1) ** 3 <= u**2 * v**3


def _texture(fill: str, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shade and added white at each point."""
    if fill == "striped":
        return np.where((x + y) % 0.7 < 0.35, 0.4, 1.0), np.zeros_like(x)
    if fill == "dotted":
        dots = np.hypot((x + 0.3) % 0.6 - 0.3, (y + 0.3) % 0.6 - 0.3) < 0.18
        return np.where(dots, 0.0, 1.0), np.where(dots, 0.97, 0.0)
    return np.ones_like(x), np.zeros_like(x)


@functools.cache
def backdrops() -> np.ndarray:
    """Drawings of every background: [background, variant, 64, 64, 3] f32 in 0..1."""
    rng = np.random.default_rng(0)
    side = world.CANVAS
    y, x = np.mgrid[:side, :side]
    drawings = []
    for name in world.BACKGROUNDS:
        for _ in range(world.BACKDROP_VARIANTS):
            grain = rng.normal(0, 1, (side, side, 1))
            drawings.append(_backdrop(name, y[..., None], x[..., None], grain, rng))
    stacked = np.stack(drawings).astype(np.float32)
    return stacked.reshape(len(world.BACKGROUNDS), -1, side, side, 3)


def _backdrop(
    name: str, y: np.ndarray, x: np.ndarray, grain: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    if name == "page":
        return np.array((0.95, 0.95, 0.93)) + 0.01 * grain
    if name == "wall":
        return np.array((0.60, 0.61, 0.62)) + 0.15 * (y / len(y) - 0.5) + 0.02 * grain
    if name == "night":
        stars = rng.random(grain.shape) < 0.012
        return np.where(stars, 0.85, np.array((0.05, 0.06, 0.15)) + 0.01 * grain)
    if name == "floor":
        offset = rng.integers(16, size=2)
        odd = ((y + offset[0]) // 8 + (x + offset[1]) // 8) % 2
        return np.array((0.80, 0.76, 0.70)) - 0.13 * odd + 0.01 * grain
    horizon = y < rng.integers(14, 24)
    if name == "meadow":
        near, far = np.array((0.52, 0.74, 0.42)) + 0.04 * grain, np.array((0.72, 0.86, 0.96))
        return np.where(horizon, far, near)
    assert name == "beach", name
    near, far = np.array((0.90, 0.82, 0.62)) + 0.03 * grain, np.array((0.40, 0.66, 0.80))
    return np.where(horizon, far, near)
