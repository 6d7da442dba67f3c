"""The page: one HTML file that needs nothing beside it."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence

from mmt_jax.configs.config import as_dict
from mmt_jax.data import sources
from mmt_jax.infer import document
from mmt_jax.study import claims, corpora, figures, pictures, probe, stats, verdicts
from mmt_jax.study.findings import SHOWN, Findings, curve
from mmt_jax.study.results import Result

CURVES = 12  # variants in one figure of curves; more cannot be told apart
PROPERTIES = {
    "photos": "photos of the training split",
    "wrong": "share of wrong captions",
    "perplexity": "perplexity to a model of the target's captions",
}
MISTAKES = {  # what a foil says, see `scenes.probe`
    "colour": "a colour that nothing on the photo has",
    "shape": "a shape that nothing has",
    "relation": "the opposite relation",
    "binding": "the colours of the two objects exchanged",
    "subjects": "the two objects exchanged",
}
CONFUSED = 5  # pairs of a kind

STYLE = """
:root { --ink: #22262c; --soft: #68707a; --line: #e2e5e9; --paper: #fff; }
* { box-sizing: border-box; }
body { max-width: 68rem; color: var(--ink); background: var(--paper); line-height: 1.55; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem; }
p { max-width: 46rem; } .soft { color: var(--soft); } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .86rem;
  font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; border-bottom: 2px solid var(--line); }
th, td { padding: .34rem .7rem .34rem 0; vertical-align: top; }
td { border-bottom: 1px solid var(--line); } td.n, th.n { text-align: right; white-space: nowrap; }
small { color: var(--soft); } svg { min-width: 36rem; max-width: 100%; height: auto; }
summary { cursor: pointer; margin: .6rem 0; }
.badge { border-radius: 1rem; color: #fff; font-size: .78rem; padding: .1rem .6rem;
  white-space: nowrap; }
