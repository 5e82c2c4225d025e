"""Learning curves as pictures, each narrow enough for a phone."""

from __future__ import annotations

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


def learning_curves(curves: Curves) -> bytes:
    """Test accuracy above training loss, over epochs: means over seeds, and bands from lowest to highest."""
    height = 4.1 + KEY * len(curves.lines)
    figure = Figure(figsize=(WIDTH, height))
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, field in ((upper, "test_accuracy"), (lower, "train_loss")):
        for line in curves.lines:
            values = np.array(getattr(line, field))
            epochs = np.arange(1, values.shape[1] + 1)
            _mean(axes, epochs, values.mean(0), line)
            if len(values) > 1:
                axes.fill_between(
                    epochs, values.min(0), values.max(0), color=_tone(line), alpha=0.18, linewidth=0
                )
        axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.8)
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
    for line in curves.lines:
        seconds, accuracy = np.array(line.seconds), np.array(line.test_accuracy)
        if len(seconds) > 1:
            for own_seconds, own in zip(seconds, accuracy, strict=True):
                axes.plot(own_seconds, own, color=_tone(line), linewidth=0.8, alpha=0.45)
        _mean(axes, seconds.mean(0), accuracy.mean(0), line)
    axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.8)
    axes.set_xlim(left=0)
    axes.set_ylabel("test accuracy")
    axes.set_xlabel("seconds of training")
    _finish(figure, curves, height)
    return svg(figure)


# --- How ------------------------------------------------------------------------------------------


def _mean(axes: Any, across: np.ndarray, values: np.ndarray, line: Line) -> None:
    every = max(1, len(values) // 10)
    axes.plot(across, values, markersize=5, markevery=every, **line_style(line.backend, line.variant))


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
