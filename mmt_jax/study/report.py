"""Writes what a study found: values to go on with (JSON, CSV), figures, and one page to read."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mmt_jax.configs.config import Study
from mmt_jax.study import claims, page, probe, stats
from mmt_jax.study.findings import Findings, Row, find
from mmt_jax.study.results import Result, write_json, write_text

PAGE, CSV, JSON = "report.html", "runs.csv", "report.json"
SCORES, LATEX = "scores.csv", "scores.tex"  # the page's table
FIGURES = "figures"


def write(
    study: Study, results: Sequence[Result], workdir: pathlib.Path, *, best: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes the page, its figures, tables (CSV, LaTeX) and the JSON into `workdir`.

    Results are of runs that match pairs, listed in this order; `best` is the run to be exported.
    What the JSON holds: NaN and infinite numbers are None.
    """
    findings = find(study, results, best=best)
    values = as_json(findings)
    write_json(workdir / JSON, values)
    write_text(workdir / CSV, as_csv(results))
    write_text(workdir / SCORES, scores_csv(findings.table))
    write_text(workdir / LATEX, scores_latex(findings.table))
    drawn = page.plots(findings)
    for name, svg in drawn.items():
        write_text(workdir / FIGURES / f"{name}.svg", svg)
    for path in (workdir / FIGURES).glob("*.svg"):
        if path.stem not in drawn:  # of a report before
            path.unlink()
    write_text(workdir / PAGE, page.render(findings, drawn))
    return values


def as_csv(results: Sequence[Result]) -> str:
    """A line a run."""
    scores = [_scores(result) for result in results]
    metrics = list(dict.fromkeys(name for row in scores for name in row))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    settings = ("tag", "seed", "steps", "batch_size", "candidates", "train", "test", "seconds")
    writer.writerow([*settings, "validation", *metrics])
    for result, row in zip(results, scores, strict=True):
        config, test = result.run.config, result.tested_on
        writer.writerow(
            [
                result.run.tag,
                result.run.seed,
                config.steps,
                config.batch_size,
                config.objective.candidates,
                f"{config.data.source} {config.data.split}",
                f"{test.source} {test.split}",
                round(result.seconds, 1),
                result.validation[config.eval.best],
                *(row.get(name) for name in metrics),
            ]
        )
    return buffer.getvalue()


def _scores(result: Result) -> dict[str, float]:
    """Of the test split, and by kind of mistake where that was asked."""
    probed = probe.Probe.read(result.run.folder)
    return {**result.test, **(probed.flat() if probed else {})}


def scores_csv(table: Sequence[Row]) -> str:
    """A line a variant, best first: each metric's mean and the ends of its interval."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = list(table[0].metrics)
    ends = [f"{name}{end}" for name in names for end in ("", " low", " high")]
    writer.writerow(["tag", "seeds", "parameters", *ends, "seconds"])
    for row in table:
        found = [row.metrics[name] for name in names]
        numbers = [_clean(end) for i in found for end in (i.mean, i.low, i.high)]
        writer.writerow([row.tag, row.seeds, row.parameters, *numbers, round(row.seconds, 1)])
    return buffer.getvalue()


def scores_latex(table: Sequence[Row]) -> str:
    """The same as a tabular that needs no package: means, and half the interval's width."""
    names = list(table[0].metrics)
    lines = [[r"variant", "parameters", *(name.replace("_retrieval/", " ") for name in names)]]
    for row in table:
        size = "" if row.parameters is None else f"{row.parameters / 1e6:.2f}M"
        lines.append([row.tag, size, *(_cell(name, row.metrics[name]) for name in names)])
    rows = [" & ".join(map(_escaped, line)) + r" \\" for line in lines]
    head = f"\\begin{{tabular}}{{l{'r' * (len(names) + 1)}}}"
    return "\n".join(
        [head, r"\hline", rows[0], r"\hline", *rows[1:], r"\hline", r"\end{tabular}", ""]
    )


def _cell(name: str, found: stats.Interval) -> str:
    digits = 3 if "/r@" in name else 1
    half = (found.high - found.low) / 2
    return f"{found.mean:.{digits}f}" + (f" ± {half:.{digits}f}" if math.isfinite(half) else "")


def _escaped(text: str) -> str:
    """Plain text as LaTeX."""
    text = text.replace("\\", r"\textbackslash ")
    for sign in "_&%$#{}":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("±", r"$\pm$").replace("~", r"\textasciitilde ").replace("^", r"\^{}")


def as_json(findings: Findings) -> dict[str, Any]:
    """Everything that was found."""
    found = {
        "study": findings.study.name,
        "seeds": findings.study.seeds,
        "overrides": dict(findings.study.overrides),
        "metric": claims.METRIC,
        "best": dict(findings.best),
        "table": [dataclasses.asdict(row) for row in findings.table],
        "claims": [
            {
                "id": verdict.claim.id,
                "statement": verdict.claim.statement,
                "source": verdict.claim.source,
                "verdict": verdict.verdict if verdict.spoken_to else None,
                "missing": list(verdict.missing),
                "comparisons": [dataclasses.asdict(o) for o in verdict.outcomes],
            }
            for verdict in findings.verdicts
        ],
        "mistakes": {
            tag: {kind: dataclasses.asdict(i) for kind, i in kinds.items()}
            for tag, kinds in findings.mistakes.items()
        },
        "corpora": {tag: dataclasses.asdict(p) for tag, p in findings.corpora.items()},
        "runs": [
            {"seconds": r.seconds, "validation": r.validation, "scores": _scores(r)}
            | {"tag": r.run.tag, "seed": r.run.seed, **r.run.settings}
            for r in findings.results
        ],
    }
    return _clean(found)


def _clean(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {name: _clean(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