.warning { border-left: 3px solid #b5803a; padding-left: .8rem; }
code { font-size: .88em; }
@media (max-width: 44rem) {
  .verdicts thead { display: none; } .verdicts td { display: block; border: 0; padding: .2rem 0; }
  .verdicts tr { display: block; border-bottom: 1px solid var(--line); padding: .5rem 0; }
}
"""
STYLE += pictures.STYLE

_e = html.escape


def plots(findings: Findings) -> dict[str, str]:
    """The page's figures by name, as SVG."""
    drawn = {
        "scores": figures.bars(
            [(row.tag, row.metrics[claims.METRIC]) for row in findings.table],
            label="share of captions that find their photo first (R@1)",
            chance=(findings.chance, f"chance, 1 of {1 / findings.chance:,.0f} photos"),
        )
    }
    if shown := _asked(findings):
        drawn["mistakes"] = figures.dots(
            shown, label="true caption above the wrong one", chance=probe.CHANCE
        )
    compared = [
        (verdict.claim.id, outcome)
        for verdict in findings.verdicts
        for outcome in verdict.outcomes
        if outcome.test.startswith("paired")
    ]
    if compared:
        drawn["comparisons"] = figures.comparisons(compared)
    if findings.corpora:
        drawn["corpora"] = figures.scatter(
            [
                (label, [getattr(p, name) for p in findings.corpora.values()])
                for name, label in PROPERTIES.items()
            ],
            [findings.scores[tag] for tag in findings.corpora],
            [tag.removeprefix("data_") for tag in findings.corpora],
            score="R@1",
        )
    best = [row.tag for row in findings.table[:CURVES]]
    by_tag = {tag: [r for r in findings.results if r.run.tag == tag] for tag in best}
    labels = {tag: f"ITM loss, {_loss(runs[0])}" for tag, runs in by_tag.items()}
    for name, value, label in (
        ("training", "itm", labels),
        ("validation", claims.METRIC, dict.fromkeys(labels, "R@1, validation")),
    ):
        panels: dict[str, dict[str, tuple[list[int], list[stats.Interval]]]] = {}
        for tag, runs in by_tag.items():
            if len((line := curve(runs, value))[0]) > 1:
                panels.setdefault(label[tag], {})[tag] = line
        if panels:
            drawn[name] = figures.curves(panels)
    return drawn


def _loss(result: Result) -> str:
    """The kind of loss on pairs; values of two kinds cannot be compared."""
    objective = result.run.config.objective
    return objective.itm if objective.loss == "softmax" else f"{objective.itm}, {objective.loss}"


def render(findings: Findings, drawn: Mapping[str, str]) -> str:
    """The whole page; `drawn` is from `plots`."""
    plotted = {name: f'<div class="scroll">{svg}</div>' for name, svg in drawn.items()}
    study = findings.study
    title = f"Study: {study.name}"
    body = [
        f"<h1>{_e(title)}</h1>",
        _summary(findings),
        "<h2>Verdicts</h2>",
        _verdicts(findings.verdicts),
        "<h2>Scores</h2>",
        _scores(findings),
        plotted["scores"],
        *(_mistakes(findings, plotted["mistakes"]) if "mistakes" in plotted else []),
        *pictures.examples(findings),
        *(["<h2>Comparisons</h2>", plotted["comparisons"]] if "comparisons" in plotted else []),
        *(_corpora(findings, plotted["corpora"]) if findings.corpora else []),
        *_curves(
            findings, [plotted[name] for name in ("training", "validation") if name in plotted]
        ),
        "<h2>How this was tested</h2>",
        _method(),
        "<h2>Settings</h2>",
        _settings(findings),
    ]
    return document.page(title, STYLE, body)


def _summary(findings: Findings) -> str:
    best, minutes = findings.best, sum(result.seconds for result in findings.results) / 60
    spoken = [verdict for verdict in findings.verdicts if verdict.spoken_to]
    counts = ", ".join(
        f"{sum(v.verdict == kind for v in spoken)} {kind}" for kind in figures.COLOURS
    )
    lines = [
        f"{len(findings.results)} runs of {len(findings.table)} variants, {minutes:,.0f} minutes. "
        f"Of {len(claims.CLAIMS)} claims these runs speak to {len(spoken)}: {counts}.",
        f"Best by validation: <code>{_e(best['tag'])}</code>, seed {best['seed']} "
        f"({_e(best['metric'])} {best['value']:.3f}).",
    ]
    protocols = dict.fromkeys(map(_protocol, findings.results))
    lines += [f'<span class="soft">{text}</span>' for text in protocols]
    return "".join(f"<p>{line}</p>" for line in lines)


def _protocol(result: Result) -> str:
    """Which split was used for what."""
    config, test = result.run.config, result.tested_on
    source, split = sources.eval_source(config)
    text = (
        f"Checkpoints, and the best run, were chosen by {config.eval.best} on {source} {split} "
        f"({config.eval.limit or 'all'} photos); all scores below are of {test.source} {test.split}"
        f" ({test.limit or 'all'} photos with all their captions), read once, after training."
    )
    if (source, split) == (test.source, test.split):
        return (
            f'<span class="warning">{_e(text)} These are the same photos, so the scores are '
            f"somewhat flattered by that choice.</span>"
        )
    return _e(text)


def _verdicts(found: Sequence[verdicts.Verdict]) -> str:
    """Those that no run speaks to are folded away."""
    rows: list[list[str]] = []
    silent: list[list[str]] = []
    for verdict in found:
        claim = verdict.claim
        if verdict.spoken_to:
            colour = figures.COLOURS[verdict.verdict]
            badge = f'<span class="badge" style="background:{colour}">{verdict.verdict}</span>'
            why = [f"{_e(outcome.says)}: {_finding(outcome)}" for outcome in verdict.outcomes]
        else:
            badge = "<small>not spoken to</small>"
            why = sorted({_e(outcome.reason) for outcome in verdict.outcomes})
        note = f"<br><small>{_e(claim.note)}</small>" if claim.note else ""
        said = f"{_e(claim.statement)} <small>[{_e(claim.source)}]</small>{note}"
        (rows if verdict.spoken_to else silent).append([claim.id, said, badge, "<br>".join(why)])
    head = ["", "claim", "verdict", "comparisons"]
    table = _table(head, rows, name="verdicts") if rows else ""
    if silent:
        others = _table(head, silent, name="verdicts")
        summary = f"<summary>{len(silent)} claims that these runs do not speak to</summary>"
        table += f"<details>{summary}{others}</details>"
    return table


def _finding(outcome: verdicts.Outcome) -> str:
    if not outcome.test:
        return f"<small>{_e(outcome.reason)}</small>"
    value = f"{outcome.interval.mean:+.3f}"
    if math.isfinite(outcome.interval.low):
        value += f" [{outcome.interval.low:+.3f}, {outcome.interval.high:+.3f}]"
    tail = f"p = {outcome.p:.2g}, {outcome.test}"
    tail += f"; {outcome.reason}" if outcome.reason else ""
    colour = figures.COLOURS[outcome.verdict]
    return f'<b style="color:{colour}">{outcome.verdict}</b> {value} <small>{_e(tail)}</small>'


def _scores(findings: Findings) -> str:
    names = [name for name in SHOWN if name in findings.table[0].metrics]
    counts = {row.tag: f"{row.parameters:,}" if row.parameters else "" for row in findings.table}
    counted = any(counts.values())
    head = ["variant", "seeds", *["parameters"] * counted, *names, "minutes a run"]
    rows = [
        [f"<code>{_e(row.tag)}</code>", str(row.seeds), *[counts[row.tag]] * counted]
        + [_number(row.metrics[name], share="/r@" in name) for name in names]
        + [f"{row.seconds / 60:.1f}"]
        for row in findings.table
    ]
    methods = {row.metrics[name].method for row in findings.table for name in names} - {"none"}
    method = f"In small type: 95 % intervals, {_e(', '.join(sorted(methods)))}." if methods else ""
    beside = "Beside this page: scores.csv and scores.tex, this table; runs.csv, a line a run."
    return _table(head, rows, numbers=1) + f'<p class="soft">{method} {beside}</p>'


def _number(interval: stats.Interval, *, share: bool) -> str:
    digits = 3 if share else 1
    text = f"{interval.mean:.{digits}f}"
    if math.isfinite(interval.low):
        low, high = max(interval.low, 0), min(interval.high, 1) if share else interval.high
        text += f" <small>{low:.{digits}f}–{high:.{digits}f}</small>"
    return text


def _asked(findings: Findings) -> dict[str, Mapping[str, stats.Interval]]:
    """Accuracies by kind of mistake of the best variants, best first."""
    tags = [row.tag for row in findings.table[:CURVES]]
    return {tag: findings.mistakes[tag] for tag in tags if tag in findings.mistakes}


def _mistakes(findings: Findings, plot: str) -> list[str]:
    rows = [
        [
            f"<code>{_e(row.tag)}</code>",
            *(_number(interval, share=True) for interval in findings.mistakes[row.tag].values()),
        ]
        for row in findings.table
        if row.tag in findings.mistakes
    ]
    kinds = ", ".join(f"<b>{kind}</b>: {_e(text)}" for kind, text in MISTAKES.items())
    confused = [
        f"{kind}s: " + ", ".join(f"{c.one} and {c.other} ({c.wrong} of {c.asked})" for c in pairs)
        for kind, found in findings.confusions.items()
        if (pairs := [c for c in found[:CONFUSED] if c.wrong])
    ]
    hardest = (
        f"<p>Most often confused by <code>{_e(findings.best['tag'])}</code>, of how often each "
        f"pair was asked, over all its seeds: {_e('; '.join(confused))}.</p>"
    )
    return [
        "<h2>What attention is for, by kind of mistake</h2>",
        f"<p>How often a true caption, such as “a red star left of a blue ring”, scores above one "
        f"that is wrong in a single way; chance is {probe.CHANCE:.2f}, and a tie counts as wrong. "
        f"{kinds}.</p>",
        plot,
        _table(["wrong in", *MISTAKES], rows, numbers=1),
        hardest if confused else "",
    ]


def _corpora(findings: Findings, plot: str) -> list[str]:
    table = findings.corpora
    scores = [findings.scores[tag] for tag in table]
    columns = {name: [getattr(p, name) for p in table.values()] for name in PROPERTIES}
    rows = []
    for (tag, p), score in zip(table.items(), scores, strict=True):
        numbers = [f"{p.photos:,}", f"{p.wrong:.0%}", f"{p.perplexity:,.0f}", f"{score:.3f}"]
        rows.append([f"<code>{_e(tag)}</code>", *numbers])
    found = {name: stats.spearman(values, scores) for name, values in columns.items()}
    tests = "; ".join(
        f"{PROPERTIES[name]}: ρ = {rho:+.2f}, p = {p:.2g}" for name, (rho, p) in found.items()
    )
    return [
        "<h2>Corpora</h2>",
        _table(["corpus", *PROPERTIES.values(), claims.METRIC], rows, numbers=1),
        plot,
        f"<p>Rank correlation with the score, one property at a time, by permutation of "
        f"{len(table)} corpora: {tests}.</p>",
        f'<p class="soft">Perplexity: of the captions of the first {corpora.PHOTOS:,} photos of a '
        f"corpus, under a trigram model (Witten and Bell's smoothing) of the captions that "
        f"checkpoints are chosen on; less is closer.</p>",
    ]


def _curves(findings: Findings, drawn: Sequence[str]) -> list[str]:
    left_out = len(findings.table) > CURVES
    said = [f"The {CURVES} best variants."] if left_out else []
    if any(row.seeds > 1 for row in findings.table):
        said.append("Bands are 95 % intervals over seeds.")
    note = f'<p class="soft">{" ".join(said)}</p>' if said else ""
    return ["<h2>Training</h2>", note, *drawn] if drawn else []


def _method() -> str:
    paragraphs = (verdicts.__doc__ or "").split("\n\n")[1:]
    blocks = []
    for paragraph in paragraphs:
        lead, *points = paragraph.split("\n* ")
        if lead.startswith("* "):
            lead, points = "", [lead[2:], *points]
        blocks.append(f"<p>{_plain(lead)}</p>" if lead else "")
        items = "".join(f"<li>{_plain(point)}</li>" for point in points)
        blocks.append(f"<ul>{items}</ul>" if items else "")
    return "".join(blocks)


def _plain(text: str) -> str:
    """Docstring text as HTML."""
    parts = _e(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


def _settings(findings: Findings) -> str:
    study = findings.study
    rows = [["tags", _e(", ".join(study.tags))], ["seeds", str(study.seeds)]]
    rows += [["scale", _e(study.scale)]]
    rows += [[f"<code>{_e(k)}</code>", _e(str(v))] for k, v in study.overrides.items()]
    rows += [[f"<code>test.{_e(k)}</code>", _e(str(v))] for k, v in as_dict(study.test).items()]
    return _table(["setting", "value"], rows)


def _table(
    head: Iterable[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: int | None = None,
    name: str = "",
) -> str:
    """`head` is text, cells are HTML; columns from `numbers` on are set as numbers.

    `name` is the table's in STYLE.
    """

    def cells(kind: str, values: Iterable[str]) -> str:
        return "".join(
            f'<{kind} class="n">{v}</{kind}>'
            if numbers is not None and i >= numbers
            else f"<{kind}>{v}</{kind}>"
            for i, v in enumerate(values)
        )

    lines = [f"<tr>{cells('td', row)}</tr>" for row in rows]
    table = f'<table class="{name}">' if name else "<table>"
    return (
        f'<div class="scroll">{table}<thead><tr>{cells("th", map(_e, head))}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
