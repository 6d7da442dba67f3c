"""Scored pairs a second, with each item encoded once and with both items encoded for every pair.

  python benchmarks/scoring.py --tag=data_cc --scale=tiny --images=64 --captions=64

Both ways score the same pairs of the generated scenes; the largest difference of their scores is
printed beside the speeds.
"""

from __future__ import annotations

import argparse
import functools

import jax
import numpy as np
from timing import machine, median_seconds

from mmt_jax.configs import variants
from mmt_jax.configs.config import with_spec
from mmt_jax.data import sources
from mmt_jax.data.pipeline import Examples
from mmt_jax.infer.predict import Predictor
from mmt_jax.models import registry
from mmt_jax.models.base import Model
from mmt_jax.typing import Array, Image, Params, Text


@functools.partial(jax.jit, static_argnums=0)
def _score_pairs(model: Model, params: Params, text: Text, image: Image) -> Array:
    encoded = model.encode_text(params, text), model.encode_image(params, image)
    return model.fuse(params, *encoded).scores[-1]


def without_cache(
    model: Model, params: Params, texts: Text, images: Image, *, pairs: int
) -> np.ndarray:
    """[M, N] f32: every pair from its tokens and regions, `pairs` at once."""
    num_texts, num_images = len(texts.mask), len(images.mask)
    rows = np.arange(num_texts * num_images)
    parts = []
    for start in range(0, len(rows), pairs):
        chunk = np.resize(rows[start : start + pairs], pairs)
        text = jax.tree.map(lambda leaf, i=chunk // num_images: leaf[i], texts)
        image = jax.tree.map(lambda leaf, i=chunk % num_images: leaf[i], images)
        parts.append(_score_pairs(model, params, text, image))
    scores = np.concatenate(jax.device_get(parts))[: len(rows)]
    return scores.reshape(num_texts, num_images)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tag", default="data_cc")
    parser.add_argument("--scale", default="tiny", choices=variants.SCALES)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--captions", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=128, help="fused at once")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    config = variants.get_config(args.tag, scale=args.scale)
    tokenizer = sources.tokenizer(config)
    config = with_spec(config, sources.spec(config, tokenizer))
    model = registry.build(config)
    params = model.init(jax.random.key(0))
    [corpus] = sources.load("scenes", "test", size=args.images, pixels=config.model.pixels)
    examples = Examples.of(config, [corpus], tokenizer)
    images = examples.images(np.arange(args.images))
    texts = examples.texts(np.arange(args.captions))

    cached = functools.partial(Predictor(model, params).score, texts, images, pairs=args.pairs)
    plain = functools.partial(without_cache, model, params, texts, images, pairs=args.pairs)
    difference = np.abs((cached() - cached().mean()) - (plain() - plain().mean())).max()
    number = args.images * args.captions
    print(f"machine             {machine()}")
    print(f"model               {config.tag}, {args.scale}; {number:,} pairs of scenes/test")
    for name, call in (("each item once", cached), ("each pair anew", plain)):
        seconds = median_seconds(call, repeats=args.repeats)
        print(f"{name:<20}{number / seconds:,.0f} pairs/s")
    print(f"largest difference  {difference:.1e}")


if __name__ == "__main__":
    main()
