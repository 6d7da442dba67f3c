"""Draws what words of a study's runs read of five test photos, side by side, as SVG or PNG.

  mmt attention --workdir=work/demo --tag=data_cc --tag=architecture_coattention --out=maps.svg

DIR is the --workdir of `mmt ablate`, of a study that was tested on generated scenes. A row is a
photo with its regions, a column a run (seed 0), each word a line: how much of the attention that it
pays to regions goes to which of them, the mean over layers and heads. Framed: what the word names.
Above a column, over 100 photos: the share that words pay to what they name, and what it would be if
each region got the same. Without --tag all runs are drawn whose words read regions; those of
single-modality, image-query and two-tower models do not.
"""

from __future__ import annotations

import pathlib
import types

from mmt_jax.cli import flags
from mmt_jax.errors import UsageError

DOING = "reading the runs of {workdir}"
FLAGS = (
    flags.Flag("workdir", "DIR", "of `mmt ablate`", required=True),
    flags.Flag("tag", "TAG", "a run's; all by default", ()),
    flags.Flag("photos", "N", "rows; 5 by default", default=5),
    flags.Flag("out", "FILE.svg|.png", "the new file; nothing is overwritten", required=True),
)


def run(args: types.SimpleNamespace) -> None:
    """Reads and draws."""
    from mmt_jax.files import check_new, whole

    out = check_new(args.out)
    if out.suffix not in (".svg", ".png"):
        raise UsageError(f"--out={out} must end in .svg or .png")
    if args.photos < 1:
        raise UsageError(f"--photos={args.photos} draws nothing; give 1 or more")

    from mmt_jax.study import attention

    seen = attention.see(pathlib.Path(args.workdir), args.tag)
    with whole(out) as part:
        attention.draw(seen, part, kind=out.suffix[1:], photos=args.photos)
    print(f"wrote {out}")
