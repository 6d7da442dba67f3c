"""Records a second from disk, beside what the disk gives and what training consumes.

  python benchmarks/data.py --folder=/a/disk --photos=1000,10000,100000
  python benchmarks/data.py --folder=/a/disk --photos=1000 --regions=100 --features=2048

Writes packed records of random features to FOLDER (and removes them), then measures, one after the
other and each with the files put out of the page cache: a plain sequential read of the shards,
which is the physical limit, and shuffled batches through `data.feed` with each number of workers.
Demand is an estimate, not a measurement: one H100 that trains the tag at scale=full on photos of
that many regions, by the floating-point operations that XLA counts in a step, at a stated share of
its peak.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from timing import machine

from mmt_jax import photo
from mmt_jax.configs import variants
from mmt_jax.configs.config import RELEASE_SPEC, Config, with_spec
from mmt_jax.corpus import Corpus
from mmt_jax.data import feed, packing, records
from mmt_jax.data.pipeline import Examples
from mmt_jax.models import registry
from mmt_jax.text import vocabulary
from mmt_jax.train import optim, speed, step
from mmt_jax.train.state import abstract, keys
from mmt_jax.typing import Batch, Image, Text

H100_PEAK = 989e12  # dense bfloat16 operations a second, by NVIDIA's data sheet
UTILISATION = 0.4  # of that peak; what well-tuned transformers reach
WORDS = ("a", "red", "dog", "runs", "over", "two", "green", "hills", "and", "lakes")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", default=".", help="on the disk that is measured")
    parser.add_argument("--photos", default="1000,10000", help="sizes of corpora")
    parser.add_argument("--regions", type=int, default=36)
    parser.add_argument("--features", type=int, default=256, help="width")
    parser.add_argument("--workers", default="0,1,2,4", help="0 = threads")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--tag", default="data_cc")
    args = parser.parse_args()

    print(f"machine  {machine()}")
    print(f"record   {args.regions} regions of {args.features}, batch {args.batch_size}")
    print(f"{'photos':>9}  {'read by':<10}{'records/s':>10}{'MB/s':>8}{'µs/record':>11}")
    for photos in map(int, args.photos.split(",")):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            said = packing.pack(_photos(photos, args), folder, "train")
            paths = [pathlib.Path(folder) / row["file"] for row in said["files"]]
            shards = [path for path in paths if path.suffix == ".array_record"]
            size = sum(path.stat().st_size for path in shards) / photos
            _forget(paths)
            _line(photos, "plain read", photos / _plain_read(shards), size)
            for workers in map(int, args.workers.split(",")):
                _forget(paths)
                name = f"{workers} workers" if workers else "threads"
                _line(photos, name, _batches(folder, workers, args), size)
    operations = _operations(args)
    demand = H100_PEAK * UTILISATION / operations
    print(
        f"demand   {demand:,.0f} records/s, an estimate: {operations:.3g} operations a record of "
        f"{args.tag} full with {args.regions} regions, at {UTILISATION:.0%} of an H100's "
        f"{H100_PEAK:.3g}/s"
    )


def _line(photos: int, name: str, rate: float, size: float) -> None:
    print(f"{photos:>9,}  {name:<10}{rate:>10,.0f}{rate * size / 1e6:>8,.0f}{1e6 / rate:>11,.0f}")


def _photos(count: int, args: argparse.Namespace) -> Iterator[Corpus]:
    """Photos of random features, a block at a time."""
    rng, rows = np.random.default_rng(0), args.regions + 1
    for start in range(0, count, 256):
        ids = np.arange(start, min(start + 256, count))
        total = len(ids) * rows
        corners = np.sort(rng.random((total, 2, 2), np.float32), axis=1).reshape(total, 4)
        yield Corpus(
            name="random",
            image_ids=ids,
            offsets=np.arange(len(ids) + 1) * rows,
            captions=tuple((" ".join(rng.choice(WORDS, 12)),) for _ in ids),
            rows=photo.rows(
                rng.random((total, args.features), np.float32).astype(np.float16),
                corners,
                scores=rng.random(total, np.float32),
            ),
        )


def _forget(paths: list[pathlib.Path]) -> None:
    """Puts files out of the page cache, where the system can."""
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _plain_read(paths: list[pathlib.Path]) -> float:
    start = time.perf_counter()
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 22):
                pass
    return time.perf_counter() - start


def _batches(folder: str, workers: int, args: argparse.Namespace) -> float:
    """Records a second, once the first batch is there."""
    tokenizer = vocabulary.train([" ".join(WORDS)] * 20, 60)
    examples = Examples([records.read(folder, "train")], tokenizer)
    source = feed.batches(examples, seed=0, batch_size=args.batch_size, workers=workers)
    next(source)
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < args.seconds:
        next(source)
        count += args.batch_size
    source.close()
    return count / passed


def _operations(args: argparse.Namespace) -> float:
    """Operations of a training step by pair, of its products; nothing is computed."""
    config = variants.get_config(args.tag, scale="full")
    most = min(config.objective.candidates, args.batch_size)
    config = dataclasses.replace(
        config,
        batch_size=args.batch_size,
        objective=dataclasses.replace(config.objective, candidates=most),
    )
    config = with_spec(config, RELEASE_SPEC)
    model = registry.build(config)
    tx = optim.build(config.optim, model.abstract(), config.steps)
    train = step.build(model, tx, config)
    batch = _like(config, args.regions)
    return speed.flops(train, abstract(model, tx), batch, keys(0)[1]) / args.batch_size


def _like(config: Config, regions: int) -> Batch:
    """A batch's shapes."""
    size, length, r = config.batch_size, config.data.text_length, regions + 1

    def zeros() -> Batch:
        ids, real = jnp.zeros((size, length), int), jnp.zeros((size, r), bool)
        features, boxes = jnp.zeros((size, r, RELEASE_SPEC.feature_dim)), jnp.zeros((size, r, 5))
        classes = jnp.zeros((size, r, 16), int), jnp.zeros((size, r, 16))
        image = Image(features, boxes, real, *classes)
        return Batch(Text(ids, ids, ids, ids > 0), image, jnp.zeros(size, int))

    return jax.eval_shape(zeros)


if __name__ == "__main__":
    main()
