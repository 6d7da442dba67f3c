"""Prepares a published corpus for training: annotations and photos become one data set.

  mmt data prepare --corpus=flickr30k --raw=raw/flickr30k --out=work/corpora
  mmt data prepare --corpus=visual_genome --raw=raw/vg --out=work/corpora \\
    --exclude=work/corpora/mmt/flickr30k

{corpora}

Published files may be packed by gzip and lie in --raw or one folder down. The data set is one of
TFDS, array_record, below OUT/mmt/NAME/1.0.0; `mmt_jax.ingest.corpora.read` yields its examples.

All annotations are read before anything is written: a damaged file, or one that is not as
published, is an error that names file and line, and nothing is touched. What is wrong with a single
entry (a photo that is missing, truncated or no picture, a caption without photo, a photo without
caption, an id that is there twice, a box that is inverted or outside, a path that leaves --raw) is
counted, and listed in rejected-SPLIT.jsonl; the rest goes on. A box that sticks out of its photo is
cut at the edge, and a photo that EXIF turns is turned with its boxes.

A split that is finished is not prepared again. Of one that was interrupted the shards that are
finished stay, and the same command goes on with the others, and with photos that have arrived.

--exclude keeps photos of an evaluation out of splits for training, by their ids in COCO, Flickr and
Visual Genome, and by a hash that survives re-encoding and resizing. It names a prepared corpus,
whose splits other than for training count, or a file with an id a line (coco:391895,
flickr:3715786136, vg:2407890, dhash:0f1e2d3c4b5a6978).

Large corpora run on Apache Beam, on this machine or on what --runner names; its workers need this
package and the folders at the same paths. Beam's DirectRunner holds all annotations in memory, but
no photos. --runner=local is one process without Beam, which holds those of 100,000 photos at once.
"""

from __future__ import annotations

import sys
import textwrap
import types

from mmt_jax.cli import flags
from mmt_jax.cli.flags import Flag
from mmt_jax.ingest import corpora
from mmt_jax.ingest.corpora import prepare


def _described() -> str:
    """Each corpus: its name, what it is, and the files that it wants."""
    wrap = textwrap.TextWrapper(
        100, initial_indent=" " * 4, subsequent_indent=" " * 4, break_on_hyphens=False
    )
    rows = []
    for corpus in corpora.CORPORA:
        rows += [corpus.name, wrap.fill(f"{corpus.title}: {corpus.wants}")]
    return "\n".join(rows)


__doc__ = str(__doc__).format(corpora=_described())

DOING = "reading {raw}"
FLAGS = (
    Flag("corpus", "NAME", "which one", required=True),
    Flag("raw", "DIR", "its published files and photos", required=True),
    Flag("out", "DIR", "where the data set is made", required=True),
    Flag("exclude", "PATH", "photos to be kept out of training", default=()),
    Flag("runner", "NAME", "a runner of Beam's, or local: this process, without Beam"),
    Flag("beam_options", "OPTION", "of Beam's pipeline, such as direct_num_workers=4", default=()),
    Flag("strict", "", "fail where files differ from what is published", default=False),
    flags.JSON,
)


def run(args: types.SimpleNamespace) -> None:
    """Prepares, and prints a row for each split."""
    reports = list(
        prepare.prepare(
            args.corpus,
            raw=args.raw,
            out=args.out,
            exclude=args.exclude,
            runner=args.runner,
            beam_options=args.beam_options,
            strict=args.strict,
            warn=lambda text: print(f"mmt: warning: {text}", file=sys.stderr),
        )
    )
    header = ("split", "examples", "annotated", "skipped", "removed", "boxes cut")
    flags.show(args, reports, flags.table(header, [_row(report) for report in reports]))


def _row(report: dict) -> tuple[str, ...]:
    numbers = [report["examples"], report["annotated"]]
    numbers += [sum(report[key].values()) for key in ("skipped", "removed")]
    numbers.append(report.get("boxes cut", 0))  # reports of before have none
    return report["split"], *(f"{number:,}" for number in numbers)
