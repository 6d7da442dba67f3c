"""TensorFlow, and JAX functions that it can call: what is fragile about that, in one place."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmt_jax.errors import optional
from mmt_jax.infer.export.signature import Field

PLATFORMS = ("cpu", "cuda", "tpu")
STABLEHLO = "1.13.7"  # the newest that TensorFlow 2.21 reads; later releases read it too


def tensorflow() -> Any:
    """The module, or UsageError: imported on first use, told to leave GPU memory to others too."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with optional("exported models need TensorFlow", "tf"):
        import tensorflow as tf
    with contextlib.suppress(RuntimeError):  # its GPUs are in use already, on their owner's terms
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    return tf


def convert(
    function: Callable[[Any, dict[str, Any]], dict[str, Any]], fields: Mapping[str, Field]
) -> Callable[[Any, dict[str, Any]], dict[str, Any]]:
    """`function(params, inputs)` for TensorFlow, free in every letter of the fields' dimensions."""
    from jax.experimental import jax2tf

    inputs = {key: f"({', '.join(field.dims)})" for key, field in fields.items()}
    shapes: Any = ["...", inputs]  # pytrees are taken too, whatever the annotation says
    return jax2tf.convert(
        function,
        polymorphic_shapes=shapes,
        with_gradient=False,
        native_serialization_platforms=PLATFORMS,
    )


@contextlib.contextmanager
def readable_stablehlo() -> Iterator[None]:
    """Has what is serialised inside use a version of StableHLO that TensorFlow reads.

    JAX writes the version of about four weeks ago; TensorFlow's releases are older than that, and a
    SavedModel of too new a version saves and loads but fails when it is called. JAX has no public
    setting for the version. Should the private one go, what is written is still called before it is
    reported as done.
    """
    try:
        from jax._src.export import _export

        hlo: Any = _export.hlo
        original = hlo.get_version_from_compatibility_requirement
    except (ImportError, AttributeError):
        yield
        return
    hlo.get_version_from_compatibility_requirement = lambda requirement: STABLEHLO
    try:
        yield
    finally:
        hlo.get_version_from_compatibility_requirement = original


@contextlib.contextmanager
def without_folders() -> Iterator[None]:
    """Has what is serialised inside name source files without the folders of this machine."""
    import jax

    name = "jax_hlo_source_file_canonicalization_regex"
    before = jax.config.values[name]
    jax.config.update(name, r".*[/\\]")  # is taken away
    try:
        yield
    finally:
        jax.config.update(name, before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without TensorFlow's warnings of the slashes in our keys and of what its parts deprecate."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
