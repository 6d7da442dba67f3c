"""A post-LN transformer layer (BERT's) in numpy and float64, by the parameters of a model."""

import math

import numpy as np


def linear(x, p):
    return x @ np.float64(p["kernel"]) + np.float64(p.get("bias", 0.0))


def norm(x, p):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True))
    return x * np.float64(p["scale"]) + np.float64(p["bias"])


def evened_out(features):
    """What the image embedding reads of the features: tempered square roots, standardised."""
    x = np.float64(features)
    x = x / np.sqrt(np.abs(x) + 1e-4)
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attention(queries, keys, values, heads):
    """One softmax per query and head: [S, N·H], [U, N·H] twice → [S, N·H]."""
    out = []
    for q, k, v in zip(*(np.split(x, heads, axis=-1) for x in (queries, keys, values))):
        weights = np.exp(q @ k.T / math.sqrt(q.shape[-1]))
        out.append(weights / weights.sum(-1, keepdims=True) @ v)
    return np.concatenate(out, axis=-1)


def transformer(x, reader, sources, heads=2):
    """A layer on `x` with the weights `reader`; `sources`: (states read, weights) each."""
    projections = reader["attention"]
    keys, values = (
        np.concatenate([linear(states, p["attention"][name]) for states, p in sources])
        for name in ("key", "value")
    )
    read = attention(linear(x, projections["query"]), keys, values, heads)
    x = norm(x + linear(read, projections["out"]), projections["norm"])
    update = linear(gelu(linear(x, reader["mlp"]["hidden"])), reader["mlp"]["out"])
    return norm(x + update, reader["mlp"]["norm"])
