"""What a run of a study is, and what it leaves in its folder.

`seed<k>.settings.json`, beside the folder, holds what the run was asked to do, from before its
first step; `result.json` what it scored, written in one stroke when it is over; `ranks.npz` the
rank of every test query. `probe.npz` and `examples.json` come later, where photos can be drawn.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mmt_jax.configs.config import Config, as_dict, resolve
from mmt_jax.data import sources
from mmt_jax.errors import UsageError
from mmt_jax.files import cache, whole
from mmt_jax.params import flatten

if TYPE_CHECKING:
    from mmt_jax.data.pipeline import Examples
    from mmt_jax.text.base import Tokenizer

RESULT, RANKS = "result.json", "ranks.npz"


@dataclasses.dataclass(frozen=True)
class Test:
    """What a run is tested on."""

    __test__ = False  # pytest, this is not one of yours

    source: str
    split: str
    limit: int  # photos; 0 = all
    pairs: int  # fused at once

    def examples(self, config: Config, tokenizer: Tokenizer) -> Examples:
        """The photos and captions, as a model of `config` reads them."""
        from mmt_jax.data.pipeline import Examples

        corpora = sources.load(self.source, self.split, pixels=config.model.pixels)
        return Examples.of(config, sources.first(corpora, self.limit), tokenizer)


@dataclasses.dataclass(frozen=True)
class Run:
    """A variant with a seed."""

    tag: str
    seed: int
    config: Config
    test: Test | None  # None: the model matches no pairs (the language stack alone)
    folder: pathlib.Path

    @property
    def settings(self) -> dict[str, Any]:
        """What it is asked to do, as JSON gives it back; where study and cache lie is left out."""
        config = as_dict(self.config)
        if config["init_from"]:  # however it is spelled
            said = config["init_from"].split(",")
            config["init_from"] = ",".join(str(pathlib.Path(path)) for path in said if path)
        places = (self.folder.parents[1], cache("imported"))
        for part, name in ((config, "init_from"), (config["data"], "vocab")):
            if any(pathlib.Path(part[name] or "").is_relative_to(place) for place in places):
                part[name] = None
        return json.loads(json.dumps({"config": config, "test": self.test and as_dict(self.test)}))

    @property
    def finished(self) -> bool:
        """Whether it need not be run again."""
        return (self.folder / RESULT).exists()


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished run."""

    run: Run
    seconds: float  # of wall time, training and evaluation, of the process that ended the run
    validation: Mapping[str, float]  # of the checkpoint that was kept as the best
    test: Mapping[str, float]  # of the same checkpoint

    @property
    def tested_on(self) -> Test:
        """The photos and captions that `test` is of."""
        if self.run.test is None:
            raise ValueError(f"{self.run.tag} is not tested")
        return self.run.test

    def ranks(self, way: str) -> tuple[np.ndarray, np.ndarray]:
        """The rank of each query [Q] i64, 1 = best, and the photo [Q] that it shows or tells of.

        `way` is "image_retrieval", whose queries are captions, or "text_retrieval", with photos.
        """
        with np.load(self.run.folder / RANKS) as arrays:
            ranks = arrays[way]
            return ranks, arrays["photos"] if way == "image_retrieval" else np.arange(len(ranks))


def claim_folder(run: Run) -> None:
    """Notes the run's settings beside its folder, which training wants to find empty.

    UsageError: the folder has a run with other settings.
    """
    path = run.folder.with_name(f"{run.folder.name}.settings.json")
    if not path.exists():
        write_json(path, run.settings)
        return
    try:
        before = json.loads(path.read_text())
    except ValueError:
        raise UsageError(f"{path} is damaged; remove it and {run.folder} to run it anew") from None
    old, new = flatten(_completed(before)), flatten(run.settings)
    if changed := [
        f"{name.replace('/', '.')}={old.get(name)!r} (now {new.get(name)!r})"
        for name in old | new
        if old.get(name) != new.get(name)
    ]:
        raise UsageError(
            f"{run.folder} was begun with {', '.join(changed)}; go on with the settings of before, "
            f"or use another --workdir"
        )


def _completed(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the defaults of fields that the config had not yet when they were noted."""
    try:
        config = as_dict(resolve(settings["config"]))
    except (UsageError, KeyError, TypeError):
        return settings  # a field that is no more: told as a difference
    return {**settings, "config": json.loads(json.dumps(config))}


def store(
    run: Run,
    *,
    seconds: float,
    validation: Mapping[str, float],
    test: Mapping[str, float],
    ranks: Mapping[str, np.ndarray],
) -> None:
    """Writes what a run scored; `result.json` last, so that its being there says that all is."""
    if ranks:
        with open(run.folder / RANKS, "wb") as file:
            np.savez_compressed(file, **dict(ranks))  # pyright: ignore[reportArgumentType]
    values: dict[str, Any] = {"tag": run.tag, "seed": run.seed, "seconds": seconds}
    for part, metrics in (("validation", validation), ("test", test)):
        values[part] = {name: float(value) for name, value in metrics.items()}
    write_json(run.folder / RESULT, values)


def read(run: Run) -> Result:
    """What a finished run scored; UsageError: its result is damaged."""
    path = run.folder / RESULT
    try:
        values = json.loads(path.read_text())
        return Result(run, values["seconds"], values["validation"], values["test"])
    except (ValueError, KeyError):
        raise UsageError(f"{path} is damaged; remove {run.folder} to run it anew") from None


def write_json(path: pathlib.Path, values: Any) -> None:
    """Writes a file that is whole or not there."""
    write_text(path, json.dumps(values, indent=1) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file that is whole or not there."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")
