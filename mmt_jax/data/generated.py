"""The generated corpora as sources: `scenes`, the target's, and `scenes/NAME`, at any level."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Self

from mmt_jax import scenes
from mmt_jax.corpus import Photos
from mmt_jax.data.source import Source, Spec
from mmt_jax.errors import UsageError, nearest

_kept = functools.lru_cache(maxsize=8)(scenes.photos)


@dataclasses.dataclass(frozen=True)
class Scenes(Source):
    """`scenes`, `scenes/NAME`, `scenes@LEVEL` or `scenes@LEVEL/NAME`, and dials of the captions.

    With `?wrong=SHARE`, `?far=SHARE` or `?wrong=SHARE&far=SHARE` behind it, a corpus has captions
    of other photos, or words far from the target's, as often as asked. The last few corpora that
    were made stay in memory.
    """

    kind = "scenes"
    form = "scenes, scenes/NAME, scenes@LEVEL, scenes@LEVEL/NAME (with ?wrong=SHARE&far=SHARE)"
    generated = True

    level: int = scenes.TOP
    dials: scenes.Dials = scenes.AS_IT_IS

    def __str__(self) -> str:
        return scenes.source(self.name, self.level, self.dials)

    @classmethod
    def parse(cls, rest: str) -> Self | None:
        """As `Source` says.

        Raises:
          UsageError: no corpus has that name, or there is no such level or dial.
        """
        form = re.fullmatch(
            r"(?:@(?P<level>[^/?]*))?(?:/(?P<name>[^?]*))?(?:\?(?P<dials>.*))?", rest
        )
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
            return cls(name, int(level), _dials(form["dials"], f"scenes{rest}"))
        right = nearest(name, scenes.CORPORA)
        raise UsageError(f"there is no generated corpus {name!r}; {right}")

    def recipe(self) -> scenes.Recipe:
        """What the corpus is like."""
        return scenes.recipe(self.name, self.level, self.dials)

    def splits(self) -> tuple[str, ...]:
        return scenes.SPLITS

    def spec(self) -> Spec:
        return Spec(scenes.FEATURE_DIM, scenes.NUM_CLASSES, 0, unlabelled=False)

    def load(self, split: str, *, seed: int, size: int | None, pixels: bool, bare: bool) -> Photos:
        del bare
        asked = {"level": self.level, "dials": self.dials, "seed": seed, "size": size}
        return _kept(self.name, split, **asked, pixels=pixels)


def _dials(text: str | None, source: str) -> scenes.Dials:
    turned, known = {}, vars(scenes.AS_IT_IS)
    for option in [] if text is None else text.split("&"):
        name, _, value = option.partition("=")
        if name not in known or not re.fullmatch(r"0?\.\d+|1\.0+|0|1", value):
            raise UsageError(
                f"{source}: {option!r} turns no dial; write ?wrong=SHARE or ?far=SHARE, or both "
                f"with & between them, a share from 0 to 1"
            )
        turned[name] = float(value)
    return scenes.Dials(**turned)
