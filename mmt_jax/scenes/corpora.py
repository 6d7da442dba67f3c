"""The generated corpora, as rows: the zero-shot target, and a stand-in for each training corpus.

| corpus | source | pictures | captions | wrong | style | pictures of |
|---|---|---|---|---|---|---|
| target | scenes | 10,000 | 5 | 0 % | plain sentences | the target's world |
| cc | scenes/cc | 20,000 | 1 | 10 % | alt text | nearly that |
| sbu | scenes/sbu | 10,000 | 1 | 40 % | chat | another |
| vg | scenes/vg | 8,000 | 5 | 0 % | region phrases | the target's |
| mscoco | scenes/mscoco | 10,000 | 5 | 0 % | the target's | the target's |
| mscoco-narratives | scenes/mscoco-narratives | 8,000 | 1 | 0 % | narration | the target's |
| oi-narratives | scenes/oi-narratives | 24,000 | 1 | 0 % | narration | another |

Plain sentences are on one to three objects and their places or relations; alt text reaches further
for its words and at times says "shape" for the shape; chat is in the first person, with far-fetched
words and few attributes; region phrases are on one or two objects; a narration tells of every
object in some 50 words.

At a level below the highest (`scenes.levels`; as a source `scenes@1`, or `scenes@1/sbu`) pictures
and sentences are simpler. Pictures are those of the training split; `val` has 500 and `test` 1,000
of each. A wrong caption is one of another picture of the corpus. These sizes, shares and styles are
ours: they give each corpus the property that the study ascribes to the one it stands for. Two of
these properties are dials (`Dials`): any corpus with another share of wrong captions, or with words
further from the target's.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mmt_jax import progress
from mmt_jax.corpus import Corpus, starts
from mmt_jax.errors import UsageError
from mmt_jax.scenes import detector, grammar, levels, render, styles
from mmt_jax.scenes.drawn import Drawn
from mmt_jax.scenes.levels import LEVELS, TOP
from mmt_jax.scenes.world import Scene, Scenes, World, draw_scenes

SPLITS = ("train", "val", "test")
BLOCK = 256  # pictures drawn from one stream of random numbers
MAX_PICTURES = 10**7  # of a split; keeps every image id unique and within 32 bits
VOCABULARY_CAPTIONS = 600  # of each corpus


HOME = World()  # the target's
NEARBY = World(shapes=(3, 3, 2, 2, 3, 2, 2, 3), colours=(3, 2, 2, 2, 3, 2, 2, 2))
ABROAD = World(
    counts=(2, 1, 1),
    shapes=(4, 4, 2, 1, 1, 1, 1, 2),
    colours=(1, 1, 1, 3, 3, 1, 1, 3),
    textures=(3, 2, 1),
    backgrounds=(1, 3, 1, 3, 1, 3),
)
OUTDOORS = World(
    counts=(1, 1, 2),
    shapes=(1, 2, 2, 2, 4, 3, 3, 1),
    colours=(1, 3, 3, 2, 1, 2, 3, 1),
    textures=(3, 1, 2),
    backgrounds=(1, 1, 3, 4, 1, 4),
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One corpus: its size, and what it is like."""

    number: int  # of its random numbers and of its pictures' ids
    train: int  # pictures of the training split
    captions: int  # captions a picture
    style: grammar.Style
    wrong: float = 0.0  # share of captions that are of another picture
    world: World = HOME
    val: int = 500
    test: int = 1000


@dataclasses.dataclass(frozen=True)
class Dials:
    """What is turned of a corpus; at these defaults it is as its recipe says."""

    wrong: float | None = None  # share of captions that are of another picture; None = the recipe's
    far: float = 0.0  # share of things said in the furthest-fetched of the four ways

    def of(self, row: Recipe) -> Recipe:
        """The corpus with its dials turned."""
        words = tuple((1 - self.far) * share for share in row.style.words)
        style = dataclasses.replace(row.style, words=(*words[:-1], words[-1] + self.far))
        wrong = row.wrong if self.wrong is None else self.wrong
        return dataclasses.replace(row, style=style, wrong=wrong)


AS_IT_IS = Dials()

