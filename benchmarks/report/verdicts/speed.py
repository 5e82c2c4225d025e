"""Speed: groups against each other, from cells that ran in alternation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from benchmarks.harness.measurement.figures import Throughput
from benchmarks.harness.record import Record
from benchmarks.report.document import Block, Column, Section, Table, filled, table_of
from benchmarks.report.groups import Group
from benchmarks.report.statistics import ALPHA, Ratio, holm, ratio_of_means
from benchmarks.report.verdicts.comparisons import Kind, Pair, pairs, tracks
from benchmarks.report.verdicts.words import Choices, Outcome, count_of, p_text, verdict


class Metric(msgspec.Struct, frozen=True):
    """What is compared."""

    title: str
    rate: Callable[[Throughput], float]
    """Images/s."""
    sound: Callable[[Throughput], bool]
    """Whether it was steady, and taken while the machine had nothing else to do."""


TRAINING = Metric(
    "Training steps",
    lambda throughput: throughput.train_images_per_second,
    lambda throughput: throughput.steady and _quiet(throughput),
)
EPOCHS = Metric(
    "Whole epochs, input included",
    lambda throughput: throughput.end_to_end_images_per_second,
    lambda throughput: _quiet(throughput),
)
INFERENCE = Metric(
    "Inference",
    lambda throughput: throughput.inference_images_per_second,
    lambda throughput: throughput.inference_conditions is None or not throughput.inference_conditions.noisy,
)
METRICS = (TRAINING, EPOCHS, INFERENCE)
KINDS: tuple[Kind, ...] = ("backends", "variants")


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A pair of groups, and what a paired test says of their speed."""

    pair: Pair
    ratio: Ratio
    """Of the first's rate to the second's, over the seeds in which both ran in alternation."""
    tested: Outcome
    least: float
    """The smallest ratio that could have been shown, whatever became of the table's other tests."""
    margin: float

    @property
    def verdict(self) -> str:
        """In the fixed words."""
        return verdict(
            self.tested,
            *self.pair.names,
            margin=f"{100 * self.margin:g} %",
            least=f"{self.least:.2f} x",
        )


class Left(msgspec.Struct, frozen=True):
    """A pair of groups of which nothing can be said."""

    pair: Pair
    reason: str


def compare(
    kind: Kind, metric: Metric, groups: Sequence[Group], margin: float
) -> tuple[list[Compared], list[Left]]:
    """All comparisons of a kind in one metric as one family of tests, and those that cannot be made."""
    found: list[tuple[Pair, Ratio]] = []
    left = []
    for pair in pairs(kind, [group for group in groups if any(map(_throughput, group.records))]):
        rates, reason = _alternating(pair, metric)
        if len(rates) >= 2:
            first, second = zip(*rates, strict=True)
            found.append((pair, ratio_of_means(first, second, paired=True, margin=margin)))
        else:
            left.append(Left(pair, reason))
    p_values = holm([ratio.p for _, ratio in found])
    equivalence = holm([ratio.equivalence_p for _, ratio in found])
    compared = [
        Compared(
            pair=pair,
            ratio=ratio,
            tested=Outcome(estimate=ratio.model.centre, p=p, equivalence_p=equivalence_p),
            least=ratio.least(ALPHA / len(found)),
            margin=margin,
        )
        for (pair, ratio), p, equivalence_p in zip(found, p_values, equivalence, strict=True)
    ]
    return compared, left


def section(groups: Sequence[Group], choices: Choices) -> Section:
    """A table for each metric and kind of comparison in each track, and why others could not be made."""
    parts = []
    for kind in KINDS:
        for track in tracks(groups):
            of_track = [group for group in groups if group.cell.track == track]
            blocks: list[Block] = []
            for metric in METRICS:
                compared, left = compare(kind, metric, of_track, choices.speed_margin)
                if compared:
                    blocks += [f"{metric.title}:", ratio_table(f"{metric.title}, {kind}, {track}", compared)]
                if left and metric is TRAINING:
                    blocks.append(_left_in_words(left))
            if blocks:
                parts.append(Section(f"Speed of {kind}, {track} track", tuple(blocks)))
    return Section("Speed ratios", (), tuple(parts))


def ratio_table(name: str, compared: Sequence[Compared]) -> Table:
    """One row for each comparison."""
    third = "variant" if compared[0].pair.kind == "backends" else "backend"
    columns: list[Column[Compared]] = [
        *(
            Column(heading, partial(_what, place))
            for place, heading in enumerate(("network", "protocol", third))
        ),
        Column("first", lambda row: row.pair.names[0]),
        Column("second", lambda row: row.pair.names[1]),
        Column("alternations", lambda row: str(row.ratio.pairs), number=True),
        Column("first / second [95 %]", _ratio, number=True, order=lambda row: row.ratio.estimate),
        Column("p (Holm)", lambda row: p_text(row.tested.p), number=True, order=lambda row: row.tested.p),
        Column("verdict", lambda row: row.verdict),
    ]
    return table_of(name, compared, filled(compared, columns))


def ratio_text(ratio: Ratio) -> str:
    """`2.30 [2.21, 2.40]`."""
    return f"{ratio.estimate:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


# --- How ------------------------------------------------------------------------------------------


def _alternating(pair: Pair, metric: Metric) -> tuple[list[tuple[float, float]], str]:
    """The rates of both sides in each seed in which they ran in alternation, undisturbed; and what is to be
    said where these are too few."""
    others = {record.cell.seed: record for record in pair.second.records}
    rates, apart, disturbed = [], 0, 0
    for record in pair.first.records:
        other = others.get(record.cell.seed)
        own, its = _throughput(record), _throughput(other)
        if other is None or own is None or its is None:
            continue
        if record.turn is None or other.turn is None or record.turn.sitting != other.turn.sitting:
            apart += 1
        elif not (metric.sound(own) and metric.sound(its)):
            disturbed += 1
        else:
            rates.append((metric.rate(own), metric.rate(its)))
    reasons = [
        f"{count_of(apart, 'seed')} not run in alternation" if apart else "",
        f"{count_of(disturbed, 'seed')} not steady or disturbed" if disturbed else "",
        "one alternation only" if len(rates) == 1 else "",
    ]
    return rates, ", ".join(filter(None, reasons)) or "no seed timed in both"


def _throughput(record: Record | None) -> Throughput | None:
    return record.throughput if record is not None else None


def _quiet(throughput: Throughput) -> bool:
    return throughput.conditions is None or not throughput.conditions.noisy


def _what(place: int, row: Compared) -> str:
    return row.pair.what[place]


def _ratio(row: Compared) -> str:
    return ratio_text(row.ratio)


def _left_in_words(left: Sequence[Left]) -> str:
    reasons = sorted({one.reason for one in left})
    return (
        f"Not compared: {count_of(len(left), 'pair')} ({'; '.join(reasons)}). A ratio takes two seeds or more"
        " that `python -m benchmarks run --seeds N` ran in alternation in one sitting."
    )
