"""Learning curves as pictures, each narrow enough for a phone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from benchmarks.report.plots.style import INK, line_style, svg, text_of
from benchmarks.report.sections.learning import Curves, Line

WIDTH = 4.7
"""Inches."""
KEY = 0.2
"""Inches for each line of the key."""
SEEN = 0.02
"""Of an axis: lines that are nowhere farther apart lie upon each other."""


def learning_curves(curves: Curves) -> bytes:
    """Test accuracy above training loss, over epochs: means over seeds, and bands from lowest to highest."""
    height = 4.1 + KEY * len(curves.lines)
    figure = Figure(figsize=(WIDTH, height))
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, field in ((upper, "test_accuracy"), (lower, "train_loss")):
        values = [np.array(getattr(line, field)) for line in curves.lines]
        epochs = [np.arange(1, own.shape[1] + 1) for own in values]
        _means(axes, curves, epochs, [own.mean(0) for own in values])
        for line, across, own in zip(curves.lines, epochs, values, strict=True):
            if len(own) > 1:
                axes.fill_between(across, own.min(0), own.max(0), color=_tone(line), alpha=0.18, linewidth=0)
    upper.set_ylabel("test accuracy")
    lower.set_ylabel("training loss")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("epoch")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    _finish(figure, curves, height)
    return svg(figure)


def time_to_accuracy(curves: Curves) -> bytes:
    """Test accuracy over seconds of training: means over seeds, and each seed."""
    height = 2.6 + KEY * len(curves.lines)
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.subplots()
    seconds = [np.array(line.seconds) for line in curves.lines]
    accuracies = [np.array(line.test_accuracy) for line in curves.lines]
    for line, across, own in zip(curves.lines, seconds, accuracies, strict=True):
        if len(own) > 1:
            for one_across, one in zip(across, own, strict=True):
                axes.plot(one_across, one, color=_tone(line), linewidth=0.8, alpha=0.45)
    _means(axes, curves, [own.mean(0) for own in seconds], [own.mean(0) for own in accuracies])
    axes.set_xlim(left=0)
    axes.set_ylabel("test accuracy")
    axes.set_xlabel("seconds of training")
    _finish(figure, curves, height)
    return svg(figure)


# --- How ------------------------------------------------------------------------------------------


def _means(axes: Any, curves: Curves, across: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> None:
    """A line that others are drawn upon is broader than they are, so that all are seen."""
    axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.8)
    hidden = [
        sum(_alike(across, values, place, other) for other in range(place + 1, len(values)))
        for place in range(len(values))
    ]
    for line, over, own, upon in zip(curves.lines, across, values, hidden, strict=True):
        broader = min(upon, 3)
        style = line_style(line.backend, line.variant) | {"linewidth": 1.8 + 1.5 * broader}
        every = max(1, len(own) // 10)
        axes.plot(over, own, markersize=5 + 2.5 * broader, markevery=every, **style)


def _alike(across: Sequence[np.ndarray], values: Sequence[np.ndarray], one: int, other: int) -> bool:
    """Whether two lines lie upon each other, as far as one sees."""
    return all(
        len(both[one]) == len(both[other])
        and bool(np.abs(both[one] - both[other]).max() <= SEEN * _span(both))
        for both in (across, values)
    )


def _span(values: Sequence[np.ndarray]) -> float:
    return float(max(own.max() for own in values) - min(own.min() for own in values))


def _tone(line: Line) -> str:
    return str(line_style(line.backend, line.variant)["color"])


def _finish(figure: Figure, curves: Curves, height: float) -> None:
    """Title above, key below; in inches, since a layout that is worked out takes longer than the drawing."""
    key = KEY * len(curves.lines)
    figure.subplots_adjust(
        left=0.78 / WIDTH, right=1 - 0.12 / WIDTH, top=1 - 0.34 / height, bottom=(key + 0.48) / height,
        hspace=0.12,
    )  # fmt: skip
    figure.suptitle(text_of(curves.title), fontsize=10, color=INK, x=0.1 / WIDTH, y=1 - 0.06 / height,
                    ha="left", va="top")  # fmt: skip
    keys = [
        Line2D([], [], **line_style(line.backend, line.variant), label=text_of(line.label))
        for line in curves.lines
    ]
    figure.legend(handles=keys, loc="lower left", bbox_to_anchor=(0.68 / WIDTH, 0.02 / height), frameon=False,
                  labelcolor=INK, fontsize=9, handlelength=3.2, labelspacing=0.25, borderpad=0)  # fmt: skip
