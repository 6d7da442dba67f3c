"""What a study found: its table, and its verdict on every claim."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmt_jax.configs.config import Study
from mmt_jax.data import sources
from mmt_jax.scenes.probe import KINDS
from mmt_jax.study import claims, corpora, examples, probe, stats, verdicts
from mmt_jax.study.results import Result

SHOWN = tuple(  # of the metrics, in the table
    f"{way}_retrieval/{metric}"
    for way in ("image", "text")
    for metric in ("r@1", "r@5", "r@10", "median_rank")
)

PARAMETERS = "parameters"  # how many, beside what a run scored


@dataclasses.dataclass(frozen=True)
class Row:
    """A tag over its seeds."""

    tag: str
    seeds: int
    metrics: Mapping[str, stats.Interval]
    seconds: float  # of one run, on average
    parameters: int | None = None  # not known of runs that were finished before they were counted


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the page says, before it is laid out."""

    study: Study
    results: Sequence[Result]
    table: Sequence[Row]  # best first
    verdicts: Sequence[verdicts.Verdict]
    corpora: Mapping[str, corpora.Properties]
    best: Mapping[str, Any]
    chance: float  # of `claims.METRIC`
    # Of tests on generated scenes alone, and of runs that were asked:
    mistakes: Mapping[str, Mapping[str, stats.Interval]]  # by tag and kind, accuracy of the probe
    confusions: Mapping[str, Sequence[probe.Confusion]]  # of the best tag, by kind
    examples: Sequence[examples.Example]  # of the best run

    @property
    def scores(self) -> dict[str, float]:
        """The mean score of each tag."""
        return {row.tag: row.metrics[claims.METRIC].mean for row in self.table}


def find(study: Study, results: Sequence[Result], *, best: Mapping[str, Any]) -> Findings:
    """Computes the table and judges every claim."""
    by_tag: dict[str, list[Result]] = {}
    for result in results:
        by_tag.setdefault(result.run.tag, []).append(result)
    scores = {
        tag: {r.run.seed: r.test[claims.METRIC] for r in runs} for tag, runs in by_tag.items()
    }
    configs = {tag: runs[0].run.config for tag, runs in by_tag.items()}
    described = _corpora(by_tag)
    photos, _ = results[0].ranks("text_retrieval")
    chance = 1 / len(photos)  # of `claims.METRIC`, R@1
    table = [_row(tag, runs) for tag, runs in by_tag.items()]
    probes = {tag: probe.answered(runs) for tag, runs in by_tag.items()}
    (at_best,) = [r for r in by_tag[best["tag"]] if r.run.seed == best["seed"]]
    return Findings(
        study=study,
        results=results,
        table=sorted(table, key=lambda row: -row.metrics[claims.METRIC].mean),
        verdicts=[
            verdicts.judge(claim, scores, configs=configs, corpora=described, chance=chance)
            for claim in claims.CLAIMS.values()
        ],
        corpora=described,
        best=best,
        chance=chance,
        mistakes={tag: _mistakes(asked) for tag, asked in probes.items() if asked},
        confusions={
            kind: probe.confusions(probes[best["tag"]], kind) for kind in ("colour", "shape")
        },
        examples=examples.read(at_best.run.folder),
    )


def _row(tag: str, runs: Sequence[Result]) -> Row:
    names = [name for name in SHOWN if name in runs[0].test]
    return Row(
        tag,
        len(runs),
        {name: _interval(name, runs) for name in names},
        float(np.mean([run.seconds for run in runs])),
        int(count) if (count := runs[0].test.get(PARAMETERS)) else None,
    )


def _interval(metric: str, runs: Sequence[Result]) -> stats.Interval:
    """Over seeds; of a single one, over the photos that it was asked for."""
    values = [run.test[metric] for run in runs]
    way, _, k = metric.partition("/r@")
    if len(runs) > 1 or not k:
        return stats.t_interval(values)
    ranks, photos = runs[0].ranks(way)
    return stats.bootstrap_interval(ranks <= int(k), photos)


def _mistakes(asked: Sequence[probe.Probe]) -> dict[str, stats.Interval]:
    """By kind: over seeds; of a single one, over the photos."""
    if len(asked) == 1:
        return {kind: asked[0].accuracy(kind) for kind in KINDS}
    return {kind: stats.t_interval([p.answers(kind)[0].mean() for p in asked]) for kind in KINDS}


def _corpora(by_tag: Mapping[str, Sequence[Result]]) -> dict[str, corpora.Properties]:
    """Of the tags that correlations of corpora need, once there are enough of them to rank."""
    needed = {
        tag
        for claim in claims.CLAIMS.values()
        for comparison in claim.comparisons
        if isinstance(comparison, claims.Correlation)
        for tag in (*comparison.tags, *comparison.more)
    }
    configs = {tag: runs[0].run.config for tag, runs in by_tag.items() if tag in needed}
    if len({config.data.source for config in configs.values()}) < 3:
        return {}
    target, split = sources.eval_source(next(iter(configs.values())))
    return corpora.properties(configs, target=target, split=split)


def curve(runs: Sequence[Result], name: str) -> tuple[list[int], list[stats.Interval]]:
    """A metric of `metrics.jsonl` by step, over the runs that logged it there."""
    values: dict[int, list[float]] = {}
    for run in runs:
        path = run.run.folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        for entry in map(json.loads, lines):
            if entry.get(name) is not None:
                values.setdefault(entry["step"], []).append(entry[name])
    steps = sorted(values)
    return steps, [stats.t_interval(values[step]) for step in steps]
