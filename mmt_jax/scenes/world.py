"""What a generated picture holds: drawing scenes, and the geometry that captions may speak of.

A canvas is `CANVAS` pixels a side; a position is (y, x) in pixels, y downwards. An object is a
shape with a colour, a size and a texture. Objects keep clear of each other, except that a small one
may lie on a large one, or inside it if that is a ring.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

CANVAS = 64  # pixels a side

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "heart")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
SIZES = ("small", "medium", "large")
RADII = (4.5, 7.0, 10.5)  # pixels
TEXTURES = ("plain", "striped", "dotted")
BACKGROUNDS = ("page", "wall", "night", "meadow", "floor", "beach")
BACKDROP_VARIANTS = 8  # drawings of each background

# Some shapes have favourite colours, as bananas and skies have: weights that multiply the corpus'.
FAVOURITES = (
    ("heart", "red", 3.0),
    ("heart", "pink", 3.0),
    ("star", "yellow", 4.0),
    ("diamond", "blue", 3.0),
    ("cross", "green", 2.0),
    ("ring", "purple", 2.0),
)

GAP = 1.5  # pixels between objects, where there is room
TRIES = 16  # positions tried for each object


class Thing(NamedTuple):
    """One object: names of its attributes, its centre and its radius in pixels."""

    shape: str
    colour: str
    size: str
    texture: str
    y: int
    x: int
    radius: float


class Scene(NamedTuple):
    """One picture as captions see it."""

    things: tuple[Thing, ...]
    background: str


@dataclasses.dataclass(frozen=True)
class World:
    """How often pictures show each thing: unnormalised weights in the order of the names."""

    fewest: int = 3  # objects
    counts: tuple[float, ...] = (1, 1, 1)  # of so many objects, of one more, …
    shapes: tuple[float, ...] = (1,) * 8
    colours: tuple[float, ...] = (1,) * 8
    favourites: tuple[tuple[str, str, float], ...] = FAVOURITES
    sizes: tuple[float, float, float] = (1, 1, 0.8)
    textures: tuple[float, float, float] = (2, 1, 1)
    backgrounds: tuple[float, ...] = (1,) * 6
    hosted: float = 0.3  # share of those with a large and a small object where these coincide

    @property
    def most(self) -> int:
        """The most objects that a picture has."""
        return self.fewest + len(self.counts) - 1


@dataclasses.dataclass(frozen=True)
class Scenes:
    """B scenes, column by column; slots of an absent object hold arbitrary values."""

    present: np.ndarray  # [B, S] bool, of S objects at most
    shape: np.ndarray  # [B, S] int, indices into the names; so the next three
    colour: np.ndarray
    size: np.ndarray
    texture: np.ndarray
    centre: np.ndarray  # [B, S, 2] int, (y, x) pixels
    tint: np.ndarray  # [B, S, 3] f32, added to the object's RGB
    background: np.ndarray  # [B] int
    variant: np.ndarray  # [B] int; the drawing of the background
    light: np.ndarray  # [B] f32, multiplies the background

    def __len__(self) -> int:
        return len(self.background)

    def take(self, indices: np.ndarray) -> Scenes:
        """Some of them [n], in this order."""
        return Scenes(**{name: column[indices] for name, column in vars(self).items()})

    def scene(self, index: int) -> Scene:
        """Scene `index` by its names."""
        columns = (self.present, self.shape, self.colour, self.size, self.texture, self.centre)
        things = tuple(
            Thing(SHAPES[s], COLOURS[c], SIZES[z], TEXTURES[t], y, x, RADII[z])
            for here, s, c, z, t, (y, x) in zip(*(column[index].tolist() for column in columns))
            if here
        )
        return Scene(things, BACKGROUNDS[self.background[index]])


def draw_scenes(world: World, size: int, rng: np.random.Generator) -> Scenes:
    """Draws `size` scenes of `world`."""
    slots = (size, world.most)
    count = world.fewest + _draw(world.counts, rng.random(size))
    shape = _draw(world.shapes, rng.random(slots))
    colour = _draw_colours(world, shape, rng.random(slots))
    # Large objects are placed first, so that small ones fill the gaps and are painted on top.
    present = np.arange(world.most) < count[:, None]
    radius_rank = np.where(present, _draw(world.sizes, rng.random(slots)), -1)
    radius_rank = -np.sort(-radius_rank, axis=1)
    scale = np.maximum(radius_rank, 0)

    last = count - 1
    hosted = (rng.random(size) < world.hosted) & (scale[:, 0] == 2)
    hosted &= scale[np.arange(size), last] == 0
    guest = hosted[:, None] & (np.arange(world.most) == last[:, None])
    same = guest & (colour == colour[:, :1])
    colour = np.where(same, (colour + 4) % len(COLOURS), colour)

    return Scenes(
        present=present,
        shape=shape,
        colour=colour,
        size=scale,
        texture=_draw(world.textures, rng.random(slots)),
        centre=_place(scale, present, guest, rng),
        tint=rng.normal(0, 0.04, (*slots, 3)).astype(np.float32),
        background=_draw(world.backgrounds, rng.random(size)),
        variant=rng.integers(BACKDROP_VARIANTS, size=size),
        light=rng.uniform(0.9, 1.05, size).astype(np.float32),
    )


def _draw(weights: tuple[float, ...], uniform: np.ndarray) -> np.ndarray:
    edges = np.cumsum(weights) / np.sum(weights)
    return np.searchsorted(edges[:-1], uniform, side="right")


def _draw_colours(world: World, shape: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    weights = np.tile(np.asarray(world.colours, float), (len(SHAPES), 1))
    for shape_name, colour_name, factor in world.favourites:
        weights[SHAPES.index(shape_name), COLOURS.index(colour_name)] *= factor
    edges = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
    return (uniform[..., None] >= edges[shape][..., :-1]).sum(axis=-1)


def _place(
    scale: np.ndarray, present: np.ndarray, guest: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Centres [B, S, 2]: of `TRIES` positions the first clear of all before, or the clearest."""
    size, slots = scale.shape
    radius = np.asarray(RADII)[scale]
    half = np.ceil(radius) + 1
    tries = rng.random((size, slots, TRIES, 2))
    low = half[:, :, None, None]
    tries = np.floor(low + tries * (CANVAS - 2 * low)).astype(int)
    nudge = rng.integers(-1, 2, (size, 2))

    centre = np.zeros((size, slots, 2), int)
    for slot in range(slots):
        before = centre[:, None, :slot]
        distance = np.linalg.norm(tries[:, slot, :, None] - before, axis=-1)
        room = distance - radius[:, None, :slot] - radius[:, None, slot : slot + 1] - GAP
        room = np.where(present[:, None, :slot], room, np.inf).min(axis=-1, initial=0.0)
        best = room.argmax(axis=1)  # room is capped at 0, so this is the first clear one
        centre[:, slot] = tries[np.arange(size), slot, best]
        on_host = guest[:, slot, None]
        centre[:, slot] = np.where(on_host, centre[:, 0] + nudge, centre[:, slot])
    return centre


