"""Published weights where a workdir is asked for: imported once, into the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re

from mmt_jax import hub, progress
from mmt_jax.errors import UsageError
from mmt_jax.files import cache
from mmt_jax.hub import folders
from mmt_jax.train import checkpoint
from mmt_jax.train.workdir import CONFIG
from mmt_jax.version import version

_READ = (".json", ".txt", ".safetensors", *folders.PICKLED)  # what an import may look at


def workdir(source: str | os.PathLike) -> pathlib.Path:
    """The workdir that `source` is, or that is made of the published weights there.

    Made once for each content: it lies in `files.cache()`, under the name of `source`, by which a
    run tells what it starts from, and one that the bytes of config, weights and vocabulary decide,
    and this package's version. Weights are a folder as `mmt import`
    takes it or, where no folder `owner` is there, a hub id owner/name. Anything else is given back.
    """
    path = pathlib.Path(source)
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(source)) and not path.parent.exists():
        path = folders.folder(source)
    config = path / CONFIG
    if not config.is_file() or "model_type" not in folders.read_json(config):
        return path
    made = cache("imported") / f"{pathlib.Path(source).resolve().name}-{_key(path)}"
    if not (made / CONFIG).exists():
        found = hub.load(path)
        try:
            checkpoint.write(made, found.config, found.params, found.tokenizer, found.others)
        except UsageError:  # another process may have been quicker
            if not (made / CONFIG).exists():
                raise
        progress.say(f"{source} is imported, into {made}")
    return made


def _key(folder: pathlib.Path) -> str:
    found = hashlib.sha256(version().encode())
    for file in sorted(folder.rglob("*")):
        if file.name.endswith(_READ) and file.is_file():
            found.update(str(file.relative_to(folder)).encode())
            with file.open("rb") as stream:
                found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()[:32]
