"""A view as one HTML file that needs nothing beside it."""

from __future__ import annotations

import html
import json

import numpy as np

from mmt_jax.infer import document
from mmt_jax.infer.show.view import View

_STYLE = """
svg { width: 100%; height: auto; } rect { fill: #ffd400; fill-opacity: 0; stroke: #e8590c; }
text { fill: #fff; stroke: #000; paint-order: stroke; }
h1 { font-size: 1.3rem; } h1 span { cursor: default; padding: 0 .1em; border-radius: .2em; }
h1 span:hover { background: #ffd400; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
td, th { padding: .15rem .45rem; text-align: right; } th { text-align: left; }
div { overflow-x: auto; }
"""
# Where the mouse is on a word, boxes are as bright as the word's attention to them.
_SCRIPT = """
const attention = %s, boxes = document.querySelectorAll('rect');
document.querySelectorAll('[data-word]').forEach(word => {
  const row = attention[word.dataset.word], most = Math.max(...row);
  word.onmouseenter = () => boxes.forEach((b, i) => b.style.fillOpacity = .7 * row[i] / most);
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
        body.append(_table(view))
    if told and told.attention is not None:
        weights = json.dumps(np.round(told.attention.astype(float), 5).tolist())
        body.append(f"<script>{_SCRIPT % weights}</script>")
    return document.page(view.caption, _STYLE, body)


def _photo(view: View) -> str:
    height, width = view.picture.shape[:2]
    size = max(height, width) / 60
    parts = [
        f'<svg viewBox="0 0 {width} {height}" font-size="{size:.2f}" stroke-width="{size / 8:.2f}">'
        f'<image href="{document.picture(view.picture)}" width="{width}" height="{height}"/>'
    ]
    for number, (box, name) in enumerate(zip(view.boxes, view.names, strict=True), 1):
        ymin, xmin, ymax, xmax = (box * [height, width, height, width]).tolist()
        parts.append(
            f'<rect x="{xmin:.1f}" y="{ymin:.1f}" width="{xmax - xmin:.1f}" '
            f'height="{ymax - ymin:.1f}"><title>{number} {html.escape(name)}</title></rect>'
        )
        parts.append(f'<text x="{xmin:.1f}" y="{ymin + size:.1f}">{number}</text>')
    return "\n".join([*parts, "</svg>"])


def _table(view: View) -> str:
    """Regions down, words across: attention; last, how log odds change without either."""
    told = view.explanation
    assert told is not None
    header = "".join(f"<th>{html.escape(word)}</th>" for word in told.words)
    rows = [f"<tr><th>region</th>{header}<th>without it</th></tr>"]
    most = 1.0 if told.attention is None else told.attention.max(initial=1e-9)
    for i, name in enumerate(view.names):
        cells = "<td></td>" * len(told.words)
        if told.attention is not None:
            cells = "".join(
                f'<td style="background:rgb(255 212 0/{value / most:.2f})">{value:.3f}</td>'
                for value in told.attention[:, i]
            )
        rows.append(
            f"<tr><th>{i + 1} {html.escape(name)}</th>{cells}"
            f"<td>{_signed(told.region_changes[i])}</td></tr>"
        )
    changes = "".join(f"<td>{_signed(value)}</td>" for value in told.word_changes)
    rows.append(f"<tr><th>without the word</th>{changes}<td></td></tr>")
    note = "Attention of words to regions, and how the log odds of a match change without either."
    return f'<p class="soft">{note}</p>\n<div><table>\n' + "\n".join(rows) + "\n</table></div>"


def _signed(value: float) -> str:
    return "" if np.isnan(value) else f"{value:+.3f}"
