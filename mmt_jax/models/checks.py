"""What several families refuse in a config."""

from __future__ import annotations

from collections.abc import Collection

from mmt_jax.config import UsageError
from mmt_jax.model_config import ModelConfig


def heads(model: ModelConfig, *parts: str) -> None:
    """Each part's width must be a multiple of its number of heads; "" is the part without a name.

    Raises:
      UsageError: naming the fields.
    """
    for part in parts:
        names = (f"{part}_width", f"{part}_heads") if part else ("width", "heads")
        width, count = (getattr(model, name) for name in names)
        if width % count:
            raise UsageError(
                f"config.model.{names[0]} is {width}; it must be a multiple of "
                f"config.model.{names[1]}, {count}"
            )


def grid(model: ModelConfig) -> None:
    """The photos that positions are learned on must be cut into whole patches.

    Raises:
      UsageError: naming the fields.
    """
    if model.image_size % model.patch_size:
        raise UsageError(
            f"config.model.image_size is {model.image_size}; it must be a multiple of "
            f"config.model.patch_size, {model.patch_size}"
        )


def choice(model: ModelConfig, field: str, names: Collection[str]) -> None:
    """A field must have one of the values `names`.

    Raises:
      UsageError: naming the field.
    """
    value = getattr(model, field)
    if value not in names:
        raise UsageError(f"config.model.{field}={value!r} is unknown; there are {', '.join(names)}")
