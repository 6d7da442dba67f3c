"""A view as one HTML file that needs nothing beside it."""

from __future__ import annotations

import html
import json

import numpy as np

from mmt_jax.infer import document
from mmt_jax.infer.show.explain import Explanation
from mmt_jax.infer.show.figure import MOST, TICKS
from mmt_jax.infer.show.view import DRAWN, View, apart

_STYLE = """
svg { display: block; width: 100%; height: auto; max-height: 75vh; }
svg image { image-rendering: pixelated; } rect { fill-opacity: 0; stroke: #e8590c; }
.bar { max-width: 24rem; height: .9rem; border: 1px solid #ccc;
  background: linear-gradient(90deg, rgb(84 39 136), #fff, rgb(230 97 1)); }
.ticks { display: flex; justify-content: space-between; max-width: 24rem; font-size: .8rem; }
text { pointer-events: none; fill: #fff; stroke: #000; paint-order: stroke; }
h1 { font-size: 1.3rem; } h1 span { cursor: default; padding: 0 .1em; border-radius: .2em; }
h1 span:hover { background: #ffd400; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
td, th { padding: .15rem .45rem; text-align: right; } th { text-align: left; }
div { overflow-x: auto; }
"""
# Where the mouse is on a word, boxes are coloured by the word's attention against an even share.
_SCRIPT = """
const attention = %s, boxes = document.querySelectorAll('rect');
document.querySelectorAll('[data-word]').forEach(word => {
  const row = attention[word.dataset.word];
  word.onmouseenter = () => boxes.forEach(b => {
    const heat = row[b.dataset.region];
    b.style.fill = heat > 0 ? 'rgb(230 97 1)' : 'rgb(84 39 136)';
    b.style.fillOpacity = .7 * Math.abs(heat);
  });
  word.onmouseleave = () => boxes.forEach(b => b.style.fillOpacity = 0);
});
"""


def render(view: View) -> str:
    """The page: caption, photo with boxes and, with a model, a table of words and regions."""
    told = view.explanation
    body = [f"<h1>{html.escape(view.caption)}</h1>", _photo(view)]
    if told:
        words = " ".join(
            f'<span data-word="{i}">{html.escape(word)}</span>' for i, word in enumerate(told.words)
        )
        body[0] = f"<h1>{told.probability:.3f} {words}</h1>"
        body[1:1] = _legend(told)
        body.append(_table(view))
    if told and told.attention is not None:
        weights = json.dumps(np.round(_heat(told), 3).tolist())
        body.append(f"<script>{_SCRIPT % weights}</script>")
    return document.page(view.caption, _STYLE, body)


def _photo(view: View) -> str:
    height, width = view.picture.shape[:2]
    size, text = max(height, width) / 50, []
    parts = [
        f'<svg viewBox="0 0 {width} {height}" font-size="{size:.2f}" stroke-width="{size / 8:.2f}">'
        f'<image href="{document.picture(view.picture)}" width="{width}" height="{height}"/>'
    ]
    # Where there are many, numbers alone; a sign is about 0.6 as wide as high.
    labels = (
        view.labels if len(view.names) <= DRAWN else [str(i + 1) for i in range(len(view.names))]
    )
    wanted = [
        (*box[[1, 0]] * [width, height], 0.6 * size * len(label), 1.2 * size)
        for box, label in zip(view.boxes, labels, strict=True)
    ]
    places = apart(np.array(wanted).reshape(-1, 4), width, height).tolist()
    # Small boxes stand on large ones, so that each can be pointed at.
    areas = np.prod(view.boxes[:, 2:] - view.boxes[:, :2], axis=1)
    for i in np.argsort(-areas, kind="stable"):
        box, name, label, (x, y) = view.boxes[i], view.labels[i], labels[i], places[i]
        ymin, xmin, ymax, xmax = (box * [height, width, height, width]).tolist()
        parts.append(
            f'<rect data-region="{i}" x="{xmin:.1f}" y="{ymin:.1f}" width="{xmax - xmin:.1f}" '
            f'height="{ymax - ymin:.1f}"><title>{html.escape(name)}</title></rect>'
        )
        text.append(f'<text x="{x:.2f}" y="{y + size:.2f}">{html.escape(label)}</text>')
    return "\n".join([*parts, *text, "</svg>"])


def _heat(told: Explanation) -> np.ndarray:
    """[W, R] in -1..1: attention against an even share, which is 0, by a logarithm."""
    even = told.against_even
    assert even is not None
    return np.log(even.astype(float).clip(1 / MOST, MOST)) / np.log(MOST)


def _legend(told: Explanation) -> list[str]:
    if told.attention is None:
        return [
            "<p class=soft>Point at a box for its name. This model's words read no regions.</p>"
        ]
    flat = "<b>flat: nothing learned.</b> " if told.flat else ""
    ticks = "".join(f"<span>{tick:g}×</span>" for tick in TICKS)
    return [
        f"<p class=soft>{flat}Point at a word of the caption: each box is coloured by how much the "
        f"word attends to it; 1× is an even share of {told.attention.shape[1]} regions. Point at "
        f"a box for its name.</p>",
        f'<div class="bar"></div><div class="ticks">{ticks}</div>',
    ]


def _table(view: View) -> str:
    """Regions down, words across: attention; last, how log odds change without either."""
    told = view.explanation
    assert told is not None
    header = "".join(f"<th>{html.escape(word)}</th>" for word in told.words)
    rows = [f"<tr><th>region</th>{header}<th>without it</th></tr>"]
    even = told.against_even
    for i, name in enumerate(view.labels):
        cells = "<td></td>" * len(told.words)
        if even is not None:
            heat = _heat(told)[:, i]
            cells = "".join(
                f'<td style="background:rgb({"230 97 1" if hot > 0 else "84 39 136"}'
                f'/{0.7 * abs(hot):.2f})">{value:.2f}</td>'
                for value, hot in zip(even[:, i], heat, strict=True)
            )
        rows.append(
            f"<tr><th>{html.escape(name)}</th>{cells}"
            f"<td>{_signed(told.region_changes[i])}</td></tr>"
        )
    changes = "".join(f"<td>{_signed(value)}</td>" for value in told.word_changes)
    rows.append(f"<tr><th>without the word</th>{changes}<td></td></tr>")
    note = (
        "Attention of words to regions, 1 = an even share, and how the log odds of a match change "
        "without either."
    )
    return f'<p class="soft">{note}</p>\n<div><table>\n' + "\n".join(rows) + "\n</table></div>"


def _signed(value: float) -> str:
    return "" if np.isnan(value) else f"{value:+.3f}"
