"""Packs a corpus into shards that training reads photo by photo, without loading it.

  mmt data pack --data=regions:my_photos --split=train --out=packed

DIR gets shards of array_record with float16 features (uint8 stays as it is), the captions, an index
and NAME.json, which describes a record and has the size and SHA-256 of each file. It is then a
source, records:DIR, which yields the same batches in the same order as what was packed, but for
float16's rounding; --config.data.workers=N reads it in N processes. Of a region folder, a few
hundred photos at a time are in memory. The split appears whole or not at all.

Needs pip install 'mmt_jax[data]'.
"""

from __future__ import annotations

import types

from mmt_jax.cli import flags

DOING = "reading {data}, split {split}"
FLAGS = (
    flags.Flag("data", "SOURCE", "such as regions:FOLDER; no mixture", required=True),
    flags.Flag("split", "NAME", "such as train", required=True),
    flags.Flag("out", "DIR", "of the shards; no split of it is overwritten", required=True),
    flags.Flag("shard_mb", "N", "MiB of a shard; 256 by default", default=256),
    flags.Flag("pixels", "", "pack the photos' pixels too", default=False),
)


def run(args: types.SimpleNamespace) -> None:
    """Packs, and says what was written."""
    from mmt_jax.data import packing, sources

    blocks = sources.blocks(args.data, args.split, pixels=args.pixels)
    said = packing.pack(blocks, args.out, args.split, shard_mb=args.shard_mb)
    size = sum(row["bytes"] for row in said["files"])
    shards = sum(row["file"].endswith(".array_record") for row in said["files"])
    print(
        f"{args.out} holds {said['photos']:,} photos and {said['captions']:,} captions of the "
        f"split {args.split} in {shards} shard{'s' * (shards > 1)}, {size / 2**20:,.1f} MiB"
    )
