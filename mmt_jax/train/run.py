"""What a run is made of, prepared before its first step and before anything is written."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import jax

from mmt_jax.configs.config import Config, grouped, with_spec
from mmt_jax.configs.tasks import TASKS
from mmt_jax.data import sources
from mmt_jax.data.pipeline import Examples
from mmt_jax.errors import UsageError
from mmt_jax.models import registry
from mmt_jax.models.base import Model
from mmt_jax.tasks import labels as labels_lib
from mmt_jax.tasks import records
from mmt_jax.tasks.base import Entry
from mmt_jax.tasks.records import Records
from mmt_jax.text import vocabulary
from mmt_jax.text.base import Tokenizer
from mmt_jax.train import init, text_features
from mmt_jax.train import workdir as workdirs
from mmt_jax.train.program import Program
from mmt_jax.typing import Params

Evaluate = Callable[[Model, Params], dict[str, float]]
# Config with its sizes, tokenizer and, of a task, answers by number → None for nothing to evaluate.
Evaluator = Callable[[Config, Tokenizer, Sequence[str] | None], Evaluate | None]


@dataclasses.dataclass(frozen=True)
class Run:
    """All that the loop needs."""

    config: Config  # with the sizes that come from the data
    folder: pathlib.Path
    known: bool  # whether the folder holds the run already
    first: Run | None  # that this one starts from, to be trained before it
    tokenizer: Tokenizer
    labels: Sequence[str] | None  # of a task, its answers by number
    examples: Examples | Records
    model: Model
    program: Program
    evaluate: Evaluate | None
    weights: Params | None  # numpy arrays that the first step starts from; None = fresh ones
    remembers: bool  # whether captions are encoded once, see `text_features`
    said: tuple[str, ...]  # of where these come from, and of what the examples leave out

    def store(self) -> None:
        """Writes config, vocabulary and answers to the folder."""
        if not self.known:
            vocabulary.store_tokenizer(self.tokenizer, self.folder)
            if self.labels is not None:
                labels_lib.store(self.labels, self.folder)
        workdirs.write_config(self.folder, self.config)

    def start_from(self, origins: Sequence[pathlib.Path]) -> Run:
        """This run with the weights of others; see `init.params`."""
        said: list[str] = []
        key = self.program.first_key
        weights = init.params(origins, self.model, key, said.append, labels=self.labels or ())
        weights = jax.device_get(weights)  # or they would lie beside the state for the whole run
        return dataclasses.replace(self, first=None, weights=weights, said=(*said, *self.said))


def prepare(config: Config, workdir: str | os.PathLike, evaluator: Evaluator | None = None) -> Run:
    """Reads what a config names, builds its model and lays it out on the devices.

    Nothing is written, so a config that does not fit spoils nothing, and nothing is compiled but
    fresh parameters beside those of other runs. Arguments are as of `loop.train`. UsageError: what
    is named is not there, or does not fit the data, the devices or the folder.
    """
    if config.task.name and config.data.buckets:
        raise UsageError(
            "config.data.buckets groups pairs of photo and caption, not a task's records; leave it "
            "empty"
        )
    _check_attention(config)
    _check_changes(config)
    if config.eval.patience and not config.eval.every:
        raise UsageError(
            f"config.eval.patience={config.eval.patience} counts evaluations during training, and "
            f"there are none; set config.eval.every"
        )
    folder = pathlib.Path(workdir)
    origins = init.sources(config.init_from)
    said: list[str] = []
    asked, config = config.objective.candidates, grouped(config)
    if config.objective.candidates < asked:
        said.append(f"{config.objective.candidates} candidates, all of a batch; {asked} were asked")
    config = _sized(config, origins, folder, said)
    config, known = workdirs.claim(config, folder)
    begun, first = workdirs.has_checkpoint(folder), None
    if config.pretrained and not origins:
        origins = [folder / workdirs.PRETRAINED]
        if not begun:
            first = prepare(init.pretraining(config), origins[0], evaluator)

    sources.spec(config)  # or a vocabulary would be trained for photos without regions
    entries, labels = records.asked(config, folder) if config.task.name else ([], None)
    if first and not known:
        tokenizer = first.tokenizer
    else:
        given = [folder] if known else [o for o in origins if vocabulary.stored(o)]
        sentences = [sentence for entry in entries for sentence in entry.sentences]
        tokenizer = sources.tokenizer(config, next(iter(given), None), sentences=sentences)
    spec = sources.spec(config, tokenizer)
    if labels:
        spec = dataclasses.replace(spec, num_answers=len(labels))
    config = with_spec(config, spec)
    model = registry.build(config)
    _check_trains(model)
    examples = _examples(config, tokenizer, entries, labels, said)
    if remembers := text_features.reserve(examples, model):
        said.append("captions are encoded once, for what encodes them is frozen")
    run = Run(
        config=config,
        folder=folder,
        known=known,
        first=first,
        tokenizer=tokenizer,
        labels=labels,
        examples=examples,
        model=model,
        program=Program(model, config, examples),
        evaluate=evaluator(config, tokenizer, labels) if evaluator else None,
        weights=None,
        remembers=remembers,
        said=tuple(said),
    )
    return run if begun or first or not origins else run.start_from(origins)


def _sized(
    config: Config, origins: list[pathlib.Path], folder: pathlib.Path, said: list[str]
) -> Config:
    """The config with the sizes that its origins fix, which are sorted: words come first.

    Of a run that goes on it has them as they are stored.
    """
    if origins and (folder / workdirs.CONFIG).exists():
        found = init.as_stored(config, workdirs.read_config(folder).model)
        if found != config:
            changes = init.changes(config.model, found.model)
            said.append(f"sizes of {folder}, as it was begun: {changes}")
        return found
    models = init.models(config, origins)
    origins[:] = models
    for origin, theirs in models.items():
        found = init.sized(config, theirs)
        if found != config:
            said.append(f"sizes of {origin}: {init.changes(config.model, found.model)}")
        config = found
    return config


def _check_trains(model: Model) -> None:
    """There is a loss."""
    objective = model.config.objective
    contrasted = objective.itc and model.embeds and not model.separable
    trained = (objective.itm != "none", objective.mlm, objective.mrm, contrasted)
    if not (model.config.task.name or any(trained)):
        raise UsageError(
            "config.objective has no loss to train: itm is 'none', mlm and mrm are 0; set one of "
            "them, such as --config.objective.mlm=1"
        )


def _check_attention(config: Config) -> None:
    """cuDNN's kernel is asked for only where it is what runs."""
    if config.attention != "cudnn":
        return
    if jax.default_backend() != "gpu":
        raise UsageError("config.attention=cudnn needs an NVIDIA GPU, which jax does not see here")
    if config.dtype != "bfloat16":
        raise UsageError("config.attention=cudnn computes in 16 bits; set config.dtype=bfloat16")
    if rate := config.model.attention_rate:
        raise UsageError(
            f"config.attention=cudnn cannot drop attention weights, of which {rate:g} are to be; "
            f"set config.model.attention_dropout=0"
        )


