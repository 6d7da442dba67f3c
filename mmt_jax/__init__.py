"""Image–text transformers of one ablation study, rebuilt in JAX.

`load(path)` gives a trained model whose `score(records, captions)` a notebook can call,
`build(tag)` a model with fresh weights. See `mmt_jax.infer.api`.
"""

import sys
from typing import TYPE_CHECKING, Any

from mmt_jax import renamed

if TYPE_CHECKING:
    from mmt_jax.infer.api import build, load

    __version__: str

__all__ = ["build", "load"]

sys.meta_path.append(renamed.Finder)  # pyright: ignore[reportArgumentType]


def __getattr__(name: str) -> Any:
    """`load` and `build` on first use, for they load JAX, which importing the package does not."""
    if name == "__version__":
        from mmt_jax.version import version

        return version()
    if name in __all__:
        from mmt_jax.infer import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
