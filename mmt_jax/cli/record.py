"""Writes one photo of a source as a record file, as `mmt score` reads it, and prints its captions.

  mmt record --data=scenes --split=test --index=3 --out=work/photo.npz

The file holds the three image keys of the exported signature for one photo, without a batch axis:
image/bboxes [R, 5], image/detection_features [R, F] and image/padding_mask [R], the global region
last; and for `mmt show` the photo, where the source has it, and what its regions are called,
photo/picture and photo/names. With --pixels it holds image/pixels [H, W, 3] in 0..1 in their place,
for models that read pixels. A record of your own is made with numpy.savez.
"""

from __future__ import annotations

import contextlib
import types
import typing

from mmt_jax.cli import flags
from mmt_jax.errors import UsageError

_SIDE = 640  # pixels, at most, of the photo that is remembered

DOING = "reading {data}, split {split}"
FLAGS = (
    flags.Flag("data", "SOURCE", "such as scenes, scenes/cc or regions:FOLDER", required=True),
    flags.Flag("split", "SPLIT", "such as test", required=True),
    flags.Flag("index", "N", "which photo, counted from 0; the first by default", default=0),
    flags.Flag("out", "FILE.npz", "the new file; nothing is overwritten", required=True),
    flags.Flag("max_regions", "N", "best regions at most, as the model was trained", default=100),
    flags.Flag("regions", "plain|release", "as config.data.regions; plain by default", "plain"),
    flags.Flag("no_global", "", "leave the global region out: so LXMERT reads", default=False),
    flags.Flag("pixels", "", "write the photo's pixels in place of its regions", default=False),
)


def run(args: types.SimpleNamespace) -> None:
    """Writes the record."""
    import numpy as np

    from mmt_jax.corpus import starts
    from mmt_jax.data import regions, schema, sources
    from mmt_jax.files import check_new, whole
    from mmt_jax.photo import NAMES, PICTURE, SCORES
    from mmt_jax.photos import pictures

    out = check_new(args.out)
    try:
        corpora = sources.load(args.data, args.split, pixels=True, bare=True)
    except UsageError:
        if args.pixels:
            raise
        corpora = sources.load(args.data, args.split, bare=True)  # regions alone
    ends = starts([len(corpus) for corpus in corpora])
    if not 0 <= args.index < ends[-1]:
        raise UsageError(
            f"--index={args.index} is not there: {args.data}, split {args.split}, has photos 0 to "
            f"{ends[-1] - 1}"
        )
    part = int(np.searchsorted(ends, args.index, side="right")) - 1
    corpus, index = corpora[part], int(args.index - ends[part])
    record: dict[str, typing.Any]
    if not args.pixels:
        reading = regions.Reading(args.max_regions, args.regions, not args.no_global)
        record = regions.record(corpus, index, reading)
        photo = corpus.take(np.array([index]))
        (slots,) = reading.slots(photo.offsets, photo.rows.get(SCORES))
        record[NAMES] = np.array(regions.names(photo.rows, slots, corpus.labels))
        with contextlib.suppress(UsageError):  # many sources have regions alone
            record[PICTURE] = pictures.at_most(corpus.picture(index), _SIDE)
    elif (pixels := corpus.take(np.array([index])).pixels) is None:
        raise UsageError(f"{corpus.name} has no pixels; leave --pixels out")
    else:
        record = {schema.PIXELS: pixels[0].astype(np.float32) / 255}
    with whole(out) as file, file.open("wb") as stream:
        np.savez_compressed(stream, **record)
    print("\n".join(corpus.captions[index]))
