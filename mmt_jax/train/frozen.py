"""Captions that no trained parameter reads: encoded once, before the first step.

A text tower that is frozen whole, in a model without dropout, says the same of a caption in every
step. `reserve` makes room for that, so that programs are compiled for it; `fill` computes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float

from mmt_jax import params as params_lib
from mmt_jax.configs.models import LAYOUTS
from mmt_jax.data.pipeline import Examples
from mmt_jax.models.base import Model
from mmt_jax.progress import track
from mmt_jax.tasks.records import Records
from mmt_jax.train import optim
from mmt_jax.typing import Array, Params, Text

_ROWS = 256  # captions encoded at once
_STEP = 4  # tokens: longer captions are encoded in programs for so much more


def reserve(examples: Examples | Records, model: Model) -> bool:
    """Whether captions can be encoded once; then examples get room for it.

    They can where captions are in memory, `Network.remembered` names parameters, all of these are
    frozen, and nothing is dropped while they are read.
    """
    config = model.config
    names = model.network.remembered(config)
    if isinstance(examples, Records) or examples.tokens is None or names is None:
        return False
    rates = (config.model.dropout, config.model.attention_rate)
    own = params_lib.lookup([(names, True)], paths := params_lib.flatten(model.abstract()), False)
    trained = {path for path in paths if own[path]} - optim.frozen(config.optim, paths)
    if any(rates) or trained or jax.process_count() > 1:
        return False
    one = jax.tree.map(lambda leaf: leaf[:1], examples.tokens)
    shape = jax.eval_shape(_standing(model), model.abstract(), one)
    examples.remember(np.zeros((len(examples.captions), shape.shape[1]), shape.dtype))
    return True


def fill(
    examples: Examples | Records, model: Model, params: Params, *, progress: bool = False
) -> None:
    """Encodes all captions; `reserve` has made room."""
    assert isinstance(examples, Examples)
    text = examples.tokens
    assert text is not None
    assert text.standing is not None
    text, found = dataclasses.replace(text, standing=None), text.standing
    encode, front = jax.jit(_standing(model)), LAYOUTS[model.config.model.layout] == 0
    lengths = text.mask.sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    for start in track(range(0, len(order), _ROWS), f"times {_ROWS} captions", shown=progress):
        rows = np.resize(order[start : start + _ROWS], _ROWS)  # some again in the last
        length = min(-(-lengths[rows].max() // _STEP) * _STEP, text.mask.shape[1])
        columns = slice(length) if front else slice(-length, None)
        part = jax.tree.map(lambda leaf: leaf[rows][:, columns], text)  # noqa: B023
        found[rows] = encode(params, part)


def _standing(model: Model) -> Callable[[Params, Text], Float[Array, "B E"]]:
    def encode(params: Params, text: Text) -> Float[Array, "B E"]:
        return model.encode_text(params, text).heads[0]

    return encode
