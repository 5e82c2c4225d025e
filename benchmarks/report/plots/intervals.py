"""Dots with intervals as a picture, narrow enough for a phone."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.report.document import plain
from benchmarks.report.plots.style import INK, line_style, svg, text_of
from benchmarks.report.sections.dots import Dots, DotsPanel

WIDTH = 4.7
"""Inches."""
ROW, HEAD, FOOT = 0.24, 0.36, 0.5
"""Inches for each row, for a panel's title and space, and for the axis below the last."""
LETTER, LONGEST = 0.067, 36
"""Inches for a letter of what is written beside the rows, and letters of the longest name."""
WIDEST = 62
"""Letters of a title."""
BESIDE = 0.22
"""Inches between what is written and what is drawn."""


def dots(plot: Dots) -> bytes:
    """A row for each dot, a panel for each comparison."""
    heights = [ROW * len(panel.dots) for panel in plot.panels]
    axis = 0.22 if plot.from_zero else 0.0
    height = sum(heights) + (HEAD + axis) * len(heights) + FOOT
    figure = Figure(figsize=(WIDTH, height))
    low, high = _limits(plot)
    rows = [dot for panel in plot.panels for dot in panel.dots]
    left = BESIDE + LETTER * max(len(_short(dot.label)) for dot in rows)
    right = BESIDE + LETTER * max(len(dot.text) for dot in rows)
    top = height
    for panel, tall in zip(plot.panels, heights, strict=True):
        top -= HEAD + tall
        axes = figure.add_axes((left / WIDTH, top / height, 1 - (left + right) / WIDTH, tall / height))
        last = panel is plot.panels[-1]
        _panel(axes, panel)
        if plot.from_zero:
            axes.set_xlim(0, 1.05 * max(dot.high for dot in panel.dots) or 1)
        else:
            axes.set_xlim(low, high)
            axes.tick_params(labelbottom=last)
        if last:
            axes.set_xlabel(plot.axis)
        top -= axis
    return svg(figure)


# --- How ------------------------------------------------------------------------------------------


def _panel(axes: Any, panel: DotsPanel) -> None:
    for place, dot in enumerate(panel.dots):
        style = line_style(dot.backend, dot.variant)
        hollow = dot.variant != "default"
        axes.plot([dot.low, dot.high], [place, place], color=style["color"], linewidth=1.6,
                  solid_capstyle="butt")  # fmt: skip
        axes.plot(dot.value, place, linestyle="none", marker=style["marker"], markersize=6.5,
                  color=style["color"], markerfacecolor="none" if hollow else style["color"])  # fmt: skip
        axes.annotate(dot.text, (1, place), xycoords=("axes fraction", "data"), xytext=(6, 0),
                      textcoords="offset points", va="center", color=INK, fontsize=9)  # fmt: skip
    axes.set_yticks(range(len(panel.dots)), [_short(dot.label) for dot in panel.dots], fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=(1, 2, 2.5, 5, 10)))
    axes.set_ylim(len(panel.dots) - 0.5, -0.5)
    axes.grid(axis="x", color=INK, alpha=0.25, linewidth=0.8)
    axes.spines["left"].set_visible(False)
    axes.annotate(
        _short(panel.title, WIDEST),
        (0, 1),
        xycoords=("figure fraction", "axes fraction"),
        xytext=(4, 4),
        textcoords="offset points",
        va="bottom",
        color=INK,
        fontsize=10,
    )


def _limits(plot: Dots) -> tuple[float, float]:
    lows = min(dot.low for panel in plot.panels for dot in panel.dots)
    highs = max(dot.high for panel in plot.panels for dot in panel.dots)
    margin = 0.03 * (highs - lows) or 0.01
    return lows - margin, highs + margin


def _short(label: str, longest: int = LONGEST) -> str:
    """What fits."""
    text = plain(label)
    return text_of(text if len(text) <= longest else f"{text[: longest - 3]}...")