def _check_changes(config: Config) -> None:
    """Photos are changed at random, or kept, only where they are decoded for it."""
    task = config.task.name
    decodes = config.model.pixels and (not task or TASKS[task].photos)
    found = [part.kind in ("photos", "tfds") for part in sources.parse(config.data.source)]
    for name, does, enough in (
        ("augment", "changes photos as they are decoded", all),
        ("cache", "keeps decoded photos", any),
    ):
        value = getattr(config.data, name)
        if value and not (decodes and enough(found)):
            raise UsageError(
                f"config.data.{name}={value} {does}; it needs a model that reads pixels, "
                f"config.data.source=photos:FOLDER and, of tasks, one that asks about its photos"
            )
    if config.data.augment and config.data.cache:
        raise UsageError(
            "config.data.cache keeps photos as they are shown, and config.data.augment changes "
            "them as they are decoded; leave one out"
        )


def _examples(
    config: Config,
    tokenizer: Tokenizer,
    entries: list[Entry],
    labels: Sequence[str] | None,
    said: list[str],
) -> Examples | Records:
    """What batches are made of: pairs of photo and caption, or a task's entries."""
    corpora, cache = [], config.data.cache
    if labels is None or TASKS[config.task.name].photos:
        corpora = sources.load(
            config.data.source,
            config.data.split,
            size=config.data.size,
            pixels=config.model.pixels,
            bare=labels is not None,  # the entries' sentences are not the photos' captions
        )
    if labels is None:
        return Examples.of(config, corpora, tokenizer, cache=cache)
    return Records(config, entries, labels, tokenizer, corpora, say=said.append, cache=cache)
