"""Runs a study: each variant with each seed, one after the other, resuming where it stopped.

A workdir holds `runs/<tag>/seed<k>`, one training workdir each with what `results` adds to it;
`best`, a link to the run with the best validation score; and the report.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_origin

import numpy as np

from mmt_jax import progress
from mmt_jax.configs import fields, variants
from mmt_jax.configs.config import Config, EvalConfig, Study, as_dict, grouped, resolve
from mmt_jax.configs.overrides import changed, hint, load
from mmt_jax.configs.overrides import read as read_field
from mmt_jax.data import sources
from mmt_jax.errors import UsageError
from mmt_jax.infer import ranking
from mmt_jax.study import examples, probe, report
from mmt_jax.study.findings import PARAMETERS
from mmt_jax.study.results import Result, Run, Test, claim_folder, read, store, write_json
from mmt_jax.text.vocabulary import stored_tokenizer

Train = Callable[[Config, str], Mapping[str, float]]
# (config, workdir, test) → metrics, and the ranks that `results.Result.ranks` reads.
Evaluate = Callable[[Config, str, Test], tuple[Mapping[str, float], Mapping[str, np.ndarray]]]


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """`["steps=200", "optim.lr=1e-3,2e-3"]` → {"steps": 200, "optim.lr": [1e-3, 2e-3]}.

    Commas part several values of a number, a switch or a choice of names, whose values have none;
    in tuples and texts, such as a mixture of sources, they belong to the one value. UsageError: a
    pair has no equals sign, or names no field or no value of it.
    """
    said: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, text = pair.removeprefix("config.").partition("=")
        if not equals:
            raise UsageError(f"{pair!r} sets nothing; write FIELD=VALUE, such as steps=200")
        said.setdefault(name, []).append(text)
    return {name: _read(name, texts) for name, texts in said.items()}


def _read(name: str, texts: list[str]) -> Any:
    if name != "level":  # which is the study's, as the fields of `test` are; others are a run's
        path = name if name.startswith("test.") else f"config.{name}"
        kind, rules, _ = fields.parts(hint(path))
        choice = kind in (int, float, bool) or any(
            isinstance(rule, fields.Choice) for rule in rules
        )
        if not choice or path == name:
            return read_field(path, texts)
        values = dict.fromkeys(read_field(path, [text]) for text in texts[-1].split(","))
        return list(values) if len(values) > 1 else next(iter(values))
    if not texts[-1].isdecimal():
        raise UsageError(f"level={texts[-1]} is no level of the generated corpora; give a number")
    return int(texts[-1])


def amend(
    study: Study, *, seeds: int | None = None, overrides: Mapping[str, Any] | None = None
) -> Study:
    """The study with other seeds (None = as many as it has) or settings.

    `overrides` are fields of the runs' configs by dotted path, such as "optim.lr"; "scale" and
    "level" are the study's, and those that begin with "test." are of `Study.test`. `steps` is that
    of a pretraining row; fine-tuning keeps its share of it.

    UsageError: no seeds, a seed among the settings, or an unknown field of `test`.
    """
    seeds = study.seeds if seeds is None else seeds
    if seeds < 1:
        raise UsageError(f"{seeds} seeds run nothing; give 1 or more")
    ours = dict(study.overrides)
    own: dict[str, Any] = {"scale": study.scale, "level": study.level}
    test = as_dict(study.test)
    for path, value in (overrides or {}).items():
        if path.startswith("test."):
            test[path.removeprefix("test.")] = value
        elif path in own:
            own[path] = value
        else:
            ours[path] = value
    if "seed" in ours:
        raise UsageError("a study's seeds count from 0; say how many with --seeds, not config.seed")
    tested = resolve(test, cls=EvalConfig, path="test")
    return dataclasses.replace(study, seeds=seeds, overrides=ours, test=tested, **own)


def recipe(row: str, scale: str) -> Config:
    """The config that a row, what `--config` takes, stands for before the study changes it."""
    return load(f"{row},scale={scale}")


def configure(study: Study, row: str, seed: int) -> Config:
    """The config of one run.

    A contrastive loss gets at most as many candidates as its batch has pairs, warm-up its share of
    the steps. UsageError: an unknown tag, an override of an unknown or mistyped field, or a batch
    that is no multiple of its candidates.
    """
    planned = recipe(row, study.scale)
    if study.level is not None:
        at_level = sources.at_level(planned.data.source, study.level)
        planned = changed(planned, {"data.source": at_level})
    changes = dict(study.overrides)
    for path in ("data.source", "eval.source"):
        if isinstance(source := changes.get(path), str):
            changes[path] = _leveled(source, study.level)
    if type(steps := changes.get("steps")) is int and steps > 0:
        base = variants.get_config("data_cc", scale=study.scale)
        changes["steps"] = max(1, steps * planned.steps // base.steps)
        warmup = planned.optim.warmup_steps * changes["steps"] // planned.steps
        changes.setdefault("optim.warmup_steps", warmup)
    config = changed(planned, changes)
    return dataclasses.replace(grouped(config), seed=seed)


def _leveled(source: str, level: int | None) -> str:
    """A source that is set for a study, at its level where the source itself names none."""
    if level is None:
        return source
    return ",".join(
        part if "@" in part else sources.at_level(part, level) for part in source.split(",")
    )


def plan(study: Study, workdir: str | os.PathLike, *, point: str = "") -> list[Run]:
    """All runs, seed by seed, each after the run whose checkpoint it starts from.

    `point` is of a grid, and is added to the tags of its runs. UsageError: an unknown tag, a wrong
    override, a test split that is not there, or nothing to compare.
    """
    folder = pathlib.Path(workdir).resolve() / "runs"
    rows = _with_pretraining(study)
    runs = []
    for seed in range(study.seeds):
        for tag, row in rows.items():
            config = configure(study, row, seed)
            ranking.check_best(config.eval.best)
            if config.pretrained:
                start = folder / f"{config.pretrained}{point}" / f"seed{seed}"
                config = dataclasses.replace(config, init_from=str(start))
            name = f"{tag}{point}"
            test = _test(study, config)
            runs.append(Run(name, seed, config, test, folder / name / f"seed{seed}"))
    if not any(run.test for run in runs):
        raise UsageError(f"study {study.name!r} has no variant that matches photos and captions")
    return runs


def _with_pretraining(study: Study) -> dict[str, str]:
    """The rows by their configs' tags, each after the row that it starts from."""
    ordered: dict[str, str] = {}

    def visit(row: str) -> None:
        planned = recipe(row, study.scale)
        if not planned.tag:
            raise UsageError(f"the study's {row!r} makes a config without a tag; give it one")
        if planned.pretrained:
            visit(planned.pretrained)
        before = ordered.setdefault(planned.tag, row)
        if before != row and recipe(before, study.scale) != planned:  # aliases are the same
            raise UsageError(
                f"the study's {before!r} and {row!r} are two configs with the tag {planned.tag!r}; "
                f"give each its own"
            )

    for row in study.tags:
        visit(row)
    return ordered


