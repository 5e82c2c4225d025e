"""The plots that a run's report shows."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness.record import Curves, Record
from benchmarks.report import plots
from benchmarks.report.labels import scored
from benchmarks.report.sections import accuracy, curves, learning, parts, rates


def draw(records: Sequence[Record], measured: Sequence[Curves]) -> dict[str, bytes]:
    """Each plot as SVG, under its path relative to the run's folder."""
    drawn = {plot.path: plots.curve(plot) for plot in curves.plots(measured)}
    panels = parts.panels(records)
    if panels:
        drawn[parts.PLOT] = plots.epoch_parts(panels)
    told = scored(records)
    accuracies = accuracy.drawn(told)
    for dots in (*([accuracies] if accuracies else []), *rates.drawn(records)):
        drawn[dots.path] = plots.dots(dots)
    for learned in learning.drawn(told):
        drawn[learned.over_epochs] = plots.learning_curves(learned)
    for learned in learning.drawn(learning.timed(told)):
        drawn[learned.over_seconds] = plots.time_to_accuracy(learned)
    return drawn
