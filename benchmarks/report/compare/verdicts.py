"""What got worse or better from a baseline to a candidate: by a test, and by more than a threshold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal

import msgspec
import numpy as np

from benchmarks.harness.record import Record
from benchmarks.report.compare.changes import Change, changes_of, foreign, repeatable
from benchmarks.report.compare.pairs import Pair, pair_up
from benchmarks.report.compare.thresholds import Thresholds
from benchmarks.report.statistics import ALPHA, Difference, Ratio, holm, paired_difference, ratio_of_means
from benchmarks.report.verdicts import speed

Verdict = Literal["worse", "better", "no difference shown", "different, below the threshold", "not tested"]
ANOTHER_MACHINE, DISTURBED = "another machine", "noisy or not steady"
ONE_SEED, ONE_SEED_IN_ONE = "one seed each: --seeds 5", "one seed in one run: --seeds 5"
"""Why nothing was tested, where a note says more."""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared."""

    name: str
    unit: str = ""
    by_ratio: bool
    """Candidate over baseline; otherwise candidate less baseline."""
    higher_is_better: bool = True


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """From the baseline to the candidate."""

    estimate: float
    """A difference or a ratio, as the metric has it."""
    low: float
    high: float
    """At 95 %."""
    p: float
    """Of no difference, adjusted for all tests of the table (Holm)."""
    least: float
    """The smallest difference that would have counted, threshold included; of a ratio what it has above 1."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of a pair."""

    cell: str
    """See `Pair.name`."""
    baseline: float | None
    candidate: float | None
    """Means over seeds; geometric ones of what is compared by ratio."""
    seeds: tuple[int, int]
    """How many the means are of."""
    effect: Effect | None
    """Null where nothing was tested."""
    verdict: Verdict
    reason: str = ""
    """Why nothing was tested."""


