"""Settings of every test: on the CPU, and quick to compile a second time."""

import importlib.util
import os
import pathlib

import pytest

_CACHE = pathlib.Path(__file__).parent.parent / ".cache" / "jax"

# In the environment, so that processes which tests start share them; before jax is imported.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# PyTorch for CUDA brings triton, which crashes where TensorFlow was imported before it.
if importlib.util.find_spec("triton"):
    importlib.import_module("triton")


@pytest.fixture(scope="module")
def quick_to_compile():
    """For programs that run a few steps: what they take is the time to compile them."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
