"""What a linear reader tells from the regions of generated scenes, level by level.

  python benchmarks/linear.py --levels 1 3 5

Least squares from the features of an object's own box, as models read them, to its shape, colour
and texture, fitted on training pictures and asked on `val`. A share is of right answers, by chance
about 1/8, 1/8 and 1/3; what a level does not vary (texture, below level 3) is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from mmt_jax.nn.primitives import even_out
from mmt_jax.scenes import corpora, detector, levels, render, world

NAMES = {"shape": world.SHAPES, "colour": world.COLOURS, "texture": world.TEXTURES}
BLOCKS = {"train": 12, "val": 2}  # of `corpora.BLOCK` pictures
RIDGE = 1e-3


def objects(split: str, level: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """[n, F] f64 features of objects, a 1 behind, and their [n] i64 answers by name."""
    features, answers = [], {name: [] for name in NAMES}
    for block in range(BLOCKS[split]):
        drawn = corpora.Split("target", split, level=level).draw(block)
        pictures, slots = np.nonzero(drawn.present)
        centre = drawn.centre[pictures, slots]
        radius = np.asarray(world.RADII)[drawn.size[pictures, slots], None]
        corners = np.concatenate([centre - radius, centre + radius], axis=1) / world.CANVAS
        boxes = corners.clip(0, 1).astype(np.float32)
        features.append(detector.box_features(render.render(drawn), pictures, boxes))
        for name, found in answers.items():
            found.append(getattr(drawn, name)[pictures, slots])
    x = np.asarray(even_out(np.concatenate(features)), np.float64)
    return np.c_[x, np.ones(len(x))], {n: np.concatenate(a) for n, a in answers.items()}


def shares(level: int) -> dict[str, float]:
    """Right answers about what varies at a level, by its name, in 0..1."""
    (x, wanted), (asked, true) = objects("train", level), objects("val", level)
    gram = x.T @ x + RIDGE * np.eye(x.shape[1])
    told = {}
    for name, values in NAMES.items():
        if len(np.unique(true[name])) > 1:
            weights = np.linalg.solve(gram, x.T @ np.eye(len(values))[wanted[name]])
            told[name] = float(np.mean((asked @ weights).argmax(axis=1) == true[name]))
    return told


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a line for each level."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [*levels.LEVELS]
    parser.add_argument("--levels", type=int, nargs="+", choices=every, default=every)
    for level in parser.parse_args(argv).levels:
        said = "  ".join(f"{name} {share:.3f}" for name, share in shares(level).items())
        print(f"level {level}  {said}", flush=True)


if __name__ == "__main__":
    main()
