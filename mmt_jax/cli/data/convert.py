"""Makes a region folder of features that other projects extracted.

  mmt data convert --format=lxmert-tsv --in=val_obj36.tsv --out=coco --captions=dataset_coco.json

{formats}

Captions are JSON Lines of image_id and captions, COCO's captions JSON, Karpathy's splits (of which
--split is taken) or a token file of Flickr8k and Flickr30k. They find their photos by the whole
name, or by the number where COCO, Visual Genome or Flickr30k number it. A photo that is damaged, or
has no caption where there are captions, is left out, counted and listed in DIR/SPLIT.skipped.jsonl;
the rest goes on. Where the file itself cannot be read, nothing is written. Pickles run no code.
Memory holds one photo at a time, and the captions.

HDF5 and LMDB need pip install 'mmt_jax[data]'.
"""

from __future__ import annotations

import types

from mmt_jax.cli import flags
from mmt_jax.ingest.features import FORMATS

DOING = "reading {in}"
FLAGS = (
    flags.Flag("format", "NAME", "the layout of PATH, of the table above", required=True),
    flags.Flag("in", "PATH", "the file, or the folder of files", required=True),
    *flags.REGION_FOLDER,
)

__doc__ = str(__doc__).format(
    formats=flags.table(
        ["format", "boxes", "what"],
        [[name, row.boxes, row.about] for name, row in FORMATS.items()],
    )
)


def run(args: types.SimpleNamespace) -> None:
    """Converts, and says what was left out."""
    from mmt_jax.ingest.features.convert import convert

    print(
        convert(
            args.format,
            getattr(args, "in"),
            args.out,
            captions_file=args.captions,
            split=args.split,
            dtype=args.dtype,
        )
    )
