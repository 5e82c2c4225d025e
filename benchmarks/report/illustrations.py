"""The plots that a run's report shows."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness.record import Curves, Record
from benchmarks.report import curves, parts, plots


def draw(records: Sequence[Record], measured: Sequence[Curves]) -> dict[str, bytes]:
    """Each plot as SVG, under its path relative to the run's folder."""
    drawn = {plot.path: plots.curve(plot) for plot in curves.plots(measured)}
    panels = parts.panels(records)
    if panels:
        drawn[parts.PLOT] = plots.epoch_parts(panels)
    return drawn
