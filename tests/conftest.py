"""Settings of every test: on the CPU, and quick to compile, which is what tests mostly wait for."""

import ctypes
import gc
import importlib.metadata
import importlib.util
import os
import pathlib
import resource
import sys

import jaxtyping
import pytest

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
_CHECKED += ["photos", "tasks", "text", "train"]
jaxtyping.install_import_hook([f"mmt_jax.{name}" for name in _CHECKED], "checked.annotations")

# Tracing allocates so much that looking for cycles as often as Python does takes a tenth of it all.
gc.set_threshold(100_000, 20, 20)

# PyTorch for CUDA brings triton, which crashes where TensorFlow was imported before it.
if importlib.util.find_spec("triton"):
    importlib.import_module("triton")

# The longest, one process each for a while: begun first, so that all processes end together.
_FIRST = {"test_colabs.py", "test_scoring.py", "test_train.py", "test_bridgetower.py"}
# What takes long to import, and may not be there: tests that import it say so.
_IMPORTED = {"tf": "tensorflow", "torch": "transformers"}
_BEFORE = pytest.StashKey[set[str]]()
_HELD = pytest.StashKey[int]()  # bytes after memory was freed last


def pytest_collection_modifyitems(items):
    """Puts the longest files first."""
    items.sort(key=lambda item: item.path.name not in _FIRST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Files go to processes whole, and those that import TensorFlow all to one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition("::")[0]
            return "tf" if "mark.tf" in (_ROOT / path).read_text() else path

    return Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Leaves out what needs a GPU where there is none."""
    item.stash[_BEFORE] = set(sys.modules)
    if item.get_closest_marker("gpu") and importlib.import_module("jax").default_backend() != "gpu":
        pytest.skip("jax sees no GPU")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Frees memory; refuses marks that do not say what was imported."""
    yield
    for mark, module in _IMPORTED.items():
        new = module in sys.modules and module not in item.stash[_BEFORE]
        if new and item.get_closest_marker(mark) is None:
            pytest.fail(f"imports {module}: mark it with {mark}")
    within = nextitem is not None and nextitem.path == item.path
    grown = _resident() - item.session.stash.get(_HELD, 0)
    if grown > (1 << 29 if within else 1 << 28):
        _free_memory()
        item.session.stash[_HELD] = _resident()


def _free_memory():
    """Frees what jax compiled and malloc keeps, of which a process would gather gigabytes."""
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def _resident():
    """Bytes of memory that this process has; 0 where the system does not say."""
    try:
        pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()
