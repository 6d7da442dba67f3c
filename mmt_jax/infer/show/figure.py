"""The picture of a view, as a PNG."""

from __future__ import annotations

import os
import typing
import warnings

import numpy as np

from mmt_jax.data.regions import WHOLE_NAME
from mmt_jax.infer.show.view import DRAWN, View, apart

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mmt_jax.infer.show.explain import Explanation

_LABEL = 26  # letters of a region's name
_FEW = 12  # labels in a row that have room to be large
MOST = 4.0  # times an even share, where colours end
TICKS = (0.25, 0.5, 1, 2, 4)
COLOURS = "PuOr_r"  # purple below an even share, white, orange above


def write(view: View, path: str | os.PathLike) -> None:
    """Draws photo, boxes and names; with a model, attention and changes beside them."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context({"text.parse_math": False}):
        warnings.filterwarnings("ignore", "Glyph")  # that no font has: a box is drawn
        _draw(view).savefig(path, format="png")


def _draw(view: View) -> Figure:
    from matplotlib.figure import Figure

    told = view.explanation
    shown = _shown(view)
    figure = Figure(figsize=(11, 6.4) if told else (5.4, 5.4), dpi=150, layout="constrained")
    columns = figure.subplots(1, 2, width_ratios=(3, 2)) if told else [figure.subplots()]
    size = 9 if len(shown) <= _FEW else 6
    _draw_photo(columns[0], view, shown, size=size)
    if told:
        columns[1].set_axis_off()
        parts = columns[1].inset_axes
        if told.attention is not None:
            axes = parts((0.25, 0.53, 0.75, 0.37))
            labels = [view.labels[i][:_LABEL] for i in shown]
            _draw_heat(axes, told, shown)
            axes.set_yticks(range(len(told.words)), told.words, fontsize=9)
            axes.set_xticks(range(len(shown)), labels, fontsize=size, rotation=90)
        _draw_changes(parts((0.1, 0.0, 0.4, 0.16)), told.words, told.word_changes, "word")
        rows = [f"{i + 1}" for i in shown]
        _draw_changes(parts((0.6, 0.0, 0.4, 0.16)), rows, told.region_changes[shown], "region")
    _spread(figure, columns[0], view)
    return figure


def _draw_heat(axes, told: Explanation, shown: np.ndarray) -> None:
    """Words down, regions across, white where a region gets an even share."""
    from matplotlib.colors import LogNorm

    even = told.against_even
    assert even is not None
    drawn = axes.imshow(
        even[:, shown].clip(1 / MOST, MOST),
        norm=LogNorm(1 / MOST, MOST),
        aspect="auto",
        cmap=COLOURS,
    )
    bar = axes.figure.colorbar(drawn, cax=axes.inset_axes((0, 1.04, 1, 0.04)), location="top")
    bar.set_ticks(TICKS, labels=[f"{tick:g}×" for tick in TICKS], fontsize=8)
    bar.minorticks_off()
    flat = "flat: nothing learned\n" if told.flat else ""
    bar.set_label(f"{flat}attention from word to region; 1× is an even share", fontsize=9)


def _shown(view: View) -> np.ndarray:
    """Which regions are drawn: all, or those whose hiding changes most, or the first."""
    count = len(view.boxes)
    if count <= DRAWN or view.explanation is None:
        return np.arange(min(count, DRAWN))
    change = np.nan_to_num(np.abs(view.explanation.region_changes))
    return np.sort(np.argsort(-change, kind="stable")[:DRAWN])


def _draw_photo(axes, view: View, shown: np.ndarray, *, size: float) -> None:
    from matplotlib.patches import Rectangle

    height, width = view.picture.shape[:2]
    axes.imshow(view.picture)
    axes.set_axis_off()
    for i in shown:
        if view.names[i] == WHOLE_NAME:
            continue
        ymin, xmin, ymax, xmax = view.boxes[i] * [height, width, height, width]
        color = f"C{i % 10}"
        axes.add_patch(
            Rectangle((xmin, ymin), xmax - xmin, ymax - ymin, fill=False, ec=color, lw=1.5)
        )
        axes.text(
            xmin,
            ymin,
            view.labels[i][:_LABEL],
            fontsize=size,
            color="white",
            va="bottom",
            bbox={"facecolor": color, "edgecolor": "none", "pad": 1},
            in_layout=False,
        )
    told = view.explanation
    axes.set_title(
        view.caption if told is None else f"{told.probability:.3f}  {view.caption}",
        pad=16,
        wrap=True,
    )


def _spread(figure: Figure, axes, view: View) -> None:
    """Moves labels that would hide each other, once their sizes are known."""
    height, width = view.picture.shape[:2]
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    boxes = [text.get_bbox_patch().get_window_extent() for text in axes.texts]
    corners = [axes.transData.inverted().transform(box.corners()) for box in boxes]
    if not corners:
        return
    low, high = np.min(corners, axis=1), np.max(corners, axis=1)
    moved = apart(np.hstack([low, high - low]), width, height) - low
    for text, move in zip(axes.texts, moved, strict=True):
        text.set_position(np.add(text.get_position(), move))


def _draw_changes(axes, labels, values: np.ndarray, what: str) -> None:
    colors = ["C3" if value < 0 else "C0" for value in values]
    axes.bar(range(len(labels)), np.nan_to_num(values), color=colors)
    axes.axhline(0, color="black", lw=0.5)
    size, step = 9 if len(labels) <= _FEW else 6, 1 + len(labels) // 24  # where all have no room
    axes.set_xticks(range(len(labels))[::step], labels[::step], fontsize=size, rotation=90)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title(f"change of log odds\nwithout the {what}", fontsize=9)
