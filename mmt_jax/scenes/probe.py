"""What a model is asked of a picture: a true caption beside one that is wrong in one way.

| kind | the wrong caption, of "a red star left of a blue ring" | says |
|---|---|---|
| colour | a green star left of a blue ring | a colour that nothing on the picture has |
| shape | a red heart left of a blue ring | a shape that nothing on the picture has |
| relation | a red star right of a blue ring | the opposite |
| binding | a blue star left of a red ring | the other object's colour, both ways |
| subjects | a blue ring left of a red star | the other object, both ways |

The first two are told by what is on the picture at all. The last two have the words of the true
caption, so they are told only by who has which colour, and who is where.
"""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from mmt_jax.scenes import corpora, grammar, lexicon, world
from mmt_jax.scenes.levels import TOP
from mmt_jax.scenes.world import Scene, Thing

KINDS = ("colour", "shape", "relation", "binding", "subjects")
PHOTOS = 300  # that are asked about, of which nearly all have a question of each kind

_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_WORDS = lexicon.COLOURS | lexicon.SHAPES | lexicon.RELATIONS

T = TypeVar("T")


class Question(NamedTuple):
    """Which of two captions is true of a picture?"""

    photo: int  # number of the picture in its split
    kind: str  # one of KINDS
    true: str  # the one caption
    foil: str  # the other
    said: str  # the name of what differs, such as "red"; of exchanged objects ""
    instead: str  # what the foil says in its place


class _Claim(NamedTuple):
    """An object of a colour and a shape, and how it lies to another one."""

    colour: str
    shape: str
    relation: str
    other_colour: str
    other_shape: str

    def holds(self, scene: Scene) -> bool:
        """Whether any two objects make it true, however little the one is left of the other."""

        def lies(a: Thing, b: Thing) -> bool:
            places = {"left": a.x < b.x, "right": a.x > b.x, "above": a.y < b.y, "below": a.y > b.y}
            return places[self.relation]

        return any(
            (a.colour, a.shape, b.colour, b.shape) == (*self[:2], *self[3:]) and lies(a, b)
            for a, b in itertools.permutations(scene.things, 2)
        )

    def turned(self) -> dict[str, _Claim]:
        """What is wrong with the same words, and the opposite relation, by kind."""
        return {
            "relation": self._replace(relation=_OPPOSITE[self.relation]),
            "binding": self._replace(colour=self.other_colour, other_colour=self.colour),
            "subjects": _Claim(*self[3:], self.relation, *self[:2]),
        }


def questions(
    corpus: str, split: str, *, level: int = TOP, seed: int = 0, photos: int = PHOTOS
) -> list[Question]:
    """One question of each kind about each of the first `photos` pictures of what `build` makes.

    Captions are of one pattern of the corpus, in its words at the level; objects are called by
    colour and shape. A picture where no two objects allow all kinds is passed over. What is asked
    is a function of (corpus, split, level, seed) and of the picture's number alone.
    """
    style = corpora.recipe(corpus, level).style
    pattern = next(pattern for _, pattern in style.first if _slots(pattern) == {"a", "a>b", "b"})
    part, asked = corpora.Split(corpus, split, level, seed), []
    for photo in range(photos):
        block, index = divmod(photo, corpora.BLOCK)
        if not index:
            scenes = part.draw(block)
        rng = random.Random(f"probe {corpus} {split} {level} {seed} {photo}")
        asked += _about(photo, scenes.scene(index), pattern, grammar.Speaker(style, rng).say, rng)
    return asked


def _slots(pattern: str) -> set[str]:
    return {name for _, name, *_ in string.Formatter().parse(pattern) if name}


def _about(
    photo: int,
    scene: Scene,
    pattern: str,
    say: Callable[[lexicon.Phrases], str],
    rng: random.Random,
) -> list[Question]:
    """The questions of one picture."""

    def pick(options: Sequence[T]) -> T:
        return options[int(rng.random() * len(options))]

    tellable = [
        claim
        for a, b in itertools.permutations(scene.things, 2)
        for relation in world.relations(a, b)
        if relation in _OPPOSITE and a.colour != b.colour and a.shape != b.shape
        for claim in [_Claim(a.colour, a.shape, relation, b.colour, b.shape)]
        if not any(foil.holds(scene) for foil in claim.turned().values())
    ]
    if not tellable:
        return []
    true, other = pick(tellable), pick(["", "other_"])
    colour = pick([c for c in world.COLOURS if all(c != thing.colour for thing in scene.things)])
    shape = pick([s for s in world.SHAPES if all(s != thing.shape for thing in scene.things)])
    opposite = _OPPOSITE[true.relation]
    words = {name: say(_WORDS[name]) for name in (*true, colour, shape, opposite)}

    def caption(claim: _Claim) -> str:
        colour, shape, relation, other_colour, other_shape = (words[name] for name in claim)
        a, b = f"{colour} {shape}", f"{other_colour} {other_shape}"
        slots = {"a": lexicon.with_article(a), "a>b": relation, "b": lexicon.with_article(b)}
        return pattern.format_map(slots)

    foils = {
        "colour": true._replace(**{f"{other}colour": colour}),
        "shape": true._replace(**{f"{other}shape": shape}),
    } | true.turned()
    said = {  # by kind, and what is said in its place
        "colour": (true[3 if other else 0], colour),
        "shape": (true[4 if other else 1], shape),
        "relation": (true.relation, opposite),
        "binding": (true.colour, true.other_colour),
        "subjects": ("", ""),
    }
    return [
        Question(photo, kind, caption(true), caption(foils[kind]), *said[kind]) for kind in KINDS
    ]