def _test(study: Study, config: Config) -> Test | None:
    """What a run is tested on, names filled in; None for the language stack alone."""
    if config.objective.itm == "none":
        return None
    asked = study.test
    source = _leveled(asked.source, study.level) if asked.source else None
    source, split = source or sources.eval_source(config)[0], asked.split or "test"
    for part in sources.parse(source):
        if split not in (splits := part.splits()):
            raise UsageError(
                f"{source} has no split {split!r} to report on; it has {', '.join(splits)}: name "
                f"one with --set=test.split=…"
            )
    return Test(source, split, asked.limit, asked.pairs)


def ablate(
    study: Study,
    workdir: str | os.PathLike,
    *,
    seeds: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    train: Train | None = None,
    evaluate: Evaluate | None = None,
) -> dict[str, Any]:
    """Runs what has not been run yet, then writes the report on all of it.

    Args:
      study: what to run.
      workdir: where; a study that was stopped goes on from there, and more seeds or tags may be
        asked for.
      seeds: see `amend`.
      overrides: see `amend`; a list is several values (unless the field is a tuple, whose value it
        is), each of which is run with each of the other lists', under a tag of its own, such as
        `data_cc,optim.lr=0.001`.
      train: trains, or goes on with, one run; returns validation metrics.
      evaluate: reads the test split with a run's best checkpoint.

    Returns:
      The report as `report.write` returns it.

    Raises:
      UsageError: wrong settings, or other settings than the workdir's runs have.
    """
    fixed = dict(overrides or {})
    grid = {path: fixed.pop(path) for path in [*fixed] if _several(path, fixed[path])}
    runs = []
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        point = "".join(f",{path}={value}".replace("/", "-") for path, value in chosen.items())
        amended = amend(study, seeds=seeds, overrides=fixed | chosen)
        runs += plan(amended, workdir, point=point)
    told = {path: ", ".join(map(str, values)) for path, values in grid.items()}
    study = amend(study, seeds=seeds, overrides=fixed | told)  # for the page
    for run in runs:
        claim_folder(run)
    done = [read(run) for run in runs if run.finished]
    left = [run for run in runs if not run.finished]
    for number, run in enumerate(left):
        _announce(run, number, left, done)
        done.append(_execute(run, train or _train, evaluate or _evaluate))
    results = sorted(done, key=lambda result: runs.index(result.run))
    matched = [result for result in results if result.run.test]
    folder = pathlib.Path(workdir).resolve()
    best = _mark_best(matched, folder)
    at_best = best["tag"], best["seed"]
    probe.complete(result.run for result in matched)
    examples.complete(next(r for r in matched if (r.run.tag, r.run.seed) == at_best))
    return report.write(study, matched, folder, best=best)


