"""SavedModels from a folder or from TensorFlow Hub, ours or the release's, as scorers."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmt_jax.configs import config as config_lib
from mmt_jax.configs.config import Config, DataConfig, MMTConfig
from mmt_jax.data import schema
from mmt_jax.errors import UsageError, optional, trying
from mmt_jax.hub import preparation
from mmt_jax.infer.export import signature
from mmt_jax.infer.export.serialization import quiet, tensorflow
from mmt_jax.infer.inputs import Inputs
from mmt_jax.infer.pairs import Items, pairwise
from mmt_jax.infer.scorer import Scorer
from mmt_jax.photos.processors import Processor
from mmt_jax.text import vocabulary

# OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION], alone or in the address of its page.
KAGGLE = re.compile(
    r"(?:https://(?:www\.)?kaggle\.com/models/)?"
    r"([\w-]+/[\w-]+/tensorflow2/[\w-]+(?:/\d+)?)/?",
    re.IGNORECASE,
)


class SavedModel(Scorer):
    """A module whose signature takes pairs, so each of them is encoded anew.

    The release's modules carry no config: for them the defaults stand, which are the release's, and
    the feature width that the signature gives. They get what the release's notebook gave them:
    regions of its reading, and always 25 tokens and 101 regions, whatever else is asked about.
    """

    def __init__(self, handle: str | os.PathLike, *, vocab: str | os.PathLike | None = None):
        """Loads a folder, a handle such as https://… by TensorFlow Hub, or Kaggle's by kagglehub.

        `vocab` is the file of its vocabulary, where it carries none. UsageError: nothing can be
        loaded, it takes other inputs than an image–text model, or there is no vocabulary.
        """
        name = str(handle)
        module = _load(name)
        self._answer = getattr(module, "signatures", {}).get("answer")
        self._shapes: dict[str, tuple[Any, ...]] = {}
        if self._answer is None or "default" in module.signatures:
            self._default, self._shapes = _signature(module, name)
        pieces = vocab or _asset(module, "vocabulary")
        if pieces is None:
            raise UsageError(
                f"{name} carries no vocabulary; give the file of its vocabulary as vocab="
            )
        self._lengths: dict[str, int] = {}
        about, names = _asset(module, "description"), _asset(module, "labels")
        if about is None:
            config, processor, labels = self._released(), None, ()
        else:
            config, processor, labels = _described(about, names, name)
        super().__init__(config, vocabulary.load(pieces), processor, labels=labels)

    def _released(self) -> Config:
        """What is known of a module that tells no config."""
        pixels = schema.PIXELS in self._shapes
        sizes = {} if pixels else {"feature_dim": self._shapes[schema.FEATURES][-1]}
        data = DataConfig(regions="plain" if pixels else "release")
        self._lengths |= dict.fromkeys(schema.TEXT_KEYS, data.text_length)
        self._lengths |= dict.fromkeys(schema.IMAGE_KEYS, data.max_regions + 1)
        return Config(model=MMTConfig(pixels=pixels, **sizes), data=data)

    @property
    def _asked_about(self) -> int:
        return super()._asked_about if self._answer is not None else 0

    def _answers(self, text: Inputs, photos: Sequence[Inputs]) -> np.ndarray:
        assert self._answer is not None
        tf, inputs = tensorflow(), dict(text)
        for place, photo in enumerate(photos):
            inputs |= {signature.placed(key, place): value for key, value in photo.items()}
        with quiet():
            found = self._answer(**{key: tf.constant(value) for key, value in inputs.items()})
        return found[signature.LOGITS].numpy()

    def logits(self, inputs: Inputs) -> np.ndarray:
        """As `Scorer.logits`; where the module fixes a length, inputs are padded to it in front."""
        self._check_scores()
        tf = tensorflow()
        tensors = {}
        for key, (_, length, *_) in self._shapes.items():
            found, length = inputs[key].shape[1], length or self._lengths.get(key)
            if length is not None and length < found:
                raise UsageError(f"{key} has length {found}, but the model takes {length}")
            tensors[key] = tf.constant(signature.padded(inputs[key], key, length or found))
        with quiet():
            outputs = self._default(**tensors)
        return _logits(outputs[signature.OUTPUT].numpy(), len(inputs[schema.TOKEN_IDS]))

    def _all_pairs(self, texts: Items, images: Items, **how: Any) -> np.ndarray:
        def score(texts: Inputs, images: Inputs) -> np.ndarray:
            a, b = len(texts[schema.TOKEN_IDS]), len(next(iter(images.values())))
            inputs = {key: np.repeat(value, b, axis=0) for key, value in texts.items()}
            inputs |= {key: np.concatenate([value] * a) for key, value in images.items()}
            logits = self.logits(inputs)
            return (logits[:, 0] - logits[:, 1]).reshape(a, b)

        return pairwise(texts, images, encode_text=dict, encode_image=dict, score=score, **how)


def _logits(output: np.ndarray, pairs: int) -> np.ndarray:
    """[B, 2] f32 of an `output` [B, 2], [2] of one pair, or [B]: scores, taken for log odds."""
    if output.size == pairs:
        return np.stack([output.reshape(-1), np.zeros(pairs, output.dtype)], axis=1)
    if output.size != 2 * pairs:
        raise UsageError(
            f"the module's output has the shape {list(output.shape)} for {pairs} pairs; a score or "
            f"two logits a pair are read"
        )
    return output.reshape(-1, 2)


def _load(handle: str) -> Any:
    tensorflow()
    with quiet(), optional(f"{handle} needs TensorFlow Hub", "tf"):
        import tensorflow_hub
    if kaggle := KAGGLE.fullmatch(handle):
        try:
            import kagglehub
        except ModuleNotFoundError:
            raise UsageError(
                f"{handle} is had from Kaggle by kagglehub; run pip install kagglehub, or give the "
                f"folder of the module"
            ) from None
    remedy = "; it is damaged or out of reach: export it again or check the handle"
    with trying(f"{handle} cannot be loaded", remedy), quiet():
        if kaggle:
            handle = kagglehub.model_download(kaggle[1])
        return tensorflow_hub.load(handle)  # folders too: as the release's users load them


def _signature(module: Any, name: str) -> tuple[Any, dict[str, tuple[Any, ...]]]:
    """The function, and the shapes of its inputs by our keys; None where any size will do."""
    signatures = getattr(module, "signatures", {})
    if "default" not in signatures:
        raise UsageError(
            f"{name} has no signature 'default' (it has {', '.join(signatures) or 'none'}); give a "
            f"model that `mmt export` or the release wrote"
        )
    # TensorFlow may list a key with its slash or with an underscore in its place.
    _, named = signatures["default"].structured_input_signature
    specs = {key.replace("/", "_"): spec for key, spec in named.items()}
    pixels = schema.PIXELS.replace("/", "_") in specs
    wanted = ((schema.PIXELS,) if pixels else schema.IMAGE_KEYS) + schema.TEXT_KEYS
    if specs.keys() != {key.replace("/", "_") for key in wanted}:
        raise UsageError(
            f"{name} is no image–text model of this kind: its signature takes {', '.join(specs)}, "
            f"and not {', '.join(wanted)}"
        )
    shapes = {key: tuple(specs[key.replace("/", "_")].shape) for key in wanted}
    return signatures["default"], shapes


def _asset(module: Any, name: str) -> bytes | None:
    asset = getattr(module, name, None)
    if asset is None:
        return None
    return pathlib.Path(asset.asset_path.numpy().decode()).read_bytes()


def _described(
    about: bytes | str, names: bytes | str | None, name: str
) -> tuple[Config, Processor | None, Sequence[str]]:
    """The config that a module's `mmt.json` tells, how photos are prepared, and `labels.json`."""
    try:
        fields = json.loads(about)
        config, photos = config_lib.resolve(fields["config"]), fields.get("photos")
        if not isinstance(photos, dict | None):
            raise ValueError(f"its photos are {photos!r}")
        processor = preparation.processor(photos, config, name=name) if photos else None
        labels, count = json.loads(names) if names else [], config.model.num_answers
        if not isinstance(labels, list) or len(labels) not in (0, count):
            raise ValueError(f"its labels are no list of {count}")
        return config, processor, labels
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{name} is damaged ({error}); export or download it again") from None
