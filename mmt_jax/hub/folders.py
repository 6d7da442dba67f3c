"""Folders of published weights: their config and their arrays, from disk or from the hub.

A folder has `config.json` and one of `model.safetensors`, `pytorch_model.bin`, either of these in
parts with an index, or a single `.pth`, `.bin` or `.ckpt` of an original release. Pickles are read
without running any code of theirs. This is the one module that imports safetensors and torch.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmt_jax.errors import UsageError, optional, trying
from mmt_jax.files import whole_folder

CONFIG = "config.json"
SAFETENSORS = "model.safetensors"
PICKLED = (".bin", ".pth", ".pt", ".ckpt", ".pth.tar")
_NESTED = ("state_dict", "model")  # where Lightning and TERN keep the weights in a checkpoint
_LIGHTNING = ("pytorch_lightning.", "lightning.")
_OTHERS = ("training_args", "optimizer", "scheduler")  # pickles that hold no weights


def folder(source: str | os.PathLike) -> pathlib.Path:
    """The folder of a source: itself, or a download of the hub id `owner/name`."""
    path = pathlib.Path(source)
    if path.is_dir():
        return path
    if path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise UsageError(
            f"{source} is no folder; give one with {CONFIG} and the weights, or a hub id such as "
            f"owner/name"
        )
    return _download(str(source))


def _download(name: str) -> pathlib.Path:
    with optional("published weights need huggingface_hub", "hf"):
        import huggingface_hub
    remedy = "; check the name and the network, or give a folder"
    with trying(f"{name} is no folder here and cannot be had from the hub", remedy):
        patterns = ["*.json", "*.txt", "*.safetensors"]
        found = pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
        if not list(found.glob("*.safetensors")):
            patterns = [f"*{suffix}" for suffix in PICKLED]
            found = pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
        return found


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """The config of a folder, which must have one."""
    file = path / CONFIG
    if not file.is_file():
        raise UsageError(
            f"{path} has no {CONFIG}, without which its weights mean nothing; put the config of "
            f"the weights there"
        )
    return read_json(file)


def read_json(file: pathlib.Path) -> dict[str, Any]:
    """The fields of a JSON file, which must hold some."""
    with trying(f"{file} is damaged", "; download it again"):
        values = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise UsageError(f"{file} is no config, for it holds no fields; download it again")
    return values


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of a folder by key; floats are float32.

    Raises:
      UsageError: there are no weights, or they are damaged, or cannot be read safely.
    """
    arrays = {}
    for file in _files(path):
        arrays |= _safetensors(file) if file.suffix == ".safetensors" else _pickled(file)
    return arrays


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    for name in (SAFETENSORS, "pytorch_model.bin"):
        if (path / name).is_file():
            return [path / name]
        if (index := path / f"{name}.index.json").is_file():
            return _parts(index)
    found = [
        file
        for file in sorted(path.iterdir())
        if file.name.endswith(PICKLED) and not file.stem.startswith(_OTHERS)
    ]
    if len(found) != 1:
        several = ", ".join(file.name for file in found)
        raise UsageError(
            f"{path} has {f'several weights ({several})' if found else 'no weights'}; leave one of "
            f"{SAFETENSORS}, pytorch_model.bin or a {', '.join(PICKLED)} of an original release"
        )
    return found


def _parts(index: pathlib.Path) -> list[pathlib.Path]:
    with trying(f"{index} is damaged", "; download it again"):
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        names = sorted({pathlib.Path(name).name for name in found})
    files = [index.parent / name for name in names]
    if missing := [file.name for file in files if not file.is_file()]:
        raise UsageError(f"{index.parent} lacks {', '.join(missing)} of its weights; download them")
    return files


def _safetensors(file: pathlib.Path) -> dict[str, np.ndarray]:
    with optional("published weights need safetensors", "hf"):
        import ml_dtypes  # noqa: F401  (teaches numpy bfloat16)
        import safetensors
    with (
        trying(f"{file} is damaged", "; download it again"),
        safetensors.safe_open(file, framework="numpy") as opened,
    ):
        return {key: _float32(opened.get_tensor(key)) for key in opened.keys()}  # noqa: SIM118


def _pickled(file: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ModuleNotFoundError:
        raise UsageError(
            f"{file} is pickled, which takes torch to read; run pip install torch, or take weights "
            f"as {SAFETENSORS}"
        ) from None
    try:
        with torch.serialization.safe_globals([*_harmless(), *_inert(file)]):
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's, zip's and torch's kinds are many
        # Before its reason, torch advises to run such code.
        told = str(error).split("WeightsUnpickler error:")[-1].strip()
        reason = told.split("\n")[0].split(". ")[0] or type(error).__name__
        raise UsageError(
            f"{file} cannot be read as weights alone ({reason}); it is damaged, or would run code "
            f"of its own: take weights as {SAFETENSORS}"
        ) from None
    for name in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    named = isinstance(found, Mapping) and all(isinstance(key, str) for key in found)
    if not named or not all(map(torch.is_tensor, found.values())):
        raise UsageError(f"{file} holds something other than arrays by name; give a state dict")
    # They may be sparse, quantised, or without values.
    with trying(f"{file} holds arrays that are no plain ones", "; save dense floats"):
        return {
            key: _float32((value.float() if value.is_floating_point() else value).numpy(force=True))
            for key, value in found.items()
        }


def _harmless() -> list[Any]:
    """Kinds of values that stand beside the weights in releases' pickles, and hold data alone."""
    scalar = np.float64(0).__reduce__()[0]
    names = (f"numpy.{core}.multiarray.scalar" for core in ("core", "_core"))
    dtypes = {type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)}
    return [argparse.Namespace, np.dtype, *dtypes, *((scalar, name) for name in names)]


def _inert(file: pathlib.Path) -> list[tuple[type, str]]:
    """Stand-ins, which do nothing, for Lightning's classes: its checkpoints name callbacks."""
    import torch

    if not zipfile.is_zipfile(file):
        return []
    names = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    return [(type("Inert", (), {}), name) for name in names if name.startswith(_LIGHTNING)]


def write(
    path: pathlib.Path,
    config: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    others: Mapping[str, bytes],
) -> None:
    """Makes a folder, whole or not at all, that `from_pretrained` reads.

    `others` is the content of further files by name.
    """
    with optional("published weights need safetensors", "hf"):
        import safetensors.numpy
    with whole_folder(path) as part:
        part.mkdir()
        (part / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        safetensors.numpy.save_file(dict(arrays), part / SAFETENSORS, metadata={"format": "pt"})
        for name, content in others.items():
            (part / name).write_bytes(content)


def _float32(array: np.ndarray) -> np.ndarray:
    if np.iscomplexobj(array):
        raise TypeError("there are complex numbers")
    whole = np.issubdtype(array.dtype, np.integer) or array.dtype == bool
    return array if whole else array.astype(np.float32)
