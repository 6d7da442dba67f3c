"""A contact sheet of what was found: one HTML file that needs nothing beside it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

from mmt_jax.infer import document
from mmt_jax.infer.search.index import Hit, Index

NOTHING = "nothing fits: not one of these is more likely a match than not"

_STYLE = """
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 1.5rem 0 .6rem; }
small { color: #68707a; }
ol { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr));
  list-style: none; padding: 0; }
li { border: 1px solid #e2e5e9; border-radius: .4rem; overflow: hidden; }
img { display: block; width: 100%; }
.query { max-width: 16rem; margin-bottom: 1rem; }
p { font-size: .86rem; } li p { margin: .5rem .7rem; } b { font-variant-numeric: tabular-nums; }
"""


def render(
    index: Index,
    queries: Sequence[tuple[str, np.ndarray | None]],
    found: Sequence[Sequence[Hit]],
    *,
    pixels: Mapping[int, np.ndarray],
    note: str = "",
) -> str:
    """The sheet: for each query what `Index.search` found, best first; and `note` below the title.

    A query is a caption, or the name of a photo with its pixels [H, W, 3] u8. `pixels` are of
    photos by image id; others get no picture.
    """
    what = "Photos" if index.about.side == "images" else "Captions"
    title = f"{what} of {index.about.source or 'an index'}"
    body = [f"<h1>{html.escape(title)}</h1>", f'<p class="soft">{html.escape(note)}</p>']
    for (name, picture), hits in zip(queries, found, strict=True):
        shown = "" if picture is None else f'<div class="query">{_picture(picture)}</div>'
        body.append(f"<h2>{html.escape(name)}</h2>{shown}")
        if nothing_fits(hits):
            body.append(f'<p class="soft">{NOTHING}</p>')
        body.append("<ol>")
        for rank, hit in enumerate(hits, 1):
            body.append(_card(index, rank, hit, pixels.get(index.image_ids[hit.place])))
        body.append("</ol>")
    return document.page(title, _STYLE, body)


def nothing_fits(hits: Sequence[Hit]) -> bool:
    """Whether all that was found is more likely no match than one; False = not known."""
    chances = [hit.probability for hit in hits if hit.probability is not None]
    return bool(chances) and max(chances) < 0.5


def _card(index: Index, rank: int, hit: Hit, pixels: np.ndarray | None) -> str:
    captions = "<br>".join(html.escape(caption) for caption in index.captions[hit.place])
    chance = "" if hit.probability is None else f" · p = {hit.probability:.2f}"
    return (
        f"<li>{'' if pixels is None else _picture(pixels)}<p><b>{rank}. {hit.score:.3f}{chance}</b>"
        f" <small>{html.escape(index.names[hit.place])}</small><br>{captions}</p></li>"
    )


def _picture(pixels: np.ndarray) -> str:
    return f'<img src="{document.picture(pixels)}" alt="">'
