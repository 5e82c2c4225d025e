"""Figures to SVG, readable on light and dark pages, and without colours."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator

import backends
from benchmarks.harness.record import RangeTest
from benchmarks.report import curves, parts

INK, LINE, FAINT, MARK = "#777777", "#3b82c4", "#9bb8d3", "#d1662b"
"""Middling tones: they stand out from white and from near-black alike."""
STYLE = {"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "hatch.linewidth": 0.8}
"""The same figures give the same bytes, and text stays text."""

BACKENDS = (("#d1662b", "o"), ("#3b82c4", "s"), ("#0f9d76", "^"), ("#a868b8", "D"))
"""Tone and mark of each backend: vermilion, blue and bluish green are told apart whatever colours one sees
(M. Okabe, K. Ito, Color Universal Design, 2008)."""
VARIANTS = {"default": "-", "tuned": "--", "tuned bfloat16": ":", "reproducible": "-."}
OTHER_VARIANT = (0, (5, 1, 1, 1, 1, 1))
SEGMENTS = {
    "wait": ("#bbbbbb", "xxx"),
    "transfer": ("#cc79a7", "|||"),
    "forward": ("#56b4e9", ""),
    "backward": ("#3b82c4", "///"),
    "update": ("#e69f00", "---"),
    "beside": ("#009e73", "\\\\\\"),
}
"""Tone and hatching of an epoch's parts."""
EDGE = "#333333"
"""Of hatching."""


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
    return _svg(figure)


def epoch_parts(panels: Sequence[parts.Panel]) -> bytes:
    """A stacked bar for each variant's epoch, in milliseconds per image; each panel has its own scale."""
    heights = [1.1 + 0.45 * len(panel.bars) for panel in panels]
    figure = Figure(figsize=(8.5, sum(heights) + 0.7), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for panel, (axes,) in zip(panels, grid, strict=True):
        _bars(axes, panel)
    grid[-1][0].set_xlabel("milliseconds per image")
    keys: list[Any] = [
        Patch(facecolor=tone, hatch=hatch, edgecolor=EDGE, linewidth=0, label=name)
        for name, (tone, hatch) in SEGMENTS.items()
    ]
    keys.append(Line2D([], [], color=INK, linestyle="none", marker="|", markersize=12, markeredgewidth=3,
                       label="epoch as measured"))  # fmt: skip
    figure.legend(handles=keys, loc="outside upper center", ncols=4, frameon=False, labelcolor=INK)
    return _svg(figure)


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
    figure.suptitle(_plain(title), fontsize=10, color=INK)
    keys = [Line2D([], [], **_style(line), label=_plain(line.label)) for line in plot.lines]
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False, labelcolor=INK,
                  handlelength=4)  # fmt: skip
    return _svg(figure)


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


def _bars(axes: Any, panel: parts.Panel) -> None:
    for place, bar in enumerate(panel.bars):
        left = 0.0
        for width, name in zip(bar.segments, parts.SEGMENTS, strict=True):
            tone, hatch = SEGMENTS[name]
            axes.barh(
                place, width, left=left, height=0.62, color=tone, hatch=hatch, edgecolor=EDGE, linewidth=0
            )
            left += width
        axes.plot([bar.epoch, bar.epoch], [place - 0.42, place + 0.42], color=INK, linewidth=3)
        axes.annotate(f"{bar.epoch:.2f}", (max(left, bar.epoch), place), xytext=(8, 0),
                      textcoords="offset points", va="center", color=INK, fontsize=9)  # fmt: skip
    axes.set_yticks(range(len(panel.bars)), [_plain(bar.label) for bar in panel.bars])
    axes.invert_yaxis()
    axes.margins(x=0.09)
    axes.set_xlim(left=0)
    axes.set_title(_plain(panel.title), fontsize=10, loc="left")


def _line(axes: Any, axis: curves.Axis, line: curves.Line, field: str) -> None:
    style = _style(line)
    values = [getattr(point, axis.field) for point in line.points]
    rates = [getattr(point, field) for point in line.points]
    axes.plot(values, rates, **{**style, "marker": ""})
    for value, rate, point in zip(values, rates, line.points, strict=True):
        axes.plot(value, rate, linestyle="none", marker=style["marker"], markersize=6, color=style["color"],
                  markerfacecolor=style["color"] if curves.sound(point) else "none")  # fmt: skip


def _style(line: curves.Line) -> dict[str, Any]:
    """A line's tone and mark by its backend, its dashes by its variant."""
    known = sorted(backends.known())
    place = known.index(line.backend) if line.backend in known else len(known)
    color, marker = BACKENDS[min(place, len(BACKENDS) - 1)]
    dashes = VARIANTS.get(line.variant, OTHER_VARIANT)
    return {"color": color, "marker": marker, "linestyle": dashes, "linewidth": 1.8}


def _plain(text: str) -> str:
    """Text in one line, without what XML has no letter for; its dollar signs are no formula's."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable()).replace("$", r"\$")


def _svg(figure: Figure) -> bytes:
    for axes in figure.axes:
        for part in (axes.xaxis.label, axes.yaxis.label, axes.title, axes._left_title):
            part.set_color(INK)
        axes.tick_params(which="both", colors=INK)
        for spine in axes.spines.values():
            spine.set_color(INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.patch.set_visible(False)
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
