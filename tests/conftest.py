"""Settings of every test: on the CPU, and quick to compile, which is what tests mostly wait for."""

import gc
import importlib.metadata
import importlib.util
import os
import pathlib

import jaxtyping

_ROOT = pathlib.Path(__file__).parent.parent
_CACHE = _ROOT / ".cache" / "jax"
# XLA ends where it does not know a flag: it knows these in every jax that pyproject.toml admits.
_FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",  # no parts for cores that other tests have busy
]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # of two emitters, the one that is quick

# In the environment, so that processes which tests start share them; before jax is imported.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("XLA_FLAGS", " ".join(_FLAGS))

# What functions take and give is what their annotations say, shapes and dtypes too.
_NETWORKS = (path.parent.name for path in _ROOT.glob("mmt_jax/models/*/network.py"))
_CHECKED = ["data.regions", "data.schema", "models.base", "nn", "objectives", "typing"]
_CHECKED += [f"infer.{name}" for name in ("export.signature", "pairs", "predict", "ranking")]
_CHECKED += ["infer.relevance", *(f"models.{name}.network" for name in _NETWORKS)]
jaxtyping.install_import_hook([f"mmt_jax.{name}" for name in _CHECKED], "beartype.beartype")

# Tracing allocates so much that looking for cycles as often as Python does takes a tenth of it all.
gc.set_threshold(100_000, 20, 20)

# PyTorch for CUDA brings triton, which crashes where TensorFlow was imported before it.
if importlib.util.find_spec("triton"):
    importlib.import_module("triton")

# The longest, one process each for a while: begun first, so that all processes end together.
_FIRST = {"test_colabs.py", "test_scoring.py", "test_train.py", "test_bridgetower.py"}


def pytest_collection_modifyitems(items):
    """Puts the longest files first."""
    items.sort(key=lambda item: item.path.name not in _FIRST)
