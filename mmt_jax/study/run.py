"""Runs a study: each variant with each seed, in turn or side by side, resuming where it stopped.

A workdir holds `runs/<tag>/seed<k>`, one training workdir each with what `results` adds to it;
`best`, a link to the run with the best validation score; and the report.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmt_jax import progress
from mmt_jax.configs.config import Config, Study
from mmt_jax.errors import UsageError
from mmt_jax.study import examples, parallel, probe, report
from mmt_jax.study.findings import PARAMETERS
from mmt_jax.study.plan import amend, plan, several
from mmt_jax.study.results import Result, Run, Test, claim_folder, read, store, write_json
from mmt_jax.text.vocabulary import stored_tokenizer

Train = Callable[[Config, str], Mapping[str, float]]
# (config, workdir, test) → metrics, and the ranks that `results.Result.ranks` reads.
Evaluate = Callable[[Config, str, Test], tuple[Mapping[str, float], Mapping[str, np.ndarray]]]


def ablate(
    study: Study,
    workdir: str | os.PathLike,
    *,
    seeds: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    jobs: int = 1,
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
      jobs: how many runs go on side by side. With more than one each has a process of its own,
        which shares the devices with the others and writes what it says into
        `runs/<tag>/seed<k>.log`. A script that asks for more guards what it does by
        `if __name__ == "__main__"`, for each process imports it.
      train: trains, or goes on with, one run; returns validation metrics. This and `evaluate` are
        for one job.
      evaluate: reads the test split with a run's best checkpoint.

    Returns:
      The report as `report.write` returns it.

    Raises:
      UsageError: no jobs, wrong settings, or other settings than the workdir's runs have.
    """
    if jobs < 1:
        raise UsageError(f"{jobs} runs side by side are none; give 1 or more")
    if jobs > 1 and (train or evaluate):
        raise UsageError("a train or evaluate of one's own works with jobs=1 alone")
    if jobs > 1:  # or each process, this one too, would take most of a GPU's memory for itself
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    fixed = dict(overrides or {})
    grid = {path: fixed.pop(path) for path in [*fixed] if several(path, fixed[path])}
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
    if jobs > 1:
        with contextlib.closing(parallel.carry_out(left, _alone, jobs=jobs)) as ended:
            for run in ended:
                done.append(read(run))
                progress.say(f"{run.tag} seed {run.seed} took {done[-1].seconds:,.0f} s")
    else:
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


def _execute(run: Run, train: Train, evaluate: Evaluate) -> Result:
    start = time.monotonic()
    validation = train(run.config, str(run.folder))
    test, ranks = evaluate(run.config, str(run.folder), run.test) if run.test else ({}, {})
    seconds = time.monotonic() - start
    store(run, seconds=seconds, validation=validation, test=test, ranks=ranks)
    return read(run)


def _alone(run: Run) -> None:
    """What a process of `parallel.carry_out` does."""
    _execute(run, _train, _evaluate)


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
