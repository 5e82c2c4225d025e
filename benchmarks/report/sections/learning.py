"""Learning curves: accuracy and loss over epochs, and accuracy over the seconds that training took."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from benchmarks.harness.record import Record
from benchmarks.report.document import Block, Plot
from benchmarks.report.groups import Group
from benchmarks.report.sections.panels import Panel, labels, of_most_weight, panels, variant_of
from benchmarks.report.training_time import after_each_epoch, is_told

MOST = 12
"""Panels: so many are looked at, and no more."""

READING = """\
- **Learning curves** are means over seeds; a band goes from the lowest seed to the highest. Where seeds ran
  unequally long, they end with the shortest. A line that others lie upon is drawn broader than they are."""
READING_TIMES = """\
- **Time to accuracy** sets the test accuracy after each epoch against the seconds of training up to then,
  input pipeline included and evaluation not: means over seeds, with each seed beside them as a thin line."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One group's curve. Inner tuples have one value for each epoch, by seed."""

    backend: str
    variant: str
    """In words."""
    label: str
    test_accuracy: tuple[tuple[float, ...], ...]
    train_loss: tuple[tuple[float, ...], ...]
    seconds: tuple[tuple[float, ...], ...]
    """Of training, up to the end of the epoch."""


class Curves(msgspec.Struct, frozen=True, kw_only=True):
    """What one plot shows."""

    title: str
    name: str
    """Of its files."""
    lines: tuple[Line, ...]

    @property
    def over_epochs(self) -> str:
        """The path of its plot, relative to the run's folder."""
        return f"plots/learning-{self.name}.svg"

    @property
    def over_seconds(self) -> str:
        """The path of its plot, relative to the run's folder."""
        return f"plots/time-{self.name}.svg"


def curves(records: Sequence[Record]) -> tuple[Block, ...]:
    """A plot for each panel; none where nothing was trained by epochs."""
    return _plots(records, "test accuracy and training loss over epochs", lambda one: one.over_epochs)


def times(records: Sequence[Record]) -> tuple[Block, ...]:
    """A plot for each panel; none where nothing was timed."""
    return _plots(timed(records), "test accuracy over seconds of training", lambda one: one.over_seconds)


def timed(records: Iterable[Record]) -> list[Record]:
    """Those whose seconds are told."""
    return list(filter(is_told, records))


def drawn(records: Iterable[Record]) -> list[Curves]:
    """What is drawn: of many panels those that compare most."""
    return [
        Curves(
            title=panel.title, name=panel.name, lines=tuple(map(_line, panel.groups, labels(panel.groups)))
        )
        for panel in of_most_weight(_with_curves(records), MOST)
    ]


# --- How ------------------------------------------------------------------------------------------


def _plots(records: Sequence[Record], what: str, path: Callable[[Curves], str]) -> tuple[Block, ...]:
    shown = drawn(records)
    blocks = [Plot(path=path(one), text=f"{one.title}: {what}, of {_names(one)}") for one in shown]
    return (*blocks, *_left_out(records, shown))


def _with_curves(records: Iterable[Record]) -> list[Panel]:
    """A curve takes two epochs."""
    found = []
    for panel in panels(records):
        members = tuple(
            group for group in panel.groups if min(len(record.curve) for record in group.records) > 1
        )
        if members:
            found.append(msgspec.structs.replace(panel, groups=members))
    return found


def _line(group: Group, label: str) -> Line:
    epochs = min(len(record.curve) for record in group.records)
    curves = [record.curve[:epochs] for record in group.records]
    return Line(
        backend=group.cell.backend,
        variant=variant_of(group),
        label=label,
        test_accuracy=tuple(tuple(row.test_accuracy for row in curve) for curve in curves),
        train_loss=tuple(tuple(row.train_loss for row in curve) for curve in curves),
        seconds=tuple(after_each_epoch(record)[:epochs] for record in group.records),
    )


def _names(one: Curves) -> str:
    return ", ".join(line.label for line in one.lines)


def _left_out(records: Sequence[Record], shown: Sequence[Curves]) -> tuple[Block, ...]:
    missing = len(_with_curves(records)) - len(shown)
    return (f"{missing} more are not drawn: these compare most backends and seeds.",) if missing else ()
