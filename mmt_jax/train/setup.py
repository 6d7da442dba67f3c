"""What a run is made of: vocabulary, data, model, and the parameters that it starts from.

`prepare` writes nothing to the folder of a new run, so a config that does not fit spoils nothing.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import jax

from mmt_jax.configs.config import Config, with_spec
from mmt_jax.configs.tasks import TASKS
from mmt_jax.corpus import Photos
from mmt_jax.data import sources
from mmt_jax.data.pipeline import Examples
from mmt_jax.models import registry
from mmt_jax.models.base import Model
from mmt_jax.tasks import labels as labels_lib
from mmt_jax.tasks import records
from mmt_jax.tasks.records import Records
from mmt_jax.text import store
from mmt_jax.text.base import Tokenizer
from mmt_jax.train import init
from mmt_jax.train import workdir as workdirs
from mmt_jax.typing import Params


@dataclasses.dataclass
class Setup:
    """What a run is made of."""

    config: Config  # with the sizes that come from the data
    tokenizer: Tokenizer
    labels: Sequence[str] | None  # of a task, its answers by number
    examples: Examples | Records
    model: Model
    source: Params | None  # what the first step starts from; None = fresh weights
    said: list[str]  # of where these come from

    def store(self, folder: pathlib.Path) -> None:
        """Writes the vocabulary, and the answers of a task, to a run's folder."""
        store.store_tokenizer(self.tokenizer, folder)
        if self.labels is not None:
            labels_lib.store(self.labels, folder)


def prepare(
    config: Config,
    folder: pathlib.Path,
    origins: Sequence[pathlib.Path],
    key: jax.Array,
    *,
    known: bool,
) -> Setup:
    """Reads what a config names, and builds its model.

    Args:
      config: of the run.
      folder: its workdir.
      origins: workdirs of the runs that it starts from.
      key: of parameters that the origins lack.
      known: whether the folder holds the run already.

    Returns:
      All of it; nothing is compiled but fresh parameters beside those of origins.

    Raises:
      UsageError: what is named is not there, or does not fit.
    """
    for origin in origins if not known else ():
        workdirs.read_config(origin)  # before a vocabulary is looked for there
    given = [folder] if known else [path for path in origins[:1] if store.has_vocabulary(path)]
    asked = config.task.name
    entries, labels = records.asked(config, folder) if asked else ([], None)
    sentences = [sentence for entry in entries for sentence in entry.sentences]
    tokenizer = sources.tokenizer(config, next(iter(given), None), sentences=sentences)
    spec = sources.spec(config, tokenizer)
    if labels:
        spec = dataclasses.replace(spec, num_answers=len(labels))
    config = with_spec(config, spec)
    model = registry.build(config)
    said: list[str] = []
    source = None
    if origins and not workdirs.has_checkpoint(folder):
        source = init.params(origins, model, key, said.append, labels=labels or ())
    corpora = _corpora(config) if not asked or TASKS[asked].photos else []
    if labels:
        examples = Records(config, entries, labels, tokenizer, corpora, say=said.append)
    else:
        examples = Examples.of(config, corpora, tokenizer)
    return Setup(config, tokenizer, labels, examples, model, source, said)


def _corpora(config: Config) -> list[Photos]:
    return sources.load(
        config.data.source,
        config.data.split,
        size=config.data.size,
        pixels=config.model.pixels,
        bare=bool(config.task.name),  # its sentences are not the photos' captions
    )
