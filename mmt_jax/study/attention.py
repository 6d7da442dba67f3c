"""What words of several runs read, side by side: a figure of a study on generated scenes.

A word's attention to the regions of a photo is the mean over layers and heads, as a share of what
it pays to regions at all; so a softmax over regions compares with one over words and regions.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmt_jax import scenes
from mmt_jax.data import sources
from mmt_jax.errors import UsageError
from mmt_jax.scenes import corpora, lexicon, world
from mmt_jax.scenes.probe import questions
from mmt_jax.study import probe
from mmt_jax.train.workdir import has_checkpoint

PHOTOS = 100  # whose captions are read, of which the first few are drawn

_MEANING = {
    phrase: name
    for rows in (lexicon.COLOURS, lexicon.SHAPES)
    for name, phrases in rows.items()
    for phrase in phrases
}


@dataclasses.dataclass(frozen=True)
class Map:
    """A caption and a photo, as one run reads them."""

    words: tuple[str, ...]  # [W]
    shares: np.ndarray  # [W, R] f32 of the photo's regions; the sum of a row is 1
    named: np.ndarray  # [W, R] bool: the word is the colour or the shape of what lies there

    def paid(self, *, alike: bool = False) -> np.ndarray:
        """Of each word that names what is there: the share that it pays to it.

        `alike`: what it would be if each region got the same.
        """
        names = self.named.any(axis=1)
        return (self.named.mean(axis=1) if alike else (self.shares * self.named).sum(axis=1))[names]


@dataclasses.dataclass(frozen=True)
class Seen:
    """Photos of a test split, with a true caption each, and what runs read of them."""

    pictures: Sequence[np.ndarray]  # [H, W, 3] uint8 each
    boxes: Sequence[np.ndarray]  # [R, 4] f32 each, ymin, xmin, ymax, xmax; the whole photo last
    captions: Sequence[str]
    maps: dict[str, list[Map]]  # by tag


def see(workdir: pathlib.Path, tags: Sequence[str] = (), *, photos: int = PHOTOS) -> Seen:
    """Reads what the runs of seed 0 of a study attend to; no tags = all whose words read regions.

    Captions are the true ones of `scenes.probe`. UsageError: there is no such study or run, it was
    tested on something else than generated scenes, or the words of a run that is named read no
    regions.
    """
    from mmt_jax.infer import api
    from mmt_jax.infer.show.explain import attended

    runs = _runs(workdir, tags)
    test = _test(next(iter(runs.values())))
    assert test is not None
    source, split = test["source"], test["split"]
    corpus = probe.generated(source)
    if corpus is None:
        raise UsageError(f"{workdir} was tested on {source}, and not on one of generated scenes")
    asked = questions(corpus.name, split, level=corpus.level, photos=photos)
    captions = {question.photo: question.true for question in asked}
    rows = np.array(list(captions))
    part = corpora.Split(corpus.name, split, corpus.level)
    told = [part.scene(photo) for photo in captions]
    maps, boxes = {}, []
    for tag, folder in runs.items():
        scorer = api.load(folder)
        model = scorer.config.model
        found = None
        if not model.pixels and model.global_region and scorer.predictor:
            data = scorer.examples(sources.load(source, split))
            images = data.images(rows)
            said = list(captions.values())
            found = attended(scorer.predictor, scorer.tokenizer, said, images)
        if found:
            boxes = [b[real, :4] for b, real in zip(images.boxes, images.mask)]
            maps[tag] = [_map(*each) for each in zip(found, told, boxes)]
        elif tags:
            raise UsageError(f"the words of {tag} read no regions of the photo; leave it out")
    if not maps:
        raise UsageError(f"{workdir} has no run whose words read regions of the photo")
    pictures = [scenes.picture(corpus.name, split, photo, level=corpus.level) for photo in captions]
    return Seen(pictures, boxes, list(captions.values()), maps)


def _runs(workdir: pathlib.Path, tags: Sequence[str]) -> dict[str, pathlib.Path]:
    """Folders of runs that have checkpoints and match photos and captions, by tag."""
    folders = filter(has_checkpoint, sorted((workdir / "runs").glob("*/seed0")))
    found = {folder.parent.name: folder for folder in folders if _test(folder)}
    if not found:
        raise UsageError(f"{workdir} has no trained runs; give the --workdir of `mmt ablate`")
    for tag in tags:
        if tag not in found:
            raise UsageError(f"{workdir} has no trained run {tag!r}; it has {', '.join(found)}")
    return {tag: found[tag] for tag in tags or found}


def _test(folder: pathlib.Path) -> dict[str, Any] | None:
    """What a run is tested on; None for the language stack alone."""
    return json.loads(folder.with_name(f"{folder.name}.settings.json").read_text())["test"]


def _map(found: tuple[tuple[str, ...], np.ndarray], scene: world.Scene, boxes: np.ndarray) -> Map:
    words, weights = found
    things = [_thing(box, scene) for box in boxes[:-1]] + [None]  # the last is the whole photo
    named = [
        [
            thing is not None and _MEANING.get(word) in (thing.colour, thing.shape)
            for thing in things
        ]
        for word in words
    ]
    shares = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    return Map(words, shares, np.array(named))


def _thing(box: np.ndarray, scene: world.Scene) -> world.Thing | None:
    """The object that a region holds, or None: centre and size are off by a few pixels at most."""
    ymin, xmin, ymax, xmax = (box * world.CANVAS).tolist()
    y, x, radius = (ymin + ymax) / 2, (xmin + xmax) / 2, (ymax - ymin) / 2

    def off(thing: world.Thing) -> float:
        return math.hypot(thing.y - y, thing.x - x) + abs(thing.radius - radius)

    nearest = min(scene.things, key=off)
    return nearest if off(nearest) < 8 else None


def draw(seen: Seen, path: pathlib.Path, *, kind: str, photos: int = 5) -> None:
    """Draws the first `photos` as "svg" or "png": a row each, with a column for each run."""
    import matplotlib
    from matplotlib.figure import Figure

    count, runs = min(photos, len(seen.pictures)), len(seen.maps)
    style: dict[Any, Any] = {
        "font.size": 8,
        "svg.fonttype": "none",
        "svg.hashsalt": "attention",
        "text.parse_math": False,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(2.1 + 2.3 * runs, 1.1 + 2.0 * count), layout="constrained")
        grid = figure.subplots(count, 1 + runs, squeeze=False)
        most = max(maps[row].shares.max() for maps in seen.maps.values() for row in range(count))
        for row, axes in zip(range(count), grid):
            _draw_photo(axes[0], seen.pictures[row], seen.boxes[row])
            for axis, maps in zip(axes[1:], seen.maps.values()):
                shown = _draw_map(axis, maps[row], most)
        for axis, (tag, maps) in zip(grid[0, 1:], seen.maps.items()):
            share = np.concatenate([m.paid() for m in maps]).mean()
            alike = np.concatenate([m.paid(alike=True) for m in maps]).mean()
            axis.set_title(f"{tag}\nto what is named: {share:.2f} (alike: {alike:.2f})", fontsize=7)
        label = "share of a word's attention to regions; framed: what it names"
        figure.colorbar(shown, ax=grid, location="bottom", shrink=0.5, aspect=40, label=label)
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(path, dpi=130, metadata=metadata, format=kind)


def _draw_photo(axes: Any, picture: np.ndarray, boxes: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    axes.imshow(picture)
    axes.set_axis_off()
    side = len(picture)
    for number, (ymin, xmin, ymax, xmax) in enumerate((boxes[:-1] * side - 0.5).tolist(), 1):
        size = xmax - xmin, ymax - ymin
        axes.add_patch(Rectangle((xmin, ymin), *size, fill=False, ec="black", lw=0.8))
        label = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
        axes.text(xmin, ymin, f"{number}", fontsize=7, ha="left", va="bottom", bbox=label)


def _draw_map(axes: Any, drawn: Map, most: float) -> Any:
    from matplotlib.patches import Rectangle

    shown = axes.imshow(drawn.shares, aspect="auto", cmap="Blues", vmin=0, vmax=most)
    regions = drawn.shares.shape[1]
    axes.set_yticks(range(len(drawn.words)), drawn.words)
    axes.set_xticks(range(regions), [*map(str, range(1, regions)), "photo"])
    axes.tick_params(length=0)
    for word, region in np.argwhere(drawn.named):
        place = region - 0.47, word - 0.45
        axes.add_patch(Rectangle(place, 0.94, 0.9, fill=False, ec="#c0781f", lw=1.4))
    return shown
