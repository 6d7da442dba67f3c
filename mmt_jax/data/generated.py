"""The generated corpora as sources: `scenes`, the target's, and `scenes/NAME`."""

from __future__ import annotations

import difflib
import functools
from typing import Self

from mmt_jax import scenes
from mmt_jax.corpus import Corpus
from mmt_jax.data.source import Source, Spec
from mmt_jax.errors import UsageError


class Scenes(Source):
    """`scenes` or `scenes/NAME`; the last few that were made stay in memory."""

    kind = "scenes"
    form = "scenes, scenes/NAME"
    generated = True

    def __str__(self) -> str:
        return f"scenes/{self.name}"

    @classmethod
    def parse(cls, rest: str) -> Self | None:
        """As `Source` says.

        Raises:
          UsageError: no corpus has that name.
        """
        if rest and not rest.startswith("/"):
            return None
        name = rest[1:] if rest else "target"
        if name in scenes.CORPORA:
            return cls(name)
        near = difflib.get_close_matches(name, scenes.CORPORA, n=1)
        right = f"did you mean {near[0]}" if near else f"there are {', '.join(scenes.CORPORA)}"
        raise UsageError(f"there is no generated corpus {name!r}; {right}")

    def splits(self) -> tuple[str, ...]:
        return scenes.SPLITS

    def spec(self) -> Spec:
        return Spec(scenes.FEATURE_DIM, scenes.NUM_CLASSES, 0, unlabelled=False)

    def load(self, split: str, *, seed: int, size: int | None, pixels: bool, bare: bool) -> Corpus:
        del bare
        return _kept(self.name, split, seed, size, pixels)


@functools.lru_cache(maxsize=8)
def _kept(name: str, split: str, seed: int, size: int | None, pixels: bool) -> Corpus:
    return scenes.build(name, split, seed=seed, size=size, pixels=pixels)
