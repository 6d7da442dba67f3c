"""What the page shows of a run's retrieval: queries, and the pictures that were found for them."""

from __future__ import annotations

import html

from mmt_jax.errors import UsageError
from mmt_jax.infer import document
from mmt_jax.photos import pictures
from mmt_jax.study import probe
from mmt_jax.study.examples import Example, drawing
from mmt_jax.study.findings import Findings

SIDE = 160  # pixels of a picture at most, twice what the page shows

STYLE = """
.found { display: flex; flex-wrap: wrap; gap: .6rem; margin: .3rem 0 1.6rem; padding: 0;
  list-style: none; }
.found li { width: min(7.2rem, 30%); font-size: .8rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.found img { display: block; width: 100%; border: 3px solid var(--line); border-radius: .3rem; }
.generated img { image-rendering: pixelated; }
.found .right img { border-color: #2a7f62; } .found .right b { color: #2a7f62; }
"""


def examples(findings: Findings) -> list[str]:
    """The section of the best run's examples; nothing where it has none."""
    if not findings.examples:
        return []
    best = findings.best
    test = next(
        result.tested_on
        for result in findings.results
        if (result.run.tag, result.run.seed) == (best["tag"], best["seed"])
    )
    if not (picture := drawing(test.source, test.split)):
        return []
    kind = "found generated" if probe.generated(test.source) else "found"
    names = {photo for example in findings.examples for photo in example.found}
    try:
        drawn = {name: document.picture(pictures.at_most(picture(name), SIDE)) for name in names}
    except (UsageError, LookupError):  # some have gone since
        return []
    parts = [
        "<h2>What it finds</h2>",
        f"<p>Queries of {html.escape(f'{test.source} {test.split}')} and the photos that "
        f"<code>{html.escape(best['tag'])}</code>, seed {best['seed']}, scores highest, with their "
        f"scores. Framed in green: the query's own photo, which stands last where it is not among "
        f"the first five. The queries are those at the quartiles of its rank.</p>",
    ]
    for example in findings.examples:
        parts += _example(example, drawn, kind)
    return parts


def _example(example: Example, drawn: dict[str | int, str], kind: str) -> list[str]:
    items = []
    for place, (photo, score) in enumerate(zip(example.found, example.scores), 1):
        right = photo == example.photo
        rank = example.rank if right else place
        name = html.escape(f"photo {photo}")
        items.append(
            f'<li{" class=right" if right else ""}><img src="{drawn[photo]}" alt="{name}">'
            f"<b>{rank}.</b> {score:.2f}{' right' if right else ''}</li>"
        )
    return [
        f"<p><b>{html.escape(example.caption)}</b> <small>{example.which}, rank "
        f"{example.rank}</small></p>",
        f'<ol class="{kind}">{"".join(items)}</ol>',
    ]
