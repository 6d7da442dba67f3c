"""Arrows point one way: who may import whom, read off the source."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# Module, or package → the modules and packages of ours that it may import, itself always included.
MAY_IMPORT = {
    "typing": [],
    "params": [],
    "placement": ["typing"],
    "model_config": [],
    "task_config": [],
    "ranges": [],
    "config": ["model_config", "task_config", "ranges"],
    "variants": ["config"],
    "nn": ["config", "typing"],
    "models": ["nn", "config", "model_config", "task_config", "typing"],
    "importers": [
        "models",
        "nn.embed",
        "nn.encoders",
        "params",
        "data",
        "config",
        "model_config",
        "task_config",
        "typing",
    ],
    "scoring": ["models.base", "placement", "typing"],
    "objectives": [
        "models.base",
        "nn.blocks",
        "nn.heads",
        "config",
        "task_config",
        "typing",
    ],
    "data": ["config", "model_config", "task_config", "typing"],
    "train": [
        "models",
        "nn.blocks",
        "objectives",
        "data",
        "params",
        "placement",
        "variants",
        "config",
        "typing",
    ],
    "evals": [
        "models.base",
        "placement",
        "scoring",
        "objectives",
        "data",
        "config",
        "task_config",
        "typing",
    ],
    "search": ["scoring", "models.base", "data", "params", "config", "typing"],
    "detectors": ["train.checkpoint", "models.base", "data", "config", "typing"],
    "show": ["models.base", "data", "config", "model_config", "typing"],
    "export": [
        "models",
        "params",
        "data",
        "train.checkpoint",
        "train.workdir",
        "config",
        "typing",
    ],
    "study": ["train", "evals", "data", "config", "variants"],
    "cloze": ["models.base", "data", "config", "typing"],
    "scorer": ["cloze", "show", "detectors", "data", "config"],
    "api": None,  # anything
    "cli": None,
}
# Third parties that only some may import, at any depth of a function.
ONLY_IN = {
    "tensorflow": ["export", "detectors"],
    "tensorflow_hub": ["export"],
    "torch": ["importers.hub", "detectors.torchvision"],
    "torchvision": ["detectors.torchvision"],
    "onnx": ["detectors.onnx"],
    "onnxruntime": ["detectors.onnx"],
    "PIL": ["data"],
    "safetensors": ["importers.hub"],
    "huggingface_hub": ["importers.hub"],
    "transformers": [],
    "tokenizers": ["data.pretrained_text"],
    "faiss": ["search"],
    "tensorflow_datasets": ["data.corpora"],
    "apache_beam": ["data.corpora"],
    "flax": ["nn", "models"],
    "orbax": ["train"],
    "optax": ["train"],
    "grain": ["data"],
    "array_record": ["data"],
    "h5py": ["data"],
    "lmdb": ["data"],
}


CONFIGS = {
    "mmt_jax",
    "mmt_jax.variants",
    "mmt_jax.config",
    "mmt_jax.model_config",
    "mmt_jax.task_config",
}


def _modules() -> dict[str, pathlib.Path]:
    """Files of the package by dotted name within it; the package itself is ""."""
    top = ROOT / "mmt_jax"
    names = {}
    for path in sorted(top.rglob("*.py")):
        parts = path.relative_to(top).with_suffix("").parts
        names[".".join(part for part in parts if part != "__init__")] = path
    return names


MODULES = _modules()


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
def test_module_imports_only_what_its_layer_may(name):
    package = name.partition(".")[0]
    allowed = MAY_IMPORT[package]
    if allowed is None:
        return
    ours = {
        module.removeprefix("mmt_jax").removeprefix(".")
        for module in _imports(MODULES[name])
        if module.partition(".")[0] == "mmt_jax"
    }
    wrong = {module for module in ours if not _within(module, [package, *allowed])}
    assert not wrong, f"mmt_jax.{name} may import {allowed}, not {wrong}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_third_party_stays_where_it_belongs(library):
    users = {
        name
        for name, path in MODULES.items()
        if any(module.partition(".")[0] == library for module in _imports(path))
    }
    wrong = {name for name in users if not _within(name, [*ONLY_IN[library], "api", "cli"])}
    assert not wrong


def test_experiments_import_configs_alone():
    for path in (ROOT / "experiments").glob("*.py"):
        ours = {module for module in _imports(path) if module.startswith("mmt_jax")}
        assert ours <= CONFIGS, path


def test_the_package_is_free_to_import():
    """Well under a second, no device touched: nothing heavy is even loaded."""
    code = (
        "import sys, time; start = time.process_time(); import mmt_jax;"
        "seconds = time.process_time() - start; assert seconds < 1, seconds;"
        "heavy = {'jax', 'flax', 'numpy', 'tensorflow', 'torch', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
