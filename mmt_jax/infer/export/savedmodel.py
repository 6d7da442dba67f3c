"""A trained model as a SavedModel, for TensorFlow and TensorFlow Hub users without JAX.

`signatures['default']` of models that score pairs, `signatures['embed']` of those that have
embeddings and `signatures['answer']` of those that answer questions about photos are described in
`infer.export.signature`. For one pair `output` is [2], so that the release's snippet gives a
scalar; for B pairs it is [B, 2]:

  model = hub.load(folder)
  output = model.signatures['default'](**inputs)
  score = tf.nn.softmax(output['output']).numpy()[0]

`model(inputs)` and `signatures['serving_default']`, which TensorFlow Serving takes, always answer
[B, 2]; of models that score no pairs they are `answer`.

The folder's `assets` hold all that scoring captions takes: the vocabulary (`spiece.model` or
`tokenizer.json`, also `model.vocabulary.asset_path`), the config and how photos are prepared
(`mmt.json`, also `model.description.asset_path`) and what answers are called (`labels.json`, a list
by number, also `model.labels.asset_path`). `README.md` is the model's card.
"""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmt_jax import params as params_lib
from mmt_jax.configs.config import Config, as_dict
from mmt_jax.data import schema
from mmt_jax.files import whole_folder
from mmt_jax.hub import card
from mmt_jax.infer.export import signature
from mmt_jax.infer.export.serialization import (
    convert,
    quiet,
    readable_stablehlo,
    tensorflow,
    without_folders,
)
from mmt_jax.infer.predict import in_float32
from mmt_jax.models import checks
from mmt_jax.models.base import Model
from mmt_jax.tasks import labels as labels_lib
from mmt_jax.text.vocabulary import load as load_vocabulary
from mmt_jax.train.workdir import check_free
from mmt_jax.typing import Params
from mmt_jax.version import version

DESCRIPTION = "mmt.json"

# Logits that agree to this give probabilities that agree to 1e-5, for they move by half as much.
_TOLERANCE = 2e-5
_PROBES = ((1, 2, 2), (3, 7, 4))  # captions, rows and columns of patches or regions


def export_model(
    model: Model,
    params: Params,
    vocabulary: bytes,
    out: str | os.PathLike,
    *,
    step: int = 0,
    labels: Sequence[str] = (),
    photos: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] = types.MappingProxyType({}),
) -> None:
    """Writes a SavedModel, which computes in float32, to the new folder `out`.

    What was written is loaded again, called with several shapes and compared with `model` before it
    takes its place; on any failure nothing is left behind.

    Args:
      model, params: what scores pairs, or answers questions about photos.
      vocabulary: its serialised vocabulary (`Tokenizer.model`).
      out: the folder to make; an empty one may be there.
      step: how long it was trained, for the description.
      labels: what its answers are called, by number; () = not known.
      photos: how they are prepared, as `preparation.read` gives it; None = as the family's are.
      metrics: what it has reached, for the card.

    Raises:
      UsageError: `out` holds something, the model does neither, or TensorFlow is missing.
      RuntimeError: what was written does not answer as `model` does.
    """
    out = pathlib.Path(out).absolute()
    check_free(out)
    model, params = in_float32(model), jax.device_get(params)
    described = _description(model.config, step) | {"photos": photos}
    assets = {
        "vocabulary": (load_vocabulary(vocabulary).filename, vocabulary),
        "description": (DESCRIPTION, json.dumps(described, indent=2).encode()),
    }
    if labels:
        assets["labels"] = labels_lib.FILE, labels_lib.as_json(labels)
    served = signature.signatures(model)
    with whole_folder(out) as part:
        _write(served, params, assets, part)
        _verify(model, params, part)
        about = card.text(
            model,
            params,
            card.saved_model(model.config, served),
            library="tf-keras",
            step=step,
            metrics=metrics,
        )
        (part / card.FILE).write_text(about, encoding="utf-8")


def _description(config: Config, step: int) -> dict[str, Any]:
    """What `mmt.json` says: the config without folders of this machine, the step, the versions."""
    others = {"jax": jax.__version__, "tensorflow": tensorflow().__version__}
    versions = {"mmt_jax": version()} | others
    return {"config": as_dict(card.public(config)), "step": step, "versions": versions}


