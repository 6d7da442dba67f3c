"""Writes one photo of a source as a record file, as `mmt score` reads it, and prints its captions.

usage: mmt record --data=SOURCE --split=SPLIT [--index=N] --out=FILE.npz [--pixels]

  mmt record --data=scenes --split=test --index=3 --out=work/photo.npz

The file holds the three image keys of the exported signature for one photo, without a batch axis:
image/bboxes [R, 5], image/detection_features [R, F] and image/padding_mask [R], the global region
last. With --pixels it holds image/pixels [H, W, 3] in 0..1 in their place, for models that read
pixels. A record of your own is made with numpy.savez.
"""

from __future__ import annotations

import pathlib
import types
import typing

from mmt_jax.cli import flags
from mmt_jax.errors import UsageError

if typing.TYPE_CHECKING:
    from mmt_jax.corpus import Photos

FLAGS = (
    flags.Flag("data", "SOURCE", "such as scenes, scenes/cc or regions:FOLDER", required=True),
    flags.Flag("split", "SPLIT", "such as test", required=True),
    flags.Flag("index", "N", "which photo, counted from 0; the first by default", default=0),
    flags.Flag("out", "FILE.npz", "the new file; nothing is overwritten", required=True),
    flags.Flag("max_regions", "N", "best regions at most, as the model was trained", default=100),
    flags.Flag("regions", "plain|release", "reading, as config.data.regions; plain by default"),
    flags.Flag("no_global", "", "leave the global region out: so LXMERT reads", default=False),
    flags.Flag("pixels", "", "write the photo's pixels in place of its regions", default=False),
)


def run(args: types.SimpleNamespace) -> None:
    """Writes the record."""
    import numpy as np

    from mmt_jax.data import regions, schema, sources
    from mmt_jax.files import whole

    out = pathlib.Path(args.out)
    if out.exists():
        raise UsageError(f"{out} exists and is not overwritten; remove it or name another file")
    corpora = sources.load(args.data, args.split, pixels=args.pixels, bare=True)
    corpus, index = _find(corpora, args.index, f"{args.data}, split {args.split},")
    record: dict[str, typing.Any]
    if not args.pixels:
        record = regions.record(
            corpus,
            index,
            max_regions=args.max_regions,
            reading=args.regions or "plain",
            global_region=not args.no_global,
        )
    elif (pixels := corpus.take(np.array([index])).pixels) is None:
        raise UsageError(f"{corpus.name} has no pixels; leave --pixels out")
    else:
        record = {schema.PIXELS: pixels[0].astype(np.float32) / 255}
    with whole(out) as part, part.open("wb") as file:
        np.savez_compressed(file, **record)
    print("\n".join(corpus.captions[index]))


def _find(corpora: list[Photos], index: int, name: str) -> tuple[Photos, int]:
    """The corpus that photo `index` of all of them is in, and its number there."""
    photos = sum(map(len, corpora))
    if not 0 <= index < photos:
        raise UsageError(f"--index={index} is not there: {name} has photos 0 to {photos - 1}")
    while index >= len(corpora[0]):
        index -= len(corpora[0])
        corpora = corpora[1:]
    return corpora[0], index
