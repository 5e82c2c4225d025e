"""Training and inference images/s of each variant of each backend, as what a plot of them shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import median

from benchmarks.harness.record import Record
from benchmarks.report.document import Block, Plot
from benchmarks.report.labels import (
    data_title,
    in_words,
    protocol_or_recipe,
    run_of,
    several_data_sets,
)
from benchmarks.report.sections.dots import Dot, Dots, DotsPanel, thinned
from benchmarks.report.sections.variants import Variant, variants
from benchmarks.report.verdicts import speed

WORKS = {"training": speed.TRAINING, "inference": speed.INFERENCE}


def blocks(records: Sequence[Record]) -> tuple[Block, ...]:
    """A plot for each work, and what they show; none where nothing was timed."""
    shown = drawn(records)
    if not shown:
        return ()
    pictures = [
        Plot(path=plot.path, text=f"Images per second in {work}, a row for each variant of each backend")
        for work, plot in zip(WORKS, shown, strict=True)
    ]
    several = any(len(row.cells) > 1 for row in variants(records))
    said = (
        "Dots are the tables' means over seeds, and lines go from the slowest seed to the fastest."
        if several
        else ""
    )
    return (*pictures, f"{said}{shown[0].said}".strip())


def drawn(records: Iterable[Record]) -> list[Dots]:
    """What is drawn, a plot for each of `WORKS`; none where nothing was timed."""
    records = list(records)
    several = several_data_sets(records)
    rows = variants(records)
    if not rows:
        return []
    plots = []
    for work, metric in WORKS.items():
        panels = [
            DotsPanel(title=title, dots=tuple(_dot(row, metric) for row in members))
            for title, members in groupby(rows, key=lambda row: _title(row, several=several))
        ]
        axis = f"{work} images/s"
        plots.append(thinned(panels, path=f"plots/throughput-{work}.svg", axis=axis, from_zero=True))
    return plots


# --- How ------------------------------------------------------------------------------------------


def _dot(row: Variant, metric: speed.Metric) -> Dot:
    rates = list(map(metric.rate, row.throughputs))
    middle = speed.mean_rate(row.throughputs, metric)
    return Dot(
        backend=row.cell.backend,
        variant=in_words(row.cell.variant, row.cell.precision, row.cell.device),
        label=_label(row),
        value=median(rates) if middle is None else middle,
        low=min(rates),
        high=max(rates),
        text=speed.rate_text(row.throughputs, metric),
    )


def _label(row: Variant) -> str:
    network = "" if row.cell.track == "matched" else f", {row.cell.architecture}"
    return row.in_words().removesuffix(", default") + network


def _title(row: Variant, *, several: bool) -> str:
    cell, record = row.cell, row.cells[0].record
    network = f"matched {cell.architecture}" if cell.track == "matched" else cell.track
    said = [network, protocol_or_recipe(record), f"{row.image_size} px"]
    run = run_of(record)
    said += [data_title(record)] if several and not run else []
    return (f"{run}: " if run else "") + ", ".join(said)
