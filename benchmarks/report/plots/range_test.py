"""A learning-rate range test as a picture."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from benchmarks.harness.record import RangeTest
from benchmarks.report.plots.style import FAINT, INK, LINE, MARK, svg


def range_test(result: RangeTest) -> bytes:
    """Loss over learning rate, each step's and the smoothed one, with the suggestion."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(result.rates, result.losses, color=FAINT, linewidth=1, label="each step")
    axes.plot(result.rates, result.smoothed, color=LINE, linewidth=2, label="smoothed")
    if result.suggestion is not None:
        _mark(axes, result.suggestion)
    axes.set_xscale("log")
    falling = result.losses[: result.smoothed.index(min(result.smoothed)) + 1]  # not what explodes
    margin = 0.05 * (max(falling) - min(falling))
    axes.set_ylim(min(result.losses) - margin, max(falling) + 3 * margin)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.set_title(
        f"{result.architecture} on {result.data}, {result.image_size} px, batches of {result.batch_size}",
        fontsize=10,
    )
    axes.legend(frameon=False, loc="best", labelcolor=INK)
    return svg(figure)


# --- How ------------------------------------------------------------------------------------------


def _mark(axes: Any, suggestion: float) -> None:
    axes.axvline(suggestion, color=MARK, linestyle="--", linewidth=1.5)
    axes.annotate(
        f"suggestion {suggestion:.2g}",
        (suggestion, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-6, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        color=MARK,
    )
