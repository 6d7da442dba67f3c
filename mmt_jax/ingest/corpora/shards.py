"""A split written shard by shard, by this process alone or on Apache Beam.

Photos do not travel: one worker reads the annotations, which is quick, and groups them by shard;
each shard's worker then reads its photos and writes the shard. All workers need this package, and
the raw folder and that of the data set at the same paths.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

from tensorflow_datasets.core import example_serializer, splits

from mmt_jax import progress
from mmt_jax.errors import UsageError
from mmt_jax.files import whole
from mmt_jax.ingest import corpora
from mmt_jax.ingest.corpora import base, examples

PHOTOS = 2_000  # of a shard: some 200 MB

_AT_ONCE = 50  # shards whose annotations this process holds at once


@dataclasses.dataclass(frozen=True)
class _Shards:
    """Writes shards into a folder, each with a JSON file beside it of how much it holds."""

    maker: examples.Maker
    features: Any
    writer: Any
    folder: str

    def write(self, group: tuple[int, Iterable[base.Item]]) -> None:
        """Writes a shard that is not done; where Beam does so twice, the files are the same."""
        shard, items = group
        path = pathlib.Path(self.folder) / f"{shard:05d}"
        if self._done(path, items := list(items)):
            return
        rejected: list[base.Skipped] = []
        done = {"examples": 0, "bytes": 0}
        ordered = sorted(items, key=lambda item: _number(item.key))
        with whole(path) as half:
            self.writer.write(half, self._records(ordered, rejected, done))
        with whole(path.with_suffix(".json")) as half:
            half.write_text(json.dumps({**done, "rejected": [vars(entry) for entry in rejected]}))

    def _done(self, path: pathlib.Path, items: list[base.Item]) -> bool:
        """Whether the shard is there, and no photo has arrived that it lacks."""
        if not (path.exists() and path.with_suffix(".json").exists()):
            return False
        rejected = json.loads(path.with_suffix(".json").read_text())["rejected"]
        missing = {line["where"] for line in rejected if line["reason"] == examples.MISSING}
        late = [item for item in items if item.where in missing]
        return all(isinstance(self.maker.example(item), base.Skipped) for item in late)

    def _records(
        self, items: list[base.Item], rejected: list[base.Skipped], done: dict[str, int]
    ) -> Iterator[tuple[str, bytes]]:
        serializer = example_serializer.ExampleSerializer(self.features.get_serialized_info())
        for item in items:
            made = self.maker.example(item)
            if isinstance(made, base.Skipped):
                rejected.append(made)
                continue
            record = serializer.serialize_example(self.features.encode_example(made[1]))
            done["examples"] += 1
            done["bytes"] += len(record)
            yield made[0], record


def write(
    builder: Any, maker: examples.Maker, *, parts: pathlib.Path, number: int, config: Any
) -> splits.SplitInfo:
    """Writes a split of TFDS's builder, and the list of what is left out.

    Args:
      builder, maker: of the data set, and of the split's examples.
      parts: where shards are written until all are there; those that are there already stay.
      number: of shards; those that remain empty are left out.
      config: TFDS's DownloadConfig, which names Beam's runner; none = this process, without Beam.
    """
    template = builder._get_filename_template(split_name=maker.split)
    parts.mkdir(parents=True, exist_ok=True)
    shards = _Shards(maker, builder.info.features, builder._example_writer(), str(parts))
    if config.beam_runner is None:
        _alone(shards, number)
    else:
        _on_beam(shards, number, config)
    done = {int(path.stem): json.loads(path.read_text()) for path in parts.glob("*.json")}
    filled = [shard for shard in sorted(done) if done[shard]["examples"]]
    for index, shard in enumerate(filled):
        path = template.sharded_filepath(shard_index=index, num_shards=len(filled))
        os.replace(parts / f"{shard:05d}", path)
    with open(examples.rejected(template.data_dir, maker.split), "w", encoding="utf-8") as file:
        for shard in sorted(done):
            file.writelines(json.dumps(entry) + "\n" for entry in done[shard]["rejected"])
    shutil.rmtree(parts)
    if not filled:
        raise UsageError(
            f"{maker.folder}: none of the photos of {maker.split} can be used; there must be "
            f"{corpora.get(maker.corpus).wants}"
        )
    return splits.SplitInfo(
        name=maker.split,
        shard_lengths=[done[shard]["examples"] for shard in filled],
        num_bytes=sum(done[shard]["bytes"] for shard in filled),
        filename_template=template,
    )


def _alone(shards: _Shards, number: int) -> None:
    with progress.Counter(f"shards of {shards.maker.split}", number) as counter:
        for start in range(0, number, _AT_ONCE):
            groups = collections.defaultdict(list)
            for item in shards.maker.items():
                if start <= (shard := _number(item.key) % number) < start + _AT_ONCE:
                    groups[shard].append(item)
            for group in groups.items():
                shards.write(group)
                counter.add(1)


def _on_beam(shards: _Shards, number: int, config: Any) -> None:
    import apache_beam as beam

    with beam.Pipeline(runner=config.beam_runner, options=config.beam_options) as pipeline:
        _ = (
            pipeline
            | "Split" >> beam.Create([shards.maker.split])
            | "Items" >> beam.FlatMap(lambda split: shards.maker.items())
            | "Shard" >> beam.Map(lambda item: (_number(item.key) % number, item))
            | "Group" >> beam.GroupByKey()
            | "Write" >> beam.Map(shards.write)
        )


def _number(key: str) -> int:
    """64 bits of a key's hash: the order of examples, which no order of files changes."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "replace")).digest()[:8], "big")
