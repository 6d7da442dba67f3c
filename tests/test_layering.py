"""Arrows point one way: who may import whom, read off the source."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# The rooms of the house from the ground up: each may import those before it, and none after.
FLOORS = [
    *["renamed", "errors", "version", "typing", "params", "photo", "files", "readers", "corpus"],
    *["placement", "progress"],
    *["configs", "text", "photos", "scenes", "data"],
    *["nn", "models", "objectives", "tasks", "hub", "ingest"],
    *["train", "detectors", "infer", "study", "cli", "__main__"],
]
# Third parties that only some may import, at any depth of a function.
ONLY_IN = {
    "tensorflow": ["infer.export", "detectors"],
    "tensorflow_hub": ["infer.export"],
    "torch": ["hub.folders", "detectors.torchvision"],
    "torchvision": ["detectors.torchvision"],
    "onnx": ["detectors.onnx"],
    "onnxruntime": ["detectors.onnx"],
    "PIL": ["photos", "tasks", "ingest"],
    "safetensors": ["hub.folders"],
    "huggingface_hub": ["hub.folders"],
    "transformers": [],
    "tokenizers": ["text"],
    "faiss": ["infer.search"],
    "tensorflow_datasets": ["data.prepared", "ingest.corpora"],
    "pyarrow": ["data"],
    "apache_beam": ["ingest.corpora"],
    "flax": ["nn", "models"],
    "orbax": ["train"],
    "optax": ["train"],
    "grain": ["data"],
    "array_record": ["data", "ingest"],
    "h5py": ["ingest"],
    "lmdb": ["ingest"],
}


CONFIGS = ["mmt_jax.configs", "mmt_jax.errors"]


def _modules() -> dict[str, pathlib.Path]:
    """Files of the package by dotted name within it; the package itself is ""."""
    top = ROOT / "mmt_jax"
    names = {}
    for path in sorted(top.rglob("*.py")):
        parts = path.relative_to(top).with_suffix("").parts
        names[".".join(part for part in parts if part != "__init__")] = path
    return names


MODULES = _modules()


@functools.cache
def _imports(path: pathlib.Path) -> set[str]:
    """Dotted names of all modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import; write from mmt_jax..."
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                inside = whole.partition("mmt_jax.")[2]
                found.add(whole if inside in MODULES else node.module)
    return found


def _within(name: str, packages: list[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_arrows_point_down(name):
    room = name.partition(".")[0]
    ours = {
        module.removeprefix("mmt_jax").removeprefix(".").partition(".")[0]
        for module in _imports(MODULES[name])
        if module.partition(".")[0] == "mmt_jax"
    }
    wrong = ours - {*FLOORS[: FLOORS.index(room) + 1]}
    assert not wrong, f"mmt_jax.{name} may import what is below {room}, not {wrong}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_third_party_stays_where_it_belongs(library):
    users = {
        name
        for name, path in MODULES.items()
        if any(module.partition(".")[0] == library for module in _imports(path))
    }
    wrong = {name for name in users if not _within(name, [*ONLY_IN[library], "cli"])}
    assert not wrong


def test_experiments_import_configs_alone():
    for path in (ROOT / "experiments").glob("*.py"):
        ours = {module for module in _imports(path) if module.startswith("mmt_jax")}
        assert all(module == "mmt_jax" or _within(module, CONFIGS) for module in ours), path


def test_the_package_is_free_to_import():
    """Well under a second, no device touched: nothing heavy is even loaded."""
    code = (
        "import sys, time; start = time.process_time(); import mmt_jax;"
        "seconds = time.process_time() - start; assert seconds < 1, seconds;"
        "heavy = {'jax', 'flax', 'numpy', 'tensorflow', 'torch', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
