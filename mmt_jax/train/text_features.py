"""Captions' features from parameters that are frozen: alike in every step, and without dropout.

Where every parameter that `Network.text_features` reads is frozen, a step computes captions'
features apart, without a gradient and with nothing dropped, as those of an extractor. Where they
fit into memory they are computed once: `reserve` makes room, so that programs are compiled for it,
and `fill` computes them before the first step.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np

from mmt_jax import params as params_lib
from mmt_jax.configs.models import LAYOUTS
from mmt_jax.data.pipeline import Examples
from mmt_jax.models.base import Model
from mmt_jax.progress import track
from mmt_jax.tasks.records import Records
from mmt_jax.train import optim
from mmt_jax.typing import Batch, Params

_ROWS = 256  # captions encoded at once
_STEP = 4  # tokens: longer captions are encoded in programs for so much more
_MOST = 4 << 30  # bytes of features that are kept


def extracts(model: Model) -> bool:
    """Whether captions' features depend on frozen parameters alone."""
    names = model.network.remembered(model.config)
    if names is None:
        return False
    own = params_lib.lookup([(names, True)], paths := params_lib.flatten(model.abstract()), False)
    return not {path for path in paths if own[path]} - optim.frozen(model.config.optim, paths)


def given(model: Model, params: Params, batch: Batch) -> Batch:
    """A batch whose captions have features; of a model that `extracts` them."""
    text = batch.text
    if text is None or text.features is not None:
        return batch
    features = jax.lax.stop_gradient(model.text_features(params, text))
    return dataclasses.replace(batch, text=dataclasses.replace(text, features=features))


def reserve(examples: Examples | Records, model: Model) -> bool:
    """Whether captions are encoded once; then examples get room for it.

    They are where the model `extracts` their features, captions are in memory and one process
    trains, if all features take no more than 4 GiB.
    """
    if isinstance(examples, Records) or examples.tokens is None or not extracts(model):
        return False
    one = jax.tree.map(lambda leaf: leaf[:1], examples.tokens)
    like = jax.eval_shape(model.text_features, model.abstract(), one)
    shape = (len(examples.captions), *like.shape[1:])
    if jax.process_count() > 1 or math.prod(shape) * like.dtype.itemsize > _MOST:
        return False
    examples.remember(np.zeros(shape, like.dtype))
    return True


def fill(
    examples: Examples | Records, model: Model, params: Params, *, progress: bool = False
) -> None:
    """Encodes all captions; `reserve` has made room."""
    assert isinstance(examples, Examples)
    text = examples.tokens
    assert text is not None
    assert text.features is not None
    text, found = dataclasses.replace(text, features=None), text.features
    encode, front = jax.jit(model.text_features), LAYOUTS[model.config.model.layout] == 0
    lengths = text.mask.sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    for start in track(range(0, len(order), _ROWS), f"times {_ROWS} captions", shown=progress):
        rows = np.resize(order[start : start + _ROWS], _ROWS)  # some again in the last
        length = min(-(-lengths[rows].max() // _STEP) * _STEP, text.mask.shape[1])
        columns = slice(length) if front else slice(-length, None)
        part = jax.tree.map(lambda leaf: leaf[rows][:, columns], text)  # noqa: B023
        if found.ndim == 2:
            found[rows] = encode(params, part)
        else:  # states, padded as the tokens are
            found[rows, columns] = encode(params, part)
