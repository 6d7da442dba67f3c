"""The generated corpora as sources: `scenes`, the target's, and `scenes/NAME`, at any level."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from typing import Self

from mmt_jax import scenes
from mmt_jax.corpus import Corpus
from mmt_jax.data.source import Source, Spec
from mmt_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Scenes(Source):
    """`scenes`, `scenes/NAME`, `scenes@LEVEL` or `scenes@LEVEL/NAME`.

    The last few that were made stay in memory.
    """

    kind = "scenes"
    form = "scenes, scenes/NAME, scenes@LEVEL, scenes@LEVEL/NAME"
    generated = True

    level: int = scenes.TOP

    def __str__(self) -> str:
        return scenes.source(self.name, self.level)

    @classmethod
    def parse(cls, rest: str) -> Self | None:
        """As `Source` says.

        Raises:
          UsageError: no corpus has that name, or there is no such level.
        """
        form = re.fullmatch(r"(?:@(?P<level>[^/]*))?(?:/(?P<name>.*))?", rest)
        if form is None:
            return None
        level = form["level"] or str(scenes.TOP)
        if form["level"] == "" or level not in map(str, scenes.LEVELS):
            raise UsageError(
                f"scenes{rest}: there is no level {form['level']!r} of the generated corpora; "
                f"there are 1 to {scenes.TOP}"
            )
        name = "target" if form["name"] is None else form["name"]
        if name in scenes.CORPORA:
            return cls(name, int(level))
        near = difflib.get_close_matches(name, scenes.CORPORA, n=1)
        right = f"did you mean {near[0]}" if near else f"there are {', '.join(scenes.CORPORA)}"
        raise UsageError(f"there is no generated corpus {name!r}; {right}")

    def splits(self) -> tuple[str, ...]:
        return scenes.SPLITS

    def spec(self) -> Spec:
        return Spec(scenes.FEATURE_DIM, scenes.NUM_CLASSES, 0, unlabelled=False)

    def load(self, split: str, *, seed: int, size: int | None, pixels: bool, bare: bool) -> Corpus:
        del bare
        return _kept(self.name, self.level, split, seed, size, pixels)


@functools.lru_cache(maxsize=8)
def _kept(name: str, level: int, split: str, seed: int, size: int | None, pixels: bool) -> Corpus:
    return scenes.build(name, split, level=level, seed=seed, size=size, pixels=pixels)