def _write(
    functions: Mapping[str, tuple[Callable[..., Any], Mapping[str, signature.Field]]],
    params: Params,
    assets: Mapping[str, tuple[str, bytes]],
    folder: pathlib.Path,
) -> None:
    """The SavedModel of functions by signature, and assets: attribute → file name, content."""
    tf = tensorflow()
    flat = params_lib.flatten(params)
    module = tf.Module()
    module.parameters = [
        tf.Variable(leaf, trainable=False, name=path) for path, leaf in flat.items()
    ]

    def serve(function: Any, fields: Mapping[str, signature.Field]) -> Any:
        converted = convert(function, fields)
        specs = {  # a spec's name is the keyword that the signature takes
            key: tf.TensorSpec(field.shape, field.dtype, name=key) for key, field in fields.items()
        }

        @tf.function(input_signature=[specs], autograph=False)
        def served(inputs: dict[str, Any]) -> dict[str, Any]:
            return converted(params_lib.unflatten(dict(zip(flat, module.parameters))), inputs)

        return served

    def released(whole: Any) -> Any:
        """[1, 2] → [2], as the release answers for one pair."""

        @tf.function(input_signature=whole.input_signature, autograph=False)
        def served(inputs: dict[str, Any]) -> dict[str, Any]:
            logits = whole(inputs)[signature.OUTPUT]
            shape = tf.shape(logits)
            single = tf.cast(shape[0] == 1, tf.int32)
            return {signature.OUTPUT: tf.reshape(logits, shape[single:])}

        return served

    with (
        tempfile.TemporaryDirectory() as folder_of_assets,
        readable_stablehlo(),
        without_folders(),
        quiet(),
    ):
        for attribute, (name, content) in assets.items():
            path = pathlib.Path(folder_of_assets) / name
            path.write_bytes(content)
            setattr(module, attribute, tf.saved_model.Asset(str(path)))
        served = {name: serve(*row) for name, row in functions.items()}
        module.__call__ = served["serving_default"] = served[next(iter(served))]
        if "default" in served:
            served["default"] = released(served["default"])
        tf.saved_model.save(module, str(folder), signatures=served)


def _verify(model: Model, params: Params, folder: pathlib.Path) -> None:
    """Compares the SavedModel in `folder` with `model`, both on the CPU."""
    tf = tensorflow()
    with quiet(), tf.device("CPU"), jax.default_device(jax.local_devices(backend="cpu")[0]):
        loaded = tf.saved_model.load(str(folder))
        for name, (function, fields) in signature.signatures(model).items():
            expected_of = jax.jit(function)
            for seed, probe in enumerate(_PROBES):
                inputs = _probe(model.config, *probe, seed=seed)
                inputs = {key: inputs[key] for key in fields}
                tensors = {key: tf.constant(value) for key, value in inputs.items()}
                found = loaded.signatures[name](**tensors)
                for key, expected in expected_of(params, inputs).items():
                    _compare(f"{name}: {key}", found[key].numpy(), np.asarray(expected))


def _compare(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    error = np.abs(found.reshape(expected.shape) - expected).max()
    limit = _TOLERANCE * max(1.0, np.abs(expected).max())
    if not error <= limit:  # NaN too
        raise RuntimeError(
            f"the SavedModel was written but answers wrongly: {name} is off by {error:.2g}, more "
            f"than {limit:.2g}; nothing was kept"
        )


def _probe(config: Config, pairs: int, rows: int, columns: int, *, seed: int) -> dict[str, Any]:
    """Random inputs of all signatures, with padding in both modalities."""
    rng = np.random.default_rng(seed)
    slots, model = rows * columns, config.model
    length = min(slots, config.data.text_length)
    token_ids = rng.integers(model.vocab_size, size=(pairs, length), dtype=np.int32)
    words = np.ones(token_ids.shape, bool)
    words[:, 0 if model.cls_index else -1] = False
    inputs = {
        schema.MASKED_TOKENS: token_ids,
        schema.SEGMENT_IDS: np.zeros_like(token_ids),
        schema.TOKEN_IDS: token_ids,
        schema.TEXT_PADDING: schema.padding(words),
    }
    for place in range(max(1, checks.asked_about(config))):
        if model.pixels:
            side = model.patch_size
            shape = (pairs, (rows + place) * side, columns * side, 3)
            inputs[signature.placed(schema.PIXELS, place)] = rng.random(shape, np.float32)
            continue
        regions = np.arange(slots + place) > 0
        photo = {
            schema.BOXES: rng.random((pairs, len(regions), 5), np.float32),
            schema.FEATURES: rng.random((pairs, len(regions), model.feature_dim), np.float32),
            schema.IMAGE_PADDING: np.tile(schema.padding(regions), (pairs, 1)),
        }
        inputs |= {signature.placed(key, place): value for key, value in photo.items()}
    return inputs