RECIPES = {
    "target": Recipe(0, 10_000, 5, styles.PLAIN),
    "cc": Recipe(1, 20_000, 1, styles.ALT_TEXT, wrong=0.1, world=NEARBY),
    "sbu": Recipe(2, 10_000, 1, styles.CHAT, wrong=0.4, world=ABROAD),
    "vg": Recipe(3, 8_000, 5, styles.PHRASES),
    "mscoco": Recipe(4, 10_000, 5, styles.PLAIN),
    "mscoco-narratives": Recipe(5, 8_000, 1, styles.NARRATION),
    "oi-narratives": Recipe(6, 24_000, 1, styles.NARRATION, world=OUTDOORS),
}
CORPORA = tuple(RECIPES)


def recipe(corpus: str, level: int = TOP, dials: Dials = AS_IT_IS) -> Recipe:
    """A corpus at one of LEVELS."""
    row = RECIPES[corpus]
    style, world = levels.speech(row.style, level), levels.pictures(row.world, level)
    return dials.of(dataclasses.replace(row, style=style, world=world))


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of a corpus, which is drawn `BLOCK` pictures at a time.

    Raises:
      UsageError: there is no such corpus, split or level, or the seed is negative.
    """

    corpus: str
    split: str
    level: int = TOP
    seed: int = 0

    def __post_init__(self):
        if self.corpus not in RECIPES:
            raise UsageError(f"no generated corpus {self.corpus!r}; there are {', '.join(CORPORA)}")
        if self.split not in SPLITS:
            raise UsageError(
                f"no split {self.split!r} of the generated corpora; there are {', '.join(SPLITS)}"
            )
        if self.seed < 0:
            raise UsageError(
                f"seed {self.seed} of the generated scenes is negative; give 0 or more"
            )
        if self.level not in LEVELS:
            raise UsageError(
                f"no level {self.level!r} of the generated corpora; there are 1 to {TOP}"
            )

    def stream(self, block: int, use: str) -> np.random.Generator:
        """A block's random numbers for one use: "world", "detector" or "pairing"."""
        use_number = ("world", "detector", "pairing").index(use)
        keys = [RECIPES[self.corpus].number, SPLITS.index(self.split), block, use_number]
        keys += [self.level] if self.level < TOP else []
        return np.random.default_rng((self.seed, *keys))

    def draw(self, block: int) -> Scenes:
        """The scenes of pictures `block * BLOCK` to `(block + 1) * BLOCK`."""
        world = recipe(self.corpus, self.level).world
        return draw_scenes(world, BLOCK, self.stream(block, "world"))

    def scene(self, index: int) -> Scene:
        """What picture `index` shows."""
        block, row = divmod(index, BLOCK)
        return self.draw(block).scene(row)

    def tell(
        self, block: int, scenes: Scenes, dials: Dials = AS_IT_IS
    ) -> tuple[list[tuple[str, ...]], np.ndarray]:
        """Captions of a block's pictures, and whose they are.

        Returns:
          BLOCK tuples of captions, and [BLOCK, captions] int: the picture that each is really of.
        """
        row = recipe(self.corpus, self.level, dials)
        rng = self.stream(block, "pairing")
        drawn = (BLOCK, row.captions)
        shift = rng.integers(1, BLOCK, drawn) * (rng.random(drawn) < row.wrong)
        about = (np.arange(BLOCK)[:, None] + shift) % BLOCK
        at = "" if self.level == TOP else f" level {self.level}"
        said = random.Random(f"{self.corpus} {self.split} {self.seed} {block}{at}")
        speaker = grammar.Speaker(row.style, said)
        told = [scenes.scene(index) for index in range(BLOCK)]
        return [tuple(speaker.caption(told[i]) for i in rows) for rows in about.tolist()], about


def build(corpus: str, split: str, **options: Any) -> Corpus:
    """Generates a split of a corpus, all of it in memory; arguments and errors as of `photos`."""
    found = photos(corpus, split, **options)
    return found.take(np.arange(len(found)))


