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


@dataclasses.dataclass(frozen=True)
class Level:
    """What a level has, beside what the one before it has."""

    counts: bool  # more objects than the fewest
    attributes: bool  # sizes and textures
    synonyms: bool
    patterns: bool  # all of a style's, in place of its `simple` ones

    def world(self, world: World) -> World:
        """Pictures of a corpus at this level."""
        changes = {}
        if not self.counts:
            changes |= {"fewest": 3, "counts": (1,)}
        if not self.attributes:
            plain = tuple(float(name == "plain") for name in TEXTURES)
            changes["textures"] = plain
        return dataclasses.replace(world, **changes)

    def style(self, style: Style) -> Style:
        """How a corpus speaks at this level."""
        changes = {}
        if not self.attributes:
            changes |= {"size": 0.0, "texture": 0.0, "colour": 1.0}
        if not self.synonyms:
            changes |= {"words": (1, 0, 0, 0), "hypernym": 0.0}
        if not self.patterns:
            first, more = style.simple
            changes |= {"first": first, "more": more, "last": ()}
        return dataclasses.replace(style, **changes)


LEVELS = {
    1: Level(counts=False, attributes=False, synonyms=False, patterns=False),
    2: Level(counts=True, attributes=False, synonyms=False, patterns=False),
    3: Level(counts=True, attributes=True, synonyms=False, patterns=False),
    4: Level(counts=True, attributes=True, synonyms=True, patterns=False),
    5: Level(counts=True, attributes=True, synonyms=True, patterns=True),
}
TOP = max(LEVELS)  # the corpora as they are
