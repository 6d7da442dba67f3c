"""Captions from sentence patterns: what is said is true of the scene, and never all that is true.

A pattern is a sentence with slots for the objects that it is about, here a, b and c:

    {a}           the object, described: "a small red ring", "another ring", "an olive thing"
    {the a}       the same after another determiner: the, my, this, our, that
    {noun a}      its shape alone; {adj a} one of its other attributes
    {a@}          its place in the picture: "in the top left corner"
    {a>b}         a relation of a to b: "left of"
    {between}     in "{a} {between} {b} and {c}", where a lies between b and c
    {group}       several objects counted: "two red rings", "three blue shapes"
    {t}           in narrations, an object that was told of before
    {verb}        is, sits, …
    {bg}, {on_bg} the background: "a tiled floor", "on a tiled floor"

A pattern that the scene cannot fill is passed over for another.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import functools
import itertools
import random
import re

from mmt_jax.scenes import lexicon, world
from mmt_jax.scenes.world import Scene, Thing

Patterns = tuple[tuple[float, str], ...]  # (weight, pattern)


@dataclasses.dataclass(frozen=True)
class Style:
    """How a corpus speaks. In each of `first`, `more` and `last` a pattern must fit any scene.

    Attributes:
      words: how often each of the four ways to say a thing is chosen.
      size, colour, texture: probabilities that an object's attribute is mentioned; those of the
        unremarkable (medium, plain) are a quarter of it.
      hypernym: probability that an object whose colour is mentioned is called a shape or a thing.
      first: patterns of the caption, or of a narration's first sentence.
      more: patterns of further sentences, said until every object was told of; () for none.
      last: patterns of the closing sentence; () for none.
      simple, simple_more: what `first` and `more` are below the highest level (`scenes.levels`),
        where nothing closes.
    """

    words: tuple[float, float, float, float]
    first: Patterns
    more: Patterns = ()
    last: Patterns = ()
    size: float = 0.4
    colour: float = 0.85
    texture: float = 0.5
    hypernym: float = 0.0
    simple: Patterns = ()
    simple_more: Patterns = ()


class _Unsayable(Exception):
    """The scene cannot fill the pattern."""


class Speaker:
    """Says captions in a style; what it says next depends on `rng` and all that it said before."""

    def __init__(self, style: Style, rng: random.Random):
        self._style = style
        self._random = rng.random  # the one method whose values Python promises to keep
        self._words = _cumulative(style.words)

    def caption(self, scene: Scene) -> str:
        """A caption of the scene."""
        untold = sorted(scene.things, key=lambda _: self._random())
        told: list[Thing] = []
        sentences = [self._sentence(self._style.first, scene, untold, told)]
        while self._style.more and untold:
            sentences.append(self._sentence(self._style.more, scene, untold, told))
        if self._style.last:
            sentences.append(self._sentence(self._style.last, scene, untold, told))
        return " ".join(sentences)

    def _sentence(
        self, patterns: Patterns, scene: Scene, untold: list[Thing], told: list[Thing]
    ) -> str:
        """Fills a pattern with objects of `untold`, which move to `told`."""
        weights = _cumulative(tuple(weight for weight, _ in patterns))
        while True:
            _, pattern = patterns[bisect.bisect(weights, self._random(), hi=len(patterns) - 1)]
            try:
                slots = self._cast(pattern, scene, untold, told)
                sentence = pattern.format_map(slots)
            except _Unsayable:
                continue
            for thing in slots.subjects:
                untold.remove(thing)
                told.append(thing)
            return sentence

    def _cast(self, pattern: str, scene: Scene, untold: list[Thing], told: list[Thing]) -> _Slots:
        """Gives the pattern's roles to objects."""
        group, free = None, untold
        if "{group}" in pattern:
            group = self._pick(_groups(scene.things))
            free = [thing for thing in untold if thing not in group]
        subjects = tuple(free)
        if "{between}" in pattern:
            subjects = self._pick(
                [t for t in itertools.permutations(free, 3) if world.is_between(*t)]
            )
        names = _roles(pattern)
        if len(subjects) < len(names):
            raise _Unsayable
        subjects = subjects[: len(names)]
        roles = dict(zip(names, subjects))
        if told:
            roles["t"] = self._pick(told)
        return _Slots(self, scene, roles, subjects, group)

    def describe(self, thing: Thing) -> str:
        """The object without an article: "small red ring with dots"."""
        style, chance = self._style, self._random
        words = []
        if chance() < style.size * (0.25 if thing.size == "medium" else 1):
            words.append(self.say(lexicon.SIZES[thing.size]))
        textured = chance() < style.texture * (0.25 if thing.texture == "plain" else 1)
        trimming = textured and thing.texture in lexicon.TRIMMINGS and chance() < 0.35
        if textured and not trimming:
            words.append(self.say(lexicon.TEXTURES[thing.texture]))
        coloured = chance() < style.colour
        if coloured:
            words.append(self.say(lexicon.COLOURS[thing.colour]))
        vague = coloured and chance() < style.hypernym
        words.append(self.say(lexicon.ANY_SHAPE if vague else lexicon.SHAPES[thing.shape]))
        if trimming:
            words.append(self.say(lexicon.TRIMMINGS[thing.texture]))
        return " ".join(words)

    def adjective(self, thing: Thing) -> str:
        """One of the object's attributes."""
        rows = [lexicon.COLOURS[thing.colour], lexicon.SIZES[thing.size]]
        if thing.texture != "plain":
            rows.append(lexicon.TEXTURES[thing.texture])
        return self.say(self._pick(rows))

    def relation(self, a: Thing, b: Thing) -> str:
        """How a lies to b."""
        return self.say(lexicon.RELATIONS[self._pick(world.relations(a, b))])

    def count(self, group: tuple[Thing, ...]) -> str:
        """The objects that share what all of `group` share, counted."""
        words = [self.say(lexicon.NUMBERS[len(group)])]
        if len({thing.colour for thing in group}) == 1:
            words.append(self.say(lexicon.COLOURS[group[0].colour]))
        alike = len({thing.shape for thing in group}) == 1
        nouns = lexicon.SHAPES[group[0].shape] if alike else lexicon.ANY_SHAPE
        words.append(lexicon.plural(self.say(nouns)))
        return " ".join(words)

    def say(self, phrases: lexicon.Phrases) -> str:
        """One of four phrases, as often as the style chooses it."""
        return phrases[bisect.bisect(self._words, self._random(), hi=3)]

    def _pick(self, options):
        if not options:
            raise _Unsayable
        return options[int(self._random() * len(options))]


