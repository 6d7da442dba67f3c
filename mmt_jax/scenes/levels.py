"""A ladder of worlds: what a level leaves out of the generated corpora, from the easiest up.

| level | pictures | captions |
|---|---|---|
| 1 | three plain objects | short patterns; an object by colour and shape, one word for each |
| 2 | as many plain objects as the corpus shows | the same |
| 3 | textures too | sizes and textures too |
| 4 | the same | four ways to say each thing, and "shape" or "thing" for a shape |
| 5 | the same | all patterns: places, backgrounds, counts, what lies between |

A corpus keeps at every level what makes it that corpus: its share of wrong captions, its way of
speaking (narration, phrases, chat), and how often its pictures show each shape and colour.
"""

from __future__ import annotations

import dataclasses

from mmt_jax.scenes.grammar import Style
from mmt_jax.scenes.world import TEXTURES, World

TOP = 5  # the corpora as they are
LEVELS = range(1, TOP + 1)


def pictures(world: World, level: int) -> World:
    """A corpus's pictures at a level."""
    if level < 2:
        world = dataclasses.replace(world, fewest=3, counts=(1,))
    if level < 3:
        plain = tuple(float(name == "plain") for name in TEXTURES)
        world = dataclasses.replace(world, textures=plain)
    return world


def speech(style: Style, level: int) -> Style:
    """How a corpus speaks at a level."""
    if level < 3:
        style = dataclasses.replace(style, size=0.0, texture=0.0, colour=1.0)
    if level < 4:
        style = dataclasses.replace(style, words=(1, 0, 0, 0), hypernym=0.0)
    if level < 5:
        style = dataclasses.replace(style, first=style.simple, more=style.simple_more, last=())
    return style
