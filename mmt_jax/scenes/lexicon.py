"""The words of the generated captions: four ways to say a thing, from plain to far-fetched.

How far a corpus reaches into a row is its dialect (`grammar.Style.words`), so two corpora differ in
language by how often they choose each column.
"""

from __future__ import annotations

Phrases = tuple[str, str, str, str]

SHAPES: dict[str, Phrases] = {
    "circle": ("circle", "disc", "ball", "roundel"),
    "square": ("square", "box", "block", "tile"),
    "triangle": ("triangle", "wedge", "pyramid", "cone"),
    "diamond": ("diamond", "rhombus", "lozenge", "kite"),
    "star": ("star", "starlet", "sparkle", "twinkler"),
    "cross": ("cross", "plus sign", "plus", "crosslet"),
    "ring": ("ring", "hoop", "loop", "donut"),
    "heart": ("heart", "love heart", "valentine", "sweetheart"),
}
ANY_SHAPE: Phrases = ("shape", "object", "thing", "item")

COLOURS: dict[str, Phrases] = {
    "red": ("red", "crimson", "scarlet", "cherry"),
    "orange": ("orange", "tangerine", "amber", "pumpkin"),
    "yellow": ("yellow", "golden", "lemon", "canary"),
    "green": ("green", "emerald", "olive", "jade"),
    "blue": ("blue", "navy", "azure", "cobalt"),
    "purple": ("purple", "violet", "lilac", "plum"),
    "pink": ("pink", "rosy", "magenta", "fuchsia"),
    "brown": ("brown", "chocolate", "chestnut", "coffee"),
}
SIZES: dict[str, Phrases] = {
    "small": ("small", "little", "tiny", "mini"),
    "medium": ("medium", "medium-sized", "mid-sized", "average"),
    "large": ("large", "big", "huge", "giant"),
}
TEXTURES: dict[str, Phrases] = {  # before the noun
    "plain": ("plain", "solid", "unpatterned", "flat"),
    "striped": ("striped", "stripy", "banded", "lined"),
    "dotted": ("dotted", "spotted", "speckled", "polka-dot"),
}
TRIMMINGS: dict[str, Phrases] = {  # after the noun; a plain object has none
    "striped": ("with stripes", "with dark stripes", "with lines", "with bands"),
    "dotted": ("with dots", "with white dots", "with spots", "with speckles"),
}

RELATIONS: dict[str, Phrases] = {
    "left": ("left of", "to the left of", "on the left side of", "leftward of"),
    "right": ("right of", "to the right of", "on the right side of", "rightward of"),
    "above": ("above", "over", "higher than", "up from"),
    "below": ("below", "under", "beneath", "down from"),
    "near": ("near", "next to", "beside", "close to"),
    "far": ("far from", "away from", "a long way from", "miles from"),
    "inside": ("inside", "in", "within", "enclosed by"),
    "on": ("on", "on top of", "covering", "laid upon"),
}
BETWEEN: Phrases = ("between", "in between", "flanked by", "sandwiched by")
VERBS: Phrases = ("is", "sits", "lies", "rests")

NUMBERS: dict[int, Phrases] = {
    2: ("two", "a pair of", "a couple of", "2"),
    3: ("three", "a trio of", "exactly three", "3"),
    4: ("four", "a set of four", "exactly four", "4"),
    5: ("five", "a set of five", "exactly five", "5"),
}

BACKGROUNDS: dict[str, Phrases] = {
    "page": ("a white page", "a white background", "a blank sheet", "clean paper"),
    "wall": ("a grey wall", "a grey background", "a concrete wall", "a dull surface"),
    "night": ("a night sky", "a dark sky", "a starry sky", "deep black space"),
    "meadow": ("a green meadow", "a grassy field", "a lawn", "an open pasture"),
    "floor": ("a tiled floor", "a checkered floor", "a kitchen floor", "a chequered floor"),
    "beach": ("a sandy beach", "the sand", "a beach", "a sunny shore"),
}
PREPOSITIONS = {name: "against" if name in ("wall", "night") else "on" for name in BACKGROUNDS}

PLACES: dict[tuple[str, str], Phrases] = {
    ("middle", "middle"): ("in the middle", "in the center", "at the center", "mid-picture"),
    ("top", "middle"): ("at the top", "along the top", "up top", "by the upper edge"),
    ("bottom", "middle"): ("at the bottom", "along the bottom", "down below", "by the lower edge"),
    ("middle", "left"): ("on the left", "at the left", "on the left edge", "leftmost"),
    ("middle", "right"): ("on the right", "at the right", "on the right edge", "rightmost"),
    **{
        (tall, wide): (
            f"in the {tall} {wide} corner",
            f"at the {tall} {wide}",
            f"in the {edge} {wide}",
            f"{'up' if tall == 'top' else 'down'} in the {wide} corner",
        )
        for tall, edge in (("top", "upper"), ("bottom", "lower"))
        for wide in ("left", "right")
    },
}


def plural(noun: str) -> str:
    """Plural of a noun phrase of this lexicon."""
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


def with_article(phrase: str) -> str:
    """The phrase after "a" or "an"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
