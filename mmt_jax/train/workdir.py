"""The folder of a run: what lies in it, and whether a run may go on in it.

`config.json` (the config with the data's sizes filled in), `spiece.model` or `tokenizer.json` (the
vocabulary), `labels.json` (of a task, its answers by number), `checkpoints/`, `metrics.jsonl`,
TensorBoard events, `.lock`, which a process that trains there holds, and `pretrained/`, the workdir
of the run that this one starts from, if it had to be trained first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator

from mmt_jax.configs.config import SIZES, Config, as_dict, resolve
from mmt_jax.errors import UsageError
from mmt_jax.files import lock, whole
from mmt_jax.params import flatten
from mmt_jax.tasks.labels import FILE as LABELS
from mmt_jax.text.vocabulary import VOCABULARIES

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
PRETRAINED = "pretrained"
LOCK = ".lock"

# A run may go on with other values of these: they change neither a weight nor a batch of the steps
# that are done.
MAY_DIFFER = (
    *("steps", "log_every", "checkpoint_every", "keep", "mesh", "fsdp", "profile", "eval"),
    *("data/cache", "data/workers", "task/eval_questions", "task/eval_annotations"),
)


def read_config(workdir: str | os.PathLike) -> Config:
    """The config of the run whose folder this is; UsageError: it is none, or a damaged one."""
    path = pathlib.Path(workdir) / CONFIG
    if not path.is_file():
        raise UsageError(
            f"{workdir} is not a training workdir: it has no {CONFIG}; give the --workdir of a run "
            f"of `mmt train`"
        )
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(
            f"{path} is damaged ({error}); restore it, or train again in another folder"
        ) from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} is not the config of a run; train in another folder")
    if "model_type" in values:
        raise UsageError(
            f"{workdir} holds published weights ({values['model_type']}) and no run; make a "
            f"workdir of them with `mmt import --from={workdir}`"
        )
    return resolve(values, path=str(path))


def write_config(workdir: str | os.PathLike, config: Config) -> None:
    """Writes `config.json`, whole or not at all."""
    with whole(pathlib.Path(workdir) / CONFIG) as part:
        part.write_text(json.dumps(as_dict(config), indent=2) + "\n")


def check_free(folder: str | os.PathLike) -> None:
    """Refuses a folder that holds something, and a file."""
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} exists and is not overwritten; name a new folder or remove it first"
        )


def has_checkpoint(workdir: str | os.PathLike) -> bool:
    """Whether a run has written one."""
    folder = pathlib.Path(workdir) / CHECKPOINTS
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


@contextlib.contextmanager
def locked(workdir: str | os.PathLike) -> Iterator[None]:
    """Makes the folder, and keeps it, as `files.lock` does, from others that would train there."""
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "wb") as file:
        if not lock(file):
            raise UsageError(
                f"another process is training in {folder}; wait until it ends, or give a new "
                f"folder as --workdir"
            )
        yield


def claim(config: Config, workdir: str | os.PathLike) -> tuple[Config, bool]:
    """The config (with its stored sizes if the run goes on), and whether it goes on.

    UsageError: the folder holds something else, or a run with another config.
    """
    folder = pathlib.Path(workdir)
    if (folder / CONFIG).exists():
        return _continued(config, read_config(folder), folder), True
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder as --workdir")
    # A run that stopped before it began leaves no more than these.
    started = {PRETRAINED, LABELS, LOCK, *VOCABULARIES}
    foreign = (
        sorted(p.name for p in folder.iterdir() if p.name not in started) if folder.exists() else []
    )
    if foreign:
        raise UsageError(
            f"{folder} is not a training workdir and is not empty (it has {foreign[0]}); nothing "
            f"was written: give a new folder as --workdir"
        )
    return config, False


def _continued(config: Config, stored: Config, folder: pathlib.Path) -> Config:
    """`config` with the sizes of `stored`, if it may go on from there."""
    sizes = {
        name: getattr(stored.model, name) for name in SIZES if getattr(config.model, name) is None
    }
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))
    old, new = (flatten(as_dict(c)) for c in (stored, config))
    differ = [
        f"config.{path.replace('/', '.')} is {new[path]!r} and was {old[path]!r}"
        for path in new
        if path in old and new[path] != old[path] and not {path, path.split("/")[0]} & {*MAY_DIFFER}
    ]
    if differ:
        raise UsageError(
            f"{folder} holds a run with another config ({'; '.join(differ)}); go on with the same "
            f"values, or give a new folder as --workdir"
        )
    return config
