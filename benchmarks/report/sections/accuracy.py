"""Accuracy of each group of cells with its interval, as what a plot of it shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.harness.record import Record
from benchmarks.report.document import Block, Plot
from benchmarks.report.groups import Group
from benchmarks.report.sections.dots import Dot, Dots, DotsPanel, thinned
from benchmarks.report.sections.panels import labels, panels, variant_of
from benchmarks.report.statistics import spread
from benchmarks.report.verdicts import accuracy as verdicts

PATH = "plots/accuracy.svg"


def blocks(records: Sequence[Record]) -> tuple[Block, ...]:
    """The plot, and what its intervals are; none where no cell ended well."""
    shown = drawn(records)
    if shown is None:
        return ()
    groups = [group for panel in panels(records) for group in panel.groups]
    kinds = [
        *(["of the mean over seeds (Student's t)"] if any(len(group.seeds) > 1 for group in groups) else []),
        *(
            ["of one seed over test images (Wilson)"]
            if any(len(group.seeds) == 1 for group in groups)
            else []
        ),
    ]
    picture = Plot(path=PATH, text="Test accuracy of each backend and protocol, a dot with its 95 % interval")
    return picture, f"Intervals at 95 %: {'; '.join(kinds)}.{shown.said}"


def drawn(records: Iterable[Record]) -> Dots | None:
    """What is drawn; None where no cell ended well."""
    found = [
        DotsPanel(title=panel.title, dots=tuple(map(_dot, panel.groups, labels(panel.groups))))
        for panel in panels(records)
    ]
    return thinned(found, path=PATH, axis="test accuracy", from_zero=False) if found else None


# --- How ------------------------------------------------------------------------------------------


def _dot(group: Group, label: str) -> Dot:
    mean, interval = spread(group.accuracies).mean, verdicts.interval(group)
    return Dot(
        backend=group.cell.backend,
        variant=variant_of(group),
        label=label,
        value=mean,
        low=interval.low,
        high=interval.high,
        text=f"{mean:.3f}",
    )
