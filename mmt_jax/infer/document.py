"""HTML pages that need nothing beside them."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable

import numpy as np

_STYLE = """
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #22262c;
  font: 15px/1.5 system-ui, sans-serif; }
.soft { color: #68707a; }
"""


def page(title: str, style: str, body: Iterable[str]) -> str:
    """A page of the parts `body`, which are HTML already; `title` is plain text."""
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}{style}</style>\n"
        + "\n".join(body)
        + "\n"
    )


def picture(pixels: np.ndarray) -> str:
    """[H, W, 3] u8 as an address that holds the picture itself."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, pixels, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
