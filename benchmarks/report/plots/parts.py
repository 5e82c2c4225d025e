"""Where an epoch's time goes, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmarks.report.plots.style import INK, svg, text_of
from benchmarks.report.sections import parts

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
    return svg(figure)


# --- How ------------------------------------------------------------------------------------------


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
    axes.set_yticks(range(len(panel.bars)), [text_of(bar.label) for bar in panel.bars])
    axes.invert_yaxis()
    axes.margins(x=0.09)
    axes.set_xlim(left=0)
    axes.set_title(text_of(panel.title), fontsize=10, loc="left")
