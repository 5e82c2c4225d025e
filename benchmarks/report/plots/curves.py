"""Images/s against batch size, image size and threads, as a picture."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.report.plots.style import INK, line_style, svg, text_of
from benchmarks.report.sections import curves


def curve(plot: curves.Plot) -> bytes:
    """Training and inference images/s beside each other, a line for each variant of each backend."""
    rows = math.ceil(len(plot.lines) / 3)
    figure = Figure(figsize=(9, 4 + 0.3 * rows), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, work in zip(panels, ("train", "inference"), strict=True):
        for line in plot.lines:
            _line(axes, plot.axis, line, f"{work}_images_per_second")
        axes.set_title("training" if work == "train" else work, fontsize=10)
        values = sorted({getattr(point, plot.axis.field) for line in plot.lines for point in line.points})
        if plot.axis.doubling or plot.axis.wide:
            axes.set_xscale("log", base=2)
        if plot.axis.wide:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
        else:
            axes.set_ylim(bottom=0)
        axes.set_xticks(values, [str(value) for value in values])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(plot.axis.title)
        axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.8)
    panels[0].set_ylabel("images/s")
    sound = all(curves.sound(point) for line in plot.lines for point in line.points)
    title = plot.title if sound else f"{plot.title} (hollow: not steady, or noisy)"
    figure.suptitle(text_of(title), fontsize=10, color=INK)
    keys = [
        Line2D([], [], **line_style(line.backend, line.variant), label=text_of(line.label))
        for line in plot.lines
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False, labelcolor=INK,
                  handlelength=4)  # fmt: skip
    return svg(figure)


# --- How ------------------------------------------------------------------------------------------


def _line(axes: Any, axis: curves.Axis, line: curves.Line, field: str) -> None:
    style = line_style(line.backend, line.variant)
    values = [getattr(point, axis.field) for point in line.points]
    rates = [getattr(point, field) for point in line.points]
    axes.plot(values, rates, **{**style, "marker": ""})
    for value, rate, point in zip(values, rates, line.points, strict=True):
        axes.plot(value, rate, linestyle="none", marker=style["marker"], markersize=6, color=style["color"],
                  markerfacecolor=style["color"] if curves.sound(point) else "none")  # fmt: skip
