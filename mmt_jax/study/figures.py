"""The figures of a report, each an SVG that stands by itself, in a page and as a file."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmt_jax.study import stats
from mmt_jax.study.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED, Outcome

COLOURS = {SUPPORTED: "#2a7f62", CONTRADICTED: "#b5403a", UNDECIDED: "#7a7f87"}
INK, BAR, CHANCE = "#2b2f36", "#5b7db1", "#c0781f"


def bars(
    rows: Sequence[tuple[str, stats.Interval]], *, label: str, chance: tuple[float, str]
) -> str:
    """One bar a tag with its interval, in the order given, and a line at chance, with its name."""

    def draw(axes: Any) -> None:
        places = np.arange(len(rows))[::-1]
        named = [axes.barh(places, [row.mean for _, row in rows], color=BAR, height=0.7)]
        for place, (_, row) in zip(places, rows, strict=True):
            if math.isfinite(row.low):
                named[1:] = axes.plot([row.low, row.high], [place, place], color=INK, lw=1.4)
        named.append(axes.axvline(chance[0], color=CHANCE, lw=1.2, ls="--"))
        names = ["mean", "95 % interval", chance[1]] if len(named) > 2 else ["mean", chance[1]]
        axes.legend(named, names, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderpad=0)
        axes.set_yticks(places, [tag for tag, _ in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        axes.grid(axis="x")

    return _svg(draw, name="bars", height=1.1 + 0.26 * len(rows))


def dots(rows: Mapping[str, Mapping[str, stats.Interval]], *, label: str, chance: float) -> str:
    """One dot a tag (colour) and column, with its interval, and a line at chance."""
    columns = list(next(iter(rows.values())))

    def draw(axes: Any) -> None:
        import matplotlib

        colours = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(rows)))
        shifts = (np.arange(len(rows)) - (len(rows) - 1) / 2) * 0.8 / len(rows)
        for colour, shift, (tag, row) in zip(colours, shifts, rows.items(), strict=True):
            places = np.arange(len(columns)) + shift
            found = [row[name] for name in columns]
            axes.plot(places, [i.mean for i in found], "o", color=colour, ms=5, label=tag)
            for place, interval in zip(places, found, strict=True):
                axes.plot([place] * 2, [interval.low, interval.high], color=colour, lw=1.4)
        axes.axhline(chance, color=INK, lw=1, ls="--", label="chance")
        for edge in range(1, len(columns)):
            axes.axvline(edge - 0.5, color="#dddddd", lw=0.6)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(top=1.02)
        axes.set_ylabel(label)
        axes.grid(axis="y")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))

    return _svg(draw, name="dots", height=3.4)


Lines = Mapping[str, tuple[Sequence[float], Sequence[stats.Interval]]]  # by tag: steps and values


def curves(panels: Mapping[str, Lines]) -> str:
    """One line a tag with its band; by label, panels of what cannot be compared, in a column."""

    def draw(axes: Any) -> None:
        import matplotlib

        for axis, (label, lines) in zip(np.atleast_1d(axes), panels.items(), strict=True):
            colours = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(lines)))
            for colour, (tag, (steps, values)) in zip(colours, lines.items(), strict=True):
                axis.plot(steps, [i.mean for i in values], color=colour, lw=1.2, label=tag)
                ends = [i.low for i in values], [i.high for i in values]
                axis.fill_between(steps, *ends, color=colour, alpha=0.15, lw=0)
            axis.set_xlabel("step")
            axis.set_ylabel(label)
            axis.grid(axis="y")
            axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1))

    name = f"curves {', '.join(panels)}"
    return _svg(draw, name=name, height=3.2 * len(panels), panels=len(panels), stacked=True)


def comparisons(outcomes: Sequence[tuple[str, Outcome]]) -> str:
    """Each comparison's value and interval over the range that is claimed (shaded)."""
    ends = [
        end
        for _, outcome in outcomes
        for end in (outcome.interval.mean, outcome.interval.low, outcome.interval.high)
        if math.isfinite(end)
    ]
    # One wide interval of two seeds must not squeeze all others into a line.
    centre = max(abs(outcome.interval.mean) for _, outcome in outcomes)
    reach = min(max(map(abs, ends)), 4 * centre + 0.1) * 1.1 or 1.0  # all may be equal

    def draw(axes: Any) -> None:
        for place, (_, outcome) in zip(range(len(outcomes))[::-1], outcomes, strict=True):
            low, high = max(outcome.low, -reach), min(outcome.high, reach)
            axes.barh(place, high - low, left=low, height=0.8, color="#e3ebe6", zorder=0)
            colour = COLOURS[outcome.verdict]
            if math.isfinite(outcome.interval.low):
                span = [outcome.interval.low, outcome.interval.high]
                axes.plot(span, [place] * 2, color=colour, lw=1.6)
            axes.plot(outcome.interval.mean, place, "o", color=colour, ms=5)
        names = [f"{claim}  {outcome.says}" for claim, outcome in outcomes]
        axes.set_yticks(range(len(outcomes))[::-1], names)
        axes.axvline(0, color=INK, lw=0.8)
        for verdict in dict.fromkeys(outcome.verdict for _, outcome in outcomes):
            axes.plot([], [], "o-", color=COLOURS[verdict], ms=5, lw=1.6, label=verdict)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderpad=0)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-0.6, len(outcomes) - 0.4)
        axes.set_xlabel("95 % interval; shaded: as claimed")

    return _svg(draw, name="comparisons", height=1.1 + 0.28 * len(outcomes))


def scatter(
    panels: Sequence[tuple[str, Sequence[float]]],
    scores: Sequence[float],
    names: Sequence[str],
    *,
    score: str,
) -> str:
    """Score against each property of the corpora, one panel a property.

    Points are numbered by score, and what has a number is named beside the last panel. A property
    that spans more than two powers of ten has a logarithmic axis.
    """
    order = sorted(range(len(names)), key=lambda i: -scores[i])

    def draw(axes: Any) -> None:
        axes = np.atleast_1d(axes)
        for axis, (label, values) in zip(axes, panels, strict=True):
            axis.plot(values, scores, "o", color=BAR)
            for number, i in enumerate(order, start=1):
                place = (values[i], scores[i])
                axis.annotate(number, place, fontsize=7, xytext=(4, 3), textcoords="offset points")
            if min(values) > 0 and max(values) / min(values) > 100:
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter("{x:,.0f}")  # the default needs parse_math
            axis.margins(0.2)
            axis.set_xlabel(label)
            axis.grid()
        axes[0].set_ylabel(score)
        key = "\n".join(f"{number} {names[i]}" for number, i in enumerate(order, start=1))
        axes[-1].text(1.05, 1, key, fontsize=7, va="top", transform=axes[-1].transAxes)

    return _svg(draw, name="scatter", height=2.8, panels=len(panels))


def _svg(
    draw: Callable[[Any], None],
    *,
    name: str,
    height: float,
    panels: int = 1,
    stacked: bool = False,
) -> str:
    """`draw` is given the axes: one, or an array of those of the panels."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.size": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": INK,
        "axes.axisbelow": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "text.parse_math": False,  # a tag may have dollars
        "svg.hashsalt": name,  # ids of one figure must not be those of another on the page
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(8.5, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots(panels) if stacked else figure.subplots(1, panels, sharey=True))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
