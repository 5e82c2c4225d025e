"""What it takes to reach an accuracy: seconds of training, from a cell's one learning curve, and money."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import msgspec

from benchmarks.harness.record import Record
from benchmarks.report.document import Column, Section, Table, filled, table_of
from benchmarks.report.groups import Group
from benchmarks.report.labels import data_title, run_of
from benchmarks.report.training_time import after_each_epoch, training_seconds
from benchmarks.report.verdicts.comparisons import network_of
from benchmarks.report.verdicts.words import Choices

ROUND = 20
"""Thresholds that nobody has named are multiples of 1 / 20."""
READING = (
    "Seconds of training until an epoch ended whose test accuracy had reached the threshold: medians over the"
    " seeds that reach it, with the lowest and the highest. They hold the input pipeline, compilation and the"
    " extraction of stored features, and no evaluation. They are told, not tested."
)


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """How a group came to a threshold."""

    group: Group
    threshold: float
    seconds: tuple[float, ...]
    """Of the seeds that reach it."""
    price: float | None

    @property
    def seeds(self) -> int:
        """All of the group's, failed ones too."""
        return len(self.group.records) + len(self.group.failed)

    @property
    def median(self) -> float | None:
        """Over the seeds that reach it; None where none does."""
        return median(self.seconds) if self.seconds else None

    @property
    def typical(self) -> bool:
        """Whether half of the seeds reach it, and not a lucky one."""
        return 2 * len(self.seconds) >= self.seeds > 0 and bool(self.seconds)

    @property
    def share(self) -> str:
        """`5 of 5`."""
        return f"{len(self.seconds)} of {self.seeds}"

    @property
    def cost(self) -> float | None:
        """Of the median's time."""
        return None if self.median is None or self.price is None else self.median / 3600 * self.price


def section(rows: Sequence[Reached]) -> Section:
    """A table of every group and threshold."""
    return Section("Time and cost to accuracy", (READING, cost_table(rows)) if rows else ())


def reached(groups: Sequence[Group], choices: Choices) -> list[Reached]:
    """Every group that was timed, at every threshold: those chosen, or the one that the records suggest."""
    timed = [group for group in groups if group.timed]
    return [
        Reached(
            group=group,
            threshold=threshold,
            seconds=tuple(
                seconds for record in group.records if (seconds := seconds_to(threshold, record)) is not None
            ),
            price=choices.price,
        )
        for threshold in choices.thresholds or suggested(timed)
        for group in timed
    ]


def seconds_to(threshold: float, record: Record) -> float | None:
    """Seconds of training until the test accuracy had reached a threshold; None if it never did."""
    if not record.curve:
        return training_seconds(record) if _end(record) >= threshold else None
    ends = zip(record.curve, after_each_epoch(record), strict=True)
    return next((seconds for epoch, seconds in ends if epoch.test_accuracy >= threshold), None)


def suggested(groups: Sequence[Group]) -> tuple[float, ...]:
    """The highest round accuracy that every backend reaches in half of its seeds, by some protocol."""
    best: dict[tuple[str, str], float] = {}
    for group in groups:
        half = median(
            max((epoch.test_accuracy for epoch in record.curve), default=_end(record))
            for record in group.records
        )
        key = group.cell.track, group.cell.backend
        best[key] = max(best.get(key, 0.0), half)
    threshold = math.floor(min(best.values(), default=0.0) * ROUND + 1e-9) / ROUND
    return (threshold,) if threshold > 0 else ()


def cost_table(rows: Sequence[Reached]) -> Table:
    """One row for each group and threshold."""
    columns: list[Column[Reached]] = [
        Column("accuracy", lambda row: f"{row.threshold:.2f}", number=True),
        Column("run", lambda row: run_of(row.group.records[0])),
        Column("track", lambda row: row.group.cell.track),
        *([Column("data", _data)] if len(set(map(_data, rows))) > 1 else []),
        Column("network", lambda row: network_of(row.group)),
        Column("protocol", lambda row: row.group.protocol),
        Column("backend", lambda row: row.group.backend),
        Column("variant", lambda row: row.group.variant),
        Column("seeds that reach it", lambda row: row.share, number=True),
        Column("seconds", _seconds, number=True, order=lambda row: row.median),
        Column("cost", _cost, number=True, order=lambda row: row.cost),
    ]
    return table_of("Seconds of training to an accuracy", rows, filled(rows, columns))


# --- How ------------------------------------------------------------------------------------------


def _data(row: Reached) -> str:
    return data_title(row.group.records[0])


def _end(record: Record) -> float:
    return record.accuracy.test if record.accuracy else 0.0


def _seconds(row: Reached) -> str:
    if row.median is None:
        return "never"
    spread = f" ({min(row.seconds):.0f} to {max(row.seconds):.0f})" if len(row.seconds) > 1 else ""
    return f"{row.median:.0f}{spread}"


def _cost(row: Reached) -> str:
    return "" if row.cost is None else f"{row.cost:.4f}"