class _Slots(dict):
    """The phrases of one sentence, made as `str.format_map` asks for them."""

    def __init__(self, speaker: Speaker, scene: Scene, roles, subjects, group):
        super().__init__()
        self.speaker, self.scene, self.subjects, self.group = speaker, scene, subjects, group
        self._roles = roles
        self._named: set[str] = set()

    def __missing__(self, slot: str) -> str:
        if slot in _FIXED:
            return _FIXED[slot](self)
        if ">" in slot:
            return self.speaker.relation(self._thing(slot[0]), self._thing(slot[2]))
        if slot[-1] == "@":
            return self.speaker.say(lexicon.PLACES[world.place(self._thing(slot[0]))])
        word, _, role = slot.rpartition(" ")
        thing = self._thing(role)
        if not word:
            return self._first_mention(self.speaker.describe(thing))
        if word == "noun":
            return self.speaker.say(lexicon.SHAPES[thing.shape])
        if word == "adj":
            return self.speaker.adjective(thing)
        return f"{word} {self.speaker.describe(thing)}"

    def _thing(self, role: str) -> Thing:
        if role not in self._roles:
            raise _Unsayable  # {t} where nothing was told of before
        return self._roles[role]

    def _first_mention(self, name: str) -> str:
        if name in self._named:
            return f"another {name}"
        self._named.add(name)
        return lexicon.with_article(name)


_FIXED = {  # slots that name no role
    "bg": lambda slots: slots.speaker.say(lexicon.BACKGROUNDS[slots.scene.background]),
    "on_bg": lambda slots: f"{lexicon.PREPOSITIONS[slots.scene.background]} {slots['bg']}",
    "verb": lambda slots: slots.speaker.say(lexicon.VERBS),
    "between": lambda slots: slots.speaker.say(lexicon.BETWEEN),
    "group": lambda slots: slots.speaker.count(slots.group),
}


@functools.cache
def _cumulative(weights: tuple[float, ...]) -> list[float]:
    total = sum(weights)
    return [part / total for part in itertools.accumulate(weights)]


@functools.cache
def _roles(pattern: str) -> tuple[str, ...]:
    """The objects that a pattern is about: ("a", "b") of "{a} {a>b} {b}"."""
    return tuple(sorted(set(re.findall(r"[{ ]([abc])}", pattern))))


def _groups(things: tuple[Thing, ...]) -> list[tuple[Thing, ...]]:
    """Sets of two or more objects that are all there are of a shape, a colour or both."""
    found = {}
    for attributes in (("shape",), ("colour",), ("shape", "colour")):
        members = collections.defaultdict(list)
        for thing in things:
            members[tuple(getattr(thing, name) for name in attributes)].append(thing)
        for group in members.values():
            if len(group) > 1:
                found.setdefault(tuple(group))
    return list(found)
