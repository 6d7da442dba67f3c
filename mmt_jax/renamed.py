"""Modules by the names that they had before they moved, so that files of users go on working."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import types
import warnings
from collections.abc import Sequence
from typing import Any

# Old name → new name, or names where one module has become several. What is below a package has
# moved with it, unless it has a row of its own.
RENAMED: dict[str, str | tuple[str, ...]] = {
    "api": "infer.api",
    "cloze": "infer.fill",
    "config": "configs.config",
    "data.corpora": "ingest.corpora",
    "data.corpus": "corpus",
    "data.features": "ingest.features",
    "data.photos": "photo",
    "data.pictures": "photos.pictures",
    "data.pretrained_text": "text.pretrained",
    "data.processors": "photos.processors",
    "data.scenes": "scenes",
    "data.statistics": "text.statistics",
    "data.tasks": "tasks",
    "data.text": ("text.vocabulary", "text.base", "text.sentencepiece", "text"),
    "evals": "infer",
    "export": "infer.export",
    "importers": "hub",
    "importers.engine": "models.weights",
    "importers.hub": "hub.folders",
    "model_config": "configs.models",
    "scorer": "infer.scorer",
    "scoring": ("infer.predict", "infer.pairs"),
    "search": "infer.search",
    "show": "infer.show",
    "task_config": "configs.tasks",
    "text.store": "text.vocabulary",
    "variants": "configs.variants",
}


class Finder:
    """The last of `sys.meta_path`: finds what is neither there nor unknown."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        """A module by its old name, which loads the new one when it is used."""
        if name.startswith("mmt_jax.") and any(map(_there, _now(name))):
            return importlib.machinery.ModuleSpec(name, cls, is_package=True)  # pyright: ignore[reportArgumentType]
        return None

    @staticmethod
    def create_module(spec: Any) -> types.ModuleType:
        """An empty module, which looks in the new ones for all that it is asked for."""
        return _Moved(spec.name)

    @staticmethod
    def exec_module(module: types.ModuleType) -> None:
        """Nothing is run before it is used."""


class _Moved(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        for new in () if name.startswith("__") else _now(self.__name__):
            module = importlib.import_module(new)
            if hasattr(module, name):
                if not self.__dict__.setdefault("_warned", False):
                    self._warned = True
                    text = f"{self.__name__} has moved to {new}; its old name still works"
                    warnings.warn(text, FutureWarning, stacklevel=2)
                return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def _now(old: str) -> Sequence[str]:
    """Names of the modules that were `old` once; none where nothing had that name."""
    package, *parts = old.split(".")
    for length in range(len(parts), 0, -1):
        new = RENAMED.get(".".join(parts[:length]))
        if new is not None:
            heads = (new,) if isinstance(new, str) else new
            return [".".join([package, head, *parts[length:]]) for head in heads]
    return ()


def _there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of what it would be in
        return False