def _several(path: str, value: Any) -> bool:
    """Whether a setting is a list of values, and not a tuple field's one value as a list.

    Raises:
      UsageError: a list for a field that is not there.
    """
    if not isinstance(value, list) or path in ("scale", "level"):
        return isinstance(value, list)
    kind = hint(path if path.startswith("test.") else f"config.{path}")
    if get_origin(fields.parts(kind)[0]) is not tuple:
        return True
    try:
        return bool([fields.typed(item, kind, path) for item in value])
    except UsageError:
        return False


def _execute(run: Run, train: Train, evaluate: Evaluate) -> Result:
    start = time.monotonic()
    validation = train(run.config, str(run.folder))
    test, ranks = evaluate(run.config, str(run.folder), run.test) if run.test else ({}, {})
    seconds = time.monotonic() - start
    store(run, seconds=seconds, validation=validation, test=test, ranks=ranks)
    return read(run)


def _announce(run: Run, number: int, left: Sequence[Run], done: Sequence[Result]) -> None:
    from rich.markup import escape

    taken: dict[str, list[float]] = {}
    for result in done:
        taken.setdefault(result.run.tag, []).append(result.seconds)
    typical = np.mean([result.seconds for result in done]) if done else 0
    rest = sum(float(np.mean(taken.get(r.tag, typical))) for r in left[number:])
    time_left = f", about {rest / 60:.0f} min left" if done else ""
    tag = f"[bold]{escape(run.tag)}[/bold]"
    progress.console().rule(f"run {number + 1} of {len(left)}: {tag} seed {run.seed}{time_left}")


def _mark_best(results: Sequence[Result], workdir: pathlib.Path) -> dict[str, Any]:
    """Notes the run with the best validation score in `best.json`, and links `best` to it."""
    best = max(results, key=lambda result: result.validation[result.run.config.eval.best])
    metric = best.run.config.eval.best
    folder = best.run.folder.relative_to(workdir)
    values = {"tag": best.run.tag, "seed": best.run.seed, "workdir": folder.as_posix()}
    values |= {"metric": metric, "value": best.validation[metric]}
    write_json(workdir / "best.json", values)
    link = workdir / "best.part"
    link.unlink(missing_ok=True)
    link.symlink_to(folder, target_is_directory=True)
    os.replace(link, workdir / "best")
    return values


def _train(config: Config, workdir: str) -> Mapping[str, float]:
    import jax

    from mmt_jax.infer import retrieval
    from mmt_jax.train import loop

    jax.clear_caches()  # of the run before, in memory
    gc.collect()
    cache = "jax_compilation_cache_dir"  # on disk, for the other seeds of the same variant
    if not jax.config.values[cache]:
        jax.config.update(cache, str(pathlib.Path(workdir).parents[2] / "compiled"))

    loop.train(config, workdir, evaluator=retrieval.evaluator)
    return _best_evaluation(config, pathlib.Path(workdir))


def _best_evaluation(config: Config, workdir: pathlib.Path) -> dict[str, float]:
    """What was said of the checkpoint that is kept as the best; of equals, the last."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    evaluations = [entry for entry in map(json.loads, lines) if config.eval.best in entry]
    return max(reversed(evaluations), key=lambda entry: entry[config.eval.best], default={})


def _evaluate(
    config: Config, workdir: str, test: Test
) -> tuple[Mapping[str, float], Mapping[str, np.ndarray]]:
    import jax

    from mmt_jax.infer import retrieval
    from mmt_jax.train import checkpoint

    trained = checkpoint.load(workdir, which="best")
    examples = test.examples(trained.config, stored_tokenizer(workdir))
    found = retrieval.evaluate(
        trained.model, trained.params, examples, pairs=test.pairs, progress=True
    )
    ranks = {"image_retrieval": found.image_ranks, "text_retrieval": found.text_ranks}
    size = sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(trained.params))
    return {**found.flat(), PARAMETERS: size}, ranks | {"photos": found.caption_to_image}
