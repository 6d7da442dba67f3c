"""What a study is made of: its settings, and the config and the test of each of its runs."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, get_origin

from mmt_jax.configs import fields, variants
from mmt_jax.configs.config import Config, EvalConfig, Study, as_dict, grouped, resolve
from mmt_jax.configs.overrides import changed, hint, load
from mmt_jax.configs.overrides import read as read_field
from mmt_jax.data import sources
from mmt_jax.errors import UsageError
from mmt_jax.infer import ranking
from mmt_jax.study.results import Run, Test
from mmt_jax.train import init
from mmt_jax.train.workdir import read_config

_BERT = variants.BERT.tag


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

    `point` is of a grid, and is added to the tags of its runs. `init_from` is BERT for the rows
    that start from BERT, and the others get its sizes and vocabulary alone; in a study without such
    rows it is what all start from, but for rows that start from another. UsageError: an unknown
    tag, a wrong override, a test split that is not there, nothing to compare, an `init_from` that
    is no BERT, or a row whose heads are what it is about and would be those of `init_from`.
    """
    folder = pathlib.Path(workdir).resolve() / "runs"
    rows = _with_pretraining(study)
    given = study.overrides.get("init_from")
    of_bert = any(recipe(row, study.scale).pretrained == _BERT for row in rows.values())
    origins = init.sources(given) if of_bert else []
    _check_bert(origins)
    if given:
        _check_heads(study, rows)
    runs = []
    for seed in range(study.seeds):
        for tag, row in rows.items():
            config = configure(study, row, seed)
            ranking.check_best(config.eval.best)
            if given and of_bert and config.pretrained != _BERT:
                config = init.beside(config, origins)
            if config.pretrained and not (config.init_from and config.pretrained == _BERT):
                start = folder / f"{config.pretrained}{point}" / f"seed{seed}"
                config = dataclasses.replace(config, init_from=str(start))
            name = f"{tag}{point}"
            test = _test(study, config)
            runs.append(Run(name, seed, config, test, folder / name / f"seed{seed}"))
    chosen_by = {run.config.eval.best: run.tag for run in runs if run.test}
    if not chosen_by:
        raise UsageError(f"study {study.name!r} has no variant that matches photos and captions")
    if len(chosen_by) > 1:
        said = " and ".join(f"{metric} in {tag}" for metric, tag in chosen_by.items())
        raise UsageError(f"config.eval.best is {said}; set one for all with --set=eval.best=…")
    return runs


def _check_bert(origins: Sequence[pathlib.Path]) -> None:
    """What stands in BERT's place is a language stack."""
    for folder in origins:
        if (family := read_config(folder).model.family) != "bert":
            raise UsageError(
                f"init_from is BERT in this study, and {folder} holds a model of the family "
                f"{family}; give a workdir that `mmt import --model=bert` made"
            )


def _check_heads(study: Study, rows: Mapping[str, str]) -> None:
    """Weights fix the heads of who starts from them, which are what some rows are about."""
    for tag in filter(variants.VARIANTS.__contains__, rows):
        models = (recipe(row, study.scale).model for row in (rows[tag], "data_cc"))
        if len({(model.heads, model.head_dim) for model in models}) > 1:
            raise UsageError(
                f"init_from fixes the number of heads, which is what {tag} is about; leave one out"
            )


def _with_pretraining(study: Study) -> dict[str, str]:
    """The rows by their configs' tags, each after the row that it starts from."""
    ordered: dict[str, str] = {}
    given = study.overrides.get("init_from")

    def visit(row: str) -> None:
        planned = recipe(row, study.scale)
        if not planned.tag:
            raise UsageError(f"the study's {row!r} makes a config without a tag; give it one")
        from_bert = planned.pretrained == _BERT
        if planned.pretrained and not (from_bert and (planned.init_from or given)):
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


def several(path: str, value: Any) -> bool:
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
