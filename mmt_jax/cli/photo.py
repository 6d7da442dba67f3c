"""The photo that a command is asked about: its record, or the photo and a detector."""

from __future__ import annotations

import types

from mmt_jax.cli.flags import Flag
from mmt_jax.errors import UsageError
from mmt_jax.photo import RECORDS

DETECTOR = Flag("detector", "NAME:MODEL", "what finds the photo's regions; see `mmt features`")
FLAGS = (
    Flag("record", "FILE", "one photo's record, .npz or a .pkl of the release's"),
    Flag("image", "FILE|URL", "one photo, in place of a record"),
    DETECTOR,
)


def given(args: types.SimpleNamespace, *, needed: bool = True) -> str:
    """The path of the record or of the photo; "" = there is none.

    UsageError: there are both, or neither where one is needed, or one is not what it is given as.
    """
    if (args.record and args.image) or (needed and not (args.record or args.image)):
        raise UsageError("give either --record=FILE or --image=FILE; see --help")
    if args.image and args.image.endswith(RECORDS):
        raise UsageError(f"--image={args.image} is no photo; give a record as --record")
    if args.record and not args.record.endswith(RECORDS):
        raise UsageError(
            f"--record={args.record} is no {' or '.join(RECORDS)} file; give a photo as --image"
        )
    if args.record and args.detector:
        raise UsageError("--detector is for a photo, and a record holds its regions; leave it out")
    return args.record or args.image or ""