def relations(a: Thing, b: Thing) -> tuple[str, ...]:
    """The relations of a to b that a caption may assert; empty where none is plain to see."""
    dy, dx = a.y - b.y, a.x - b.x
    distance = math.hypot(dy, dx)
    if distance + abs(a.radius - b.radius) < max(a.radius, b.radius):
        if a.radius > b.radius:
            return ()
        return ("inside",) if b.shape == "ring" else ("on",)
    found = []
    if abs(dx) >= 8 and abs(dx) >= 0.8 * abs(dy):
        found.append("left" if dx < 0 else "right")
    if abs(dy) >= 8 and abs(dy) >= 0.8 * abs(dx):
        found.append("above" if dy < 0 else "below")
    if distance - a.radius - b.radius < 5:
        found.append("near")
    if distance > 38:
        found.append("far")
    return tuple(found)


def is_between(middle: Thing, a: Thing, b: Thing) -> bool:
    """True where `middle` lies within 6 pixels of the middle half of the segment from a to b."""
    dy, dx = b.y - a.y, b.x - a.x
    length = math.hypot(dy, dx)
    if length < 20:
        return False
    along = ((middle.y - a.y) * dy + (middle.x - a.x) * dx) / length**2
    across = abs((middle.y - a.y) * dx - (middle.x - a.x) * dy) / length
    return 0.25 <= along <= 0.75 and across <= 6


def place(thing: Thing) -> tuple[str, str]:
    """The third of the canvas that the centre lies in: (top, middle or bottom; left, …, right)."""
    third = CANVAS / 3
    return (
        ("top", "middle", "bottom")[int(thing.y // third)],
        ("left", "middle", "right")[int(thing.x // third)],
    )