class MetricTable(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of all pairs that have it."""

    metric: Metric
    rows: tuple[Row, ...]


class LeftOut(msgspec.Struct, frozen=True):
    """A cell that says less than it might."""

    cell: str
    """Its id."""
    reason: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What came of two runs."""

    names: tuple[str, str]
    """Of baseline and candidate."""
    thresholds: Thresholds
    across_machines: bool
    """Whether speeds were compared wherever they were taken."""
    tables: tuple[MetricTable, ...]
    """Those that are not empty."""
    failed: tuple[LeftOut, ...]
    """In the candidate, and ok in the baseline: regressions too."""
    missing: tuple[str, ...]
    """Ids of cells that are ok in the baseline and that the candidate lacks: regressions too, unless allowed.
    A backend that died before it wrote a record left nothing else to see."""
    allow_missing: bool
    recovered: tuple[str, ...]
    """Ids of cells that failed in the baseline and are ok in the candidate."""
    failed_in_both: tuple[str, ...]
    failed_and_gone: tuple[str, ...]
    """Of cells that failed in the baseline and that the candidate lacks."""
    candidate_only: tuple[str, ...]
    disturbed: tuple[tuple[LeftOut, ...], tuple[LeftOut, ...]]
    """Cells of baseline and candidate whose rates are no part of a test."""
    changes: tuple[Change, ...]

    def rows(self, verdict: Verdict) -> list[tuple[Metric, Row]]:
        """Those of this verdict."""
        return [(table.metric, row) for table in self.tables for row in table.rows if row.verdict == verdict]

    @property
    def tested(self) -> int:
        """Comparisons in which there was a test."""
        return sum(row.effect is not None for table in self.tables for row in table.rows)

    @property
    def exit_code(self) -> int:
        """1 where something is worse, failed or is missing, 2 where nothing could be tested, else 0."""
        if self.failed or self.rows("worse") or (self.missing and not self.allow_missing):
            return 1
        return 0 if self.tested else 2


def compare(
    baseline: Sequence[Record],
    candidate: Sequence[Record],
    names: tuple[str, str],
    *,
    thresholds: Thresholds | None = None,
    across_machines: bool = False,
    allow_missing: bool = False,
) -> Comparison:
    """Compare the cells that both runs have.

    Accuracy: the same seeds on the same test images; of a single seed only where it is `repeatable`, since
    otherwise to train again is to get another network. Speed and memory: Welch's test of logarithms over
    seeds, since cells of two runs never alternate.

    Args:
        across_machines: whether speeds are compared although they were taken on different machines.
        allow_missing: whether the candidate may lack cells of the baseline.

    Raises:
        UsageError: no cell is in both, or the data are not the same.
    """
    thresholds = thresholds or Thresholds()
    cells = pair_up(baseline, candidate, names)
    apart = [not across_machines and foreign(pair) for pair in cells.pairs]
    tables = [_judged(ACCURACY, [_accuracy(pair) for pair in cells.pairs], thresholds.accuracy)]
    for metric, figure in FIGURES:
        tests = [
            _ratio(pair, figure, timed=metric != MEMORY, apart=far)
            for pair, far in zip(cells.pairs, apart, strict=True)
        ]
        tables.append(_judged(metric, filter(None, tests), thresholds.speed))
    return Comparison(
        names=names,
        thresholds=thresholds,
        across_machines=across_machines,
        tables=tuple(table for table in tables if table.rows),
        failed=tuple(
            LeftOut(record.cell.id, f"{record.error.type}: {record.error.message}" if record.error else "")
            for record in cells.failed
        ),
        missing=_ids(record for record in cells.baseline_only if record.status == "ok"),
        allow_missing=allow_missing,
        recovered=_ids(cells.recovered),
        failed_in_both=_ids(cells.failed_in_both),
        failed_and_gone=_ids(record for record in cells.baseline_only if record.status != "ok"),
        candidate_only=_ids(cells.candidate_only),
        disturbed=(
            _disturbed(record for pair in cells.pairs for record in pair.baseline),
            _disturbed(record for pair in cells.pairs for record in pair.candidate),
        ),
        changes=changes_of(cells.pairs),
    )


def disturbed(record: Record) -> str:
    """Why the rates of a cell that was timed are left out; empty: they are not."""
    return speed.disturbed(record.throughput) if record.throughput is not None else ""


def _disturbed(records: Iterable[Record]) -> tuple[LeftOut, ...]:
    return tuple(LeftOut(record.cell.id, why) for record in records if (why := disturbed(record)))


def _ids(records: Iterable[Record]) -> tuple[str, ...]:
    return tuple(record.cell.id for record in records)


# --- One test -------------------------------------------------------------------------------------


class _Test(msgspec.Struct, frozen=True, kw_only=True):
    """Before it is judged among its likes."""

    cell: str
    sides: tuple[Sequence[float], Sequence[float]]
    """Figures of the seeds of baseline and candidate."""
    result: Difference | Ratio | None = None
    reason: str = ""


def _accuracy(pair: Pair) -> _Test:
    sides = [
        {record.cell.seed: record.accuracy for record in records if record.accuracy is not None}
        for records in (pair.baseline, pair.candidate)
    ]
    shared = [seed for seed in sides[0] if seed in sides[1]]
    first, second = ([side[seed] for seed in shared or side] for side in sides)
    means = ([one.test for one in first], [one.test for one in second])
    if not shared:
        return _Test(cell=pair.name, sides=means, reason="no seed in both")
    if len({len(one.correct) for one in (*first, *second)}) > 1:
        return _Test(cell=pair.name, sides=means, reason="other test images")
    if len(shared) == 1 and not repeatable(pair, shared[0]):
        return _Test(cell=pair.name, sides=means, reason=ONE_SEED)
    right = [np.array([one.correct for one in side], np.int8) for side in (first, second)]
    return _Test(cell=pair.name, sides=means, result=paired_difference(right[1], right[0]))


Figure = Callable[[Record], "float | None"]


def _ratio(pair: Pair, figure: Figure, *, timed: bool, apart: bool) -> _Test | None:
    """None where neither run has the figure.

    Args:
        timed: whether what disturbs a clock disturbs the figure.
        apart: whether the cells ran on different machines.
    """
    records = (pair.baseline, pair.candidate)
    whole = tuple(_figures(side, figure) for side in records)
    quiet = tuple(
        _figures([one for one in side if not (timed and disturbed(one))], figure) for side in records
    )
    if not any(whole):
        return None
    reason = ""
    if not all(whole):
        reason = "not in both runs"
    elif apart:
        reason = ANOTHER_MACHINE
    elif len({one.throughput is not None for side in records for one in side}) > 1:
        reason = "not all were timed"  # timing takes memory too
    elif min(map(len, whole)) < 2:
        reason = ONE_SEED if max(map(len, whole)) < 2 else ONE_SEED_IN_ONE
    elif min(map(len, quiet)) < 2:
        reason = DISTURBED
    if reason:
        return _Test(cell=pair.name, sides=(whole[0], whole[1]), reason=reason)
    result = ratio_of_means(quiet[1], quiet[0], paired=False)
    return _Test(cell=pair.name, sides=(quiet[0], quiet[1]), result=result)


def _figures(records: Iterable[Record], figure: Figure) -> list[float]:
    return [value for value in map(figure, records) if value is not None]


# --- A table of tests -----------------------------------------------------------------------------


def _judged(metric: Metric, tests: Iterable[_Test], threshold: float) -> MetricTable:
    tests = list(tests)
    results = [test.result for test in tests if test.result is not None]
    adjusted = iter(holm([result.p for result in results]))
    rows = []
    for test in tests:
        effect = None
        if test.result is not None:
            # Holm's first step asks for ALPHA / n: what that shows counts, whatever the others show.
            least = test.result.least(ALPHA / len(results)) - metric.by_ratio
            effect = Effect(
                estimate=test.result.estimate,
                low=test.result.low,
                high=test.result.high,
                p=next(adjusted),
                least=max(least, threshold),
            )
        baseline, candidate = (_mean(side, metric) for side in test.sides)
        rows.append(
            Row(
                cell=test.cell,
                baseline=baseline,
                candidate=candidate,
                seeds=(len(test.sides[0]), len(test.sides[1])),
                effect=effect,
                verdict=_verdict(metric, effect, threshold) if effect else "not tested",
                reason=test.reason,
            )
        )
    return MetricTable(metric=metric, rows=tuple(rows))


def _verdict(metric: Metric, effect: Effect, threshold: float) -> Verdict:
    if effect.p >= ALPHA:
        return "no difference shown"
    rise, least = effect.estimate, threshold
    if metric.by_ratio:
        rise, least = math.log(rise), math.log1p(least)
    if abs(rise) <= least:
        return "different, below the threshold"
    return "better" if (rise > 0) == metric.higher_is_better else "worse"


def _mean(values: Sequence[float], metric: Metric) -> float | None:
    if not values:
        return None
    return float(np.exp(np.mean(np.log(values))) if metric.by_ratio else np.mean(values))


# --- Metrics --------------------------------------------------------------------------------------


def _rate(metric: speed.Metric, record: Record) -> float | None:
    return metric.rate(record.throughput) if record.throughput else None


def _peak_rss(record: Record) -> float | None:
    return record.memory.peak_rss_bytes / 2**30 if record.memory else None


RATE = "images/s"
ACCURACY = Metric(name="accuracy", by_ratio=False)
MEMORY = Metric(name="peak memory", unit="GiB", by_ratio=True, higher_is_better=False)
FIGURES: tuple[tuple[Metric, Figure], ...] = (
    (Metric(name="training", unit=RATE, by_ratio=True), partial(_rate, speed.TRAINING)),
    (Metric(name="inference", unit=RATE, by_ratio=True), partial(_rate, speed.INFERENCE)),
    (Metric(name="end to end", unit=RATE, by_ratio=True), partial(_rate, speed.EPOCHS)),
    (MEMORY, _peak_rss),
)
