"""CLIP's vision transformer, over patches of photos of any size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Float32

from mmt_jax.nn.layers import Sizes, Stack
from mmt_jax.nn.primitives import LayerNorm, Linear, Table, beside
from mmt_jax.typing import Array, Image, Key

# Mean and deviation of red, green and blue, of the photos that CLIP was trained on.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def cubic_weights(centres: Float32[Array, "*b"], size: int) -> Float32[Array, "*b size"]:
    """How much each of `size` cells in a row counts at places in 0..1, by cubic convolution.

    Keys (1981, eq. 4) with PyTorch's coefficient; places beyond the border read its cells again. On
    the centres of a row of n equal cells this is `interpolate(mode="bicubic")` from `size` to n
    cells, with neither aligned corners nor antialiasing.
    """
    a = -0.75
    place = centres * size - 0.5
    first = jnp.floor(place)
    weights = jnp.zeros((*centres.shape, size), jnp.float32)
    for step in (-1, 0, 1, 2):
        x = jnp.abs(place - first - step)
        near = ((a + 2) * x - (a + 3)) * x**2 + 1
        far = a * (((x - 5) * x + 8) * x - 4)
        cell = jnp.clip(first + step, 0, size - 1).astype(jnp.int32)
        weights += jnp.where(x <= 1, near, far)[..., None] * jax.nn.one_hot(cell, size)
    return weights


def with_class(mask: Bool[Array, "B R"]) -> Bool[Array, "B R+1"]:
    """What stands in front for the whole photo, as CLIP's class, is always real."""
    return jnp.concatenate([jnp.ones_like(mask[:, :1]), mask], axis=1)


class VisionEncoder(nnx.Module):
    """Class embedding, patches, positions, LayerNorm, layers, and a LayerNorm for who reads them.

    Positions are a learned grid, read by bicubic interpolation at the centre of each patch, so that
    photos may have another size and shape than the grid.
    """

    def __init__(self, sizes: Sizes, depth: int, *, patch_dim: int, grid: int, dtype: str):
        """A stack of `depth` layers over patches of `patch_dim` values and `grid`² positions."""
        self.grid, self.dtype = grid, dtype
        self.patches = Linear(patch_dim, sizes.width, bias=False)
        self.cls = Table(1, sizes.width)
        self.positions = Table(1 + grid**2, sizes.width)  # the class comes first
        self.first_norm = LayerNorm(sizes.width, sizes.eps)
        self.stack = Stack(sizes, depth)
        self.last_norm = LayerNorm(sizes.width, sizes.eps)

    def embed(self, image: Image) -> Float[Array, "B S D"]:
        """States before the first layer."""
        boxes = image.boxes
        pixels = image.features.reshape(*image.features.shape[:-1], -1, 3)
        mean, std = (beside(jnp.asarray(of), pixels) for of in (PIXEL_MEAN, PIXEL_STD))
        patches = ((pixels - mean) / std).reshape(image.features.shape)
        rows = cubic_weights((boxes[..., 0] + boxes[..., 2]) / 2, self.grid)
        columns = cubic_weights((boxes[..., 1] + boxes[..., 3]) / 2, self.grid)
        positions = self.positions.embedding[...]
        cells = positions[1:].reshape(self.grid, self.grid, -1)
        exact = jax.lax.Precision.HIGHEST
        at_patch = jnp.einsum("bpi,bpj,ijd->bpd", rows, columns, cells, precision=exact)
        x = self.patches(patches.astype(self.dtype), dtype=jnp.float32) + at_patch
        cls = self.cls.embedding[...] + positions[:1]
        cls = jnp.broadcast_to(cls[None], (x.shape[0], 1, x.shape[-1]))
        return self.first_norm(jnp.concatenate([cls, x], axis=1)).astype(self.dtype)

    def __call__(self, image: Image, *, key: Key = None) -> list[Float[Array, "B S D"]]:
        """States after the embedding and each layer, the class first, without the last LayerNorm.

        Features are the pixels of each patch, row by row: red, green and blue in 0..1.
        """
        return self.stack(self.embed(image), with_class(image.mask), key=key)
