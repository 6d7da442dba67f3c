"""Draws each kind of attention of `KINDS`: `python docs/kinds.py > docs/figures/kinds.svg`."""

from __future__ import annotations

from mmt_jax.nn.kinds import KINDS, STREAMS, Kind

SIZES = {"text": 4, "image": 3}  # words and regions that are drawn
NAMES = {"text": "words", "image": "regions"}
FILLS = {"text": "#3f51b5", "image": "#ef8a00", "tied": "#2e7d32", "": "#e3e7ea"}
CELL, GAP, LEFT, TOP = 13, 6, 58, 50
STARTS = {"text": 0, "image": CELL * SIZES["text"] + GAP}
WIDTH, HEIGHT = 180, 166  # of a panel


def block(asking: str, read: str) -> str:
    """The cells of one stream's queries over one stream's keys."""
    cells = (
        f"M{CELL * column} {CELL * row}h{CELL - 1}v{CELL - 1}h{1 - CELL}z"
        for row in range(SIZES[asking])
        for column in range(SIZES[read])
    )
    return f'<path id="{asking}-{read}" d="{"".join(cells)}"/>'


def panel(name: str, kind: Kind) -> list[str]:
    """A row is a query and a column a key; a cell is filled where the query reads the key."""
    parts = [f'<text x="8" y="20" class="name">{name}</text>']
    for stream in STREAMS:
        middle = STARTS[stream] + CELL * SIZES[stream] / 2
        parts.append(f'<text x="{LEFT + middle:g}" y="42" class="key">{NAMES[stream]}</text>')
        parts.append(f'<text x="52" y="{TOP + middle + 4:g}" class="query">{NAMES[stream]}</text>')
        weights = "tied" if kind.tied else stream
        for read in STREAMS:
            fill = FILLS[weights if read in kind.reads(stream) else ""]
            where = f'x="{LEFT + STARTS[read]}" y="{TOP + STARTS[stream]}"'
            parts.append(f'<use href="#{stream}-{read}" {where} fill="{fill}"/>')
    return parts


def drawing() -> str:
    """All kinds, two a line."""
    size = 2 * WIDTH, (len(KINDS) + 1) // 2 * HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
        f'viewBox="0 0 {size[0]} {size[1]}" font-family="sans-serif" font-size="12">',
        "<style>.name{font-weight:bold}.key{text-anchor:middle}.query{text-anchor:end}</style>",
        "<defs>",
        *(block(asking, read) for asking in STREAMS for read in STREAMS),
        "</defs>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, (name, kind) in enumerate(KINDS.items()):
        place = f"translate({number % 2 * WIDTH} {number // 2 * HEIGHT})"
        lines += [f'<g id="{name}" transform="{place}">', *panel(name, kind), "</g>"]
    return "\n".join([*lines, "</svg>\n"])


if __name__ == "__main__":
    print(drawing(), end="")
