"""SavedModels from a folder or from TensorFlow Hub, ours or the release's, called with numpy."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmt_jax.configs import config as config_lib
from mmt_jax.configs.config import Config, MMTConfig
from mmt_jax.data import schema
from mmt_jax.errors import UsageError
from mmt_jax.infer.export import signature
from mmt_jax.infer.export.serialization import quiet, tensorflow
from mmt_jax.text import base


class SavedModel:
    """A loaded module.

    Attributes:
      name: the folder or handle it came from.
      config: the config that it was exported with. A module of the release carries none: there the
        defaults stand, which are the release's, and the feature width that its signature gives.
      vocabulary: its serialised vocabulary, or None (a module of the release).
    """

    def __init__(self, handle: str | os.PathLike):
        """Loads a folder, or a handle with a scheme such as https:// through TensorFlow Hub.

        Raises:
          UsageError: nothing can be loaded from there, it takes other inputs than an image–text
            model, or TensorFlow is missing.
        """
        self.name = str(handle)
        self._module = _load(self.name)
        self._default = _default_signature(self._module, self.name)
        self._shapes = _input_shapes(self._default, self.name)
        self.vocabulary = _asset(self._module, "vocabulary")
        about = _asset(self._module, "description")
        if about is not None:
            self.config = _config(about, self.name)
        else:
            pixels = schema.PIXELS in self._shapes
            sizes = {} if pixels else {"feature_dim": self._shapes[schema.FEATURES][-1]}
            self.config = Config(model=MMTConfig(pixels=pixels, **sizes))

    def logits(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The seven keys (or `image/pixels` and the text keys) of B pairs → [B, 2] f32.

        softmax(...)[:, 0] is the match probability. Where the module fixes the number of tokens or
        regions, shorter inputs are padded in front.
        """
        tf = tensorflow()
        tensors = {
            key: tf.constant(_padded(inputs[key], key, shape[1]))
            for key, shape in self._shapes.items()
        }
        with quiet():
            outputs = self._default(**tensors)
        return outputs[signature.OUTPUT].numpy().reshape(-1, 2)


def _load(handle: str) -> Any:
    tensorflow()
    if "://" not in handle and not pathlib.Path(handle, "saved_model.pb").is_file():
        raise UsageError(
            f"{handle} is not a SavedModel: give a folder that `mmt export` wrote, or a TensorFlow "
            f"Hub handle that begins with https://"
        )
    try:
        import tensorflow_hub

        return tensorflow_hub.load(handle)  # folders too: as the release's users load them
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{handle} needs TensorFlow Hub, which cannot be imported ({error}); run "
            f"pip install 'mmt_jax[tf]'"
        ) from None
    except Exception as error:  # TensorFlow's, protobuf's and the network's kinds are many
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UsageError(
            f"{handle} cannot be loaded ({reason}); it is damaged or out of reach: export it again "
            f"or check the handle"
        ) from None


def _default_signature(module: Any, name: str) -> Any:
    signatures = getattr(module, "signatures", {})
    if "default" not in signatures:
        raise UsageError(
            f"{name} has no signature 'default' (it has {', '.join(signatures) or 'none'}); give a "
            f"model that `mmt export` or the release wrote"
        )
    return signatures["default"]


def _input_shapes(default: Any, name: str) -> dict[str, tuple[Any, ...]]:
    """Shapes of the signature's inputs by our keys; None where any size will do."""
    # TensorFlow may list a key with its slash or with an underscore in its place.
    _, named = default.structured_input_signature
    specs = {key.replace("/", "_"): spec for key, spec in named.items()}
    pixels = schema.PIXELS.replace("/", "_") in specs
    wanted = ((schema.PIXELS,) if pixels else schema.IMAGE_KEYS) + schema.TEXT_KEYS
    if specs.keys() != {key.replace("/", "_") for key in wanted}:
        raise UsageError(
            f"{name} is no image–text model of this kind: its signature takes {', '.join(specs)}, "
            f"and not {', '.join(wanted)}"
        )
    return {key: tuple(specs[key.replace("/", "_")].shape) for key in wanted}


def _asset(module: Any, name: str) -> bytes | None:
    asset = getattr(module, name, None)
    if asset is None:
        return None
    return pathlib.Path(asset.asset_path.numpy().decode()).read_bytes()


def _padded(values: np.ndarray, key: str, length: int | None) -> np.ndarray:
    """[B, S, ...] → [B, length, ...] with padding in front."""
    missing = 0 if length is None else length - values.shape[1]
    if missing < 0:
        raise UsageError(f"{key} has length {values.shape[1]}, but the model takes {length}")
    if missing == 0:
        return values
    filling = {
        schema.IMAGE_PADDING: 1,
        schema.TEXT_PADDING: 1,
        schema.TOKEN_IDS: base.MASK,
        schema.MASKED_TOKENS: base.MASK,
    }
    widths = [(0, 0), (missing, 0)] + [(0, 0)] * (values.ndim - 2)
    return np.pad(values, widths, constant_values=filling.get(key, 0))


def _config(about: bytes | str, name: str) -> Config:
    """The config that a module's `mmt.json` tells."""
    try:
        return config_lib.resolve(json.loads(about)["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{name} is damaged ({error}); export or download it again") from None
