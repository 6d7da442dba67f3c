"""A contact sheet of what was found: one HTML file that needs nothing beside it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

from mmt_jax.infer import document
from mmt_jax.infer.search.index import Hit, Index

_STYLE = """
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; } small { color: #68707a; }
ol { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr));
  list-style: none; padding: 0; }
li { border: 1px solid #e2e5e9; border-radius: .4rem; overflow: hidden; }
img { display: block; width: 100%; }
p { margin: .5rem .7rem; font-size: .86rem; } b { font-variant-numeric: tabular-nums; }
"""


def render(
    index: Index,
    captions: Sequence[str],
    found: Sequence[Sequence[Hit]],
    *,
    pixels: Mapping[int, np.ndarray],
    note: str = "",
) -> str:
    """The sheet: for each caption its photos, best first.

    Args:
      index: that was searched.
      captions: that were looked for.
      found: by `Index.search`.
      pixels: of photos, [H, W, 3] u8 each, by their place in the index; others get no picture.
      note: a line below the title.
    """
    title = f"Photos of {index.about.source or 'an index'}"
    body = [f"<h1>{html.escape(title)}</h1>", f'<p class="soft">{html.escape(note)}</p>']
    for caption, hits in zip(captions, found, strict=True):
        body.append(f"<h2>{html.escape(caption)}</h2>\n<ol>")
        body += [_card(index, rank, hit, pixels.get(hit.photo)) for rank, hit in enumerate(hits, 1)]
        body.append("</ol>")
    return document.page(title, _STYLE, body)


def _card(index: Index, rank: int, hit: Hit, pixels: np.ndarray | None) -> str:
    picture = "" if pixels is None else f'<img src="{document.picture(pixels)}" alt="">'
    captions = "<br>".join(html.escape(caption) for caption in index.captions[hit.photo])
    return (
        f"<li>{picture}<p><b>{rank}. {hit.score:.3f}</b> "
        f"<small>{html.escape(index.names[hit.photo])}</small><br>{captions}</p></li>"
    )
