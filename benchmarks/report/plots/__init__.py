"""Figures to SVG, readable on light and dark pages, and without colours."""

from benchmarks.report.plots.curves import curve
from benchmarks.report.plots.intervals import dots
from benchmarks.report.plots.learning import learning_curves, time_to_accuracy
from benchmarks.report.plots.parts import epoch_parts
from benchmarks.report.plots.range_test import range_test

__all__ = ["curve", "dots", "epoch_parts", "learning_curves", "range_test", "time_to_accuracy"]