def photos(
    corpus: str,
    split: str,
    *,
    level: int = TOP,
    dials: Dials = AS_IT_IS,
    seed: int = 0,
    size: int | None = None,
    pixels: bool = False,
) -> Drawn:
    """Generates a split of a corpus but for pictures and features, which take most of the time.

    Picture i, its regions and its captions are a function of (corpus, split, level, seed, i) alone;
    `dials` change captions, and leave the pictures.

    Args:
      corpus: one of `CORPORA`.
      split: "train", "val" or "test"; no picture is in two of them.
      level: one of `LEVELS`; the highest is the corpus as it is.
      seed: 0 or more.
      size: pictures; None for the corpus' own number.
      pixels: whether pictures come along, at 12 kB each.

    Returns:
      Features are f16 [rows, `FEATURE_DIM`] in 0..1, as `detector.box_features` makes them; there
      are scores and classes.

    Raises:
      UsageError: there is no such corpus or split, or seed or size is out of range.
    """
    part = Split(corpus, split, level, seed)
    row = RECIPES[corpus]
    total: int = getattr(row, split) if size is None else size
    if not 1 <= total <= MAX_PICTURES:
        raise UsageError(
            f"a corpus of {total} pictures cannot be built; ask for 1 to {MAX_PICTURES:,}"
        )

    def made(block: int) -> tuple[np.ndarray, dict[str, np.ndarray], list, dict[str, np.ndarray]]:
        count = min(BLOCK, total - block * BLOCK)
        scenes = part.draw(block)
        found, seen = detector.detect(scenes, part.stream(block, "detector"))
        kept = {key: values[: found[:count].sum()] for key, values in seen.items()}
        told, _ = part.tell(block, scenes, dials)
        return found[:count], kept, told[:count], vars(scenes.take(np.arange(count)))

    if total > 10 * BLOCK:  # it takes most of a second or more
        progress.stage(f"building {total:,} scenes of {source(corpus, level, dials)} {split}")
    with ThreadPoolExecutor(2) as pool:  # numpy leaves Python to the other thread
        blocks = list(pool.map(made, range(-(-total // BLOCK))))
    counts, rows, told, drawn = zip(*blocks, strict=True)

    place = ((TOP - level) * len(RECIPES) + row.number) * len(SPLITS) + SPLITS.index(split)
    first_id = place * MAX_PICTURES
    offsets = starts(np.concatenate(counts))
    return Drawn(
        name=f"{source(corpus, level, dials)} {split}",
        image_ids=first_id + np.arange(total, dtype=np.int64),
        offsets=offsets,
        captions=tuple(itertools.chain.from_iterable(told)),
        num_classes=detector.NUM_CLASSES,
        labels=dict(enumerate(detector.LABELS)),
        scenes=Scenes(**_joined(drawn)),
        seen=_joined(rows),
        features=np.zeros((offsets[-1], detector.FEATURE_DIM), np.float16),
        known=np.zeros(total, bool),
        pixels=pixels,
    )


def source(corpus: str, level: int = TOP, dials: Dials = AS_IT_IS) -> str:
    """The name of a corpus as a data source, such as "scenes@1/sbu?wrong=0.2"."""
    at = "" if level == TOP else f"@{level}"
    name = "" if corpus == "target" else f"/{corpus}"
    standing = vars(AS_IT_IS)
    turned = [f"{dial}={v:g}" for dial, v in vars(dials).items() if v != standing[dial]]
    return f"scenes{at}{name}{'?' * bool(turned)}{'&'.join(turned)}"


def picture(corpus: str, split: str, index: int, *, level: int = TOP, seed: int = 0) -> np.ndarray:
    """Picture `index` of what `build` returns: [64, 64, 3] uint8."""
    block, row = divmod(index, BLOCK)
    return render.render(Split(corpus, split, level, seed).draw(block))[row]


def vocabulary_captions(*, seed: int = 0) -> list[str]:
    """Captions of all corpora's training splits, to train one vocabulary for all of them."""
    sample = []
    for corpus, row in RECIPES.items():
        part, captions = Split(corpus, "train", seed=seed), []
        for block in range(-(-VOCABULARY_CAPTIONS // (BLOCK * row.captions))):
            for told in part.tell(block, part.draw(block))[0]:
                captions += told
        sample += captions[:VOCABULARY_CAPTIONS]
    return sample


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
