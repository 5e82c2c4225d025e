"""Accuracy: of each group, and of groups against each other on the same test images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from benchmarks.report.document import Column, Section, Table, filled, table_of
from benchmarks.report.groups import Group
from benchmarks.report.labels import run_of
from benchmarks.report.statistics import (
    ALPHA,
    Difference,
    Interval,
    holm,
    paired_difference,
    spread,
    wilson,
)
from benchmarks.report.verdicts.comparisons import Division, Kind, Pair, divisions, in_full, network_of, pairs
from benchmarks.report.verdicts.words import (
    Outcome,
    in_points,
    least_in_points,
    p_text,
    points,
    verdict,
)

TITLES: dict[Kind, str] = {
    "backends": "Backends against each other",
    "protocols": "Protocols against each other",
    "variants": "Variants against the default",
}
OF_SEEDS, OF_IMAGES = "seeds", "images"


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A pair of groups, and what a paired test says of their accuracy."""

    pair: Pair
    seeds: tuple[int, ...]
    """Those that both have."""
    difference: Difference
    tested: Outcome
    alpha: float
    """Of this test, if no other of the table showed anything."""
    margin: float

    @property
    def least(self) -> float:
        """The smallest difference that could have been shown, whatever became of the table's other tests."""
        return self.difference.least(self.alpha)

    @property
    def verdict(self) -> str:
        """In the fixed words."""
        return verdict(
            self.tested,
            *self.pair.names,
            margin=in_points(self.margin),
            least=least_in_points(self.least),
        )


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """All comparisons of a kind in a division: of these the p-values are Holm's."""

    kind: Kind
    division: Division
    rows: tuple[Compared, ...]


def families(groups: Sequence[Group], margin: float) -> list[Family]:
    """Every comparison that the groups allow."""
    return [
        Family(kind=kind, division=division, rows=tuple(rows))
        for kind in TITLES
        for division in divisions(kind, groups)
        if (rows := compare(kind, division.groups, margin))
    ]


def compare(kind: Kind, groups: Sequence[Group], margin: float) -> list[Compared]:
    """All comparisons of a kind, as one family of tests."""
    return tested(pairs(kind, groups), margin)


def tested(members: Iterable[Pair], margin: float) -> list[Compared]:
    """Pairs that share a seed, as one family of tests: p-values are Holm's, over all of them."""
    found = []
    for pair in members:
        seeds = tuple(sorted(set(pair.first.seeds) & set(pair.second.seeds)))
        if seeds:
            sides = pair.first.correct(seeds), pair.second.correct(seeds)
            found.append((pair, seeds, paired_difference(*sides, margin=margin)))
    p_values = holm([difference.p for _, _, difference in found])
    equivalence = holm([difference.equivalence_p for _, _, difference in found])
    return [
        Compared(
            pair=pair,
            seeds=seeds,
            difference=difference,
            tested=Outcome(estimate=difference.estimate, p=p, equivalence_p=equivalence_p),
            alpha=ALPHA / len(found),
            margin=margin,
        )
        for (pair, seeds, difference), p, equivalence_p in zip(found, p_values, equivalence, strict=True)
    ]


def section(groups: Sequence[Group], families: Sequence[Family]) -> Section:
    """The accuracy of each group, and a table for each family."""
    parts = []
    for family in families:
        title = f"{TITLES[family.kind]}, {family.division.title}"
        parts.append(Section(title, (comparison_table(title, family.rows),)))
    return Section("Accuracy", (groups_table(groups),) if groups else (), tuple(parts))


def groups_table(groups: Sequence[Group]) -> Table:
    """One row for each group: how accurate, and how sure."""
    columns: list[Column[Group]] = [
        *filled(groups, [Column("run", lambda group: run_of(group.records[0]))]),
        Column("track", lambda group: group.cell.track),
        *([Column("data", _data)] if len({group.cell.data.sha256 for group in groups}) > 1 else []),
        Column("network", network_of),
        Column("protocol", lambda group: group.protocol),
        Column("backend", lambda group: group.backend),
        *filled(groups, [Column("variant", lambda group: group.variant), Column("sample", _sample)]),
        Column("weights", lambda group: group.cell.weights.name),
        Column("seeds", lambda group: str(len(group.seeds)), number=True),
        Column("mean accuracy", _mean, number=True, order=lambda group: spread(group.accuracies).mean),
        *filled(groups, [Column("standard deviation", _deviation, number=True)]),
        Column("95 % interval", interval_text),
        Column("interval of", _interval_of),
        *filled(groups, [Column("lowest to highest", _range)]),
    ]
    return table_of("Test accuracy over seeds", groups, columns)


def comparison_table(name: str, compared: Sequence[Compared]) -> Table:
    """One row for each comparison."""
    columns: list[Column[Compared]] = [
        *shared_columns(compared[0].pair.kind),
        Column("first", lambda row: row.pair.names[0]),
        Column("second", lambda row: row.pair.names[1]),
        Column("verdict", lambda row: row.verdict),
        Column("seeds", lambda row: str(len(row.seeds)), number=True),
        Column(
            "difference, points [95 %]",
            _difference,
            number=True,
            order=lambda row: row.difference.estimate,
        ),
        Column("bootstrap [95 %]", _bootstrap, number=True, order=lambda row: row.difference.bootstrap.low),
        Column("McNemar p of each seed", _mcnemar),
        Column("p (Holm)", lambda row: p_text(row.tested.p), number=True, order=lambda row: row.tested.p),
        Column(
            "p of inequivalence (Holm)",
            lambda row: p_text(row.tested.equivalence_p),
            number=True,
            order=lambda row: row.tested.equivalence_p,
        ),
    ]
    return table_of(name, compared, columns)


def shared_columns(kind: Kind) -> list[Column[Any]]:
    """What the two sides of each row's `pair` share."""
    shared: dict[Kind, Column[Any]] = {
        "protocols": Column("protocol", lambda row: row.pair.first.protocol),
        "backends": Column("backend", lambda row: row.pair.first.backend),
        "variants": Column("variant", lambda row: in_full(row.pair.first)),
    }
    return [
        Column("on", lambda row: row.pair.scene.place),
        *(column for other, column in shared.items() if other != kind),
    ]


# --- How ------------------------------------------------------------------------------------------


def _mean(group: Group) -> str:
    return f"{spread(group.accuracies).mean:.3f}"


def _deviation(group: Group) -> str:
    deviation = spread(group.accuracies).deviation
    return "" if deviation is None else f"{deviation:.3f}"


def accuracy_text(group: Group) -> str:
    """The mean over seeds with its interval: `0.945 [0.933, 0.957]`."""
    return f"{_mean(group)} {interval_text(group)}"


def accuracy_heading(groups: Iterable[Group]) -> str:
    """Of a column of these: the test accuracy, and of what its intervals are."""
    kinds = sorted({len(group.seeds) > 1 for group in groups}, reverse=True)
    of = [OF_SEEDS if several else OF_IMAGES for several in kinds]
    return f"test accuracy [95 % over {' or, of one seed, '.join(of)}]" if of else "test accuracy"


def interval(group: Group) -> Interval:
    """Of the mean over seeds (Student's t), or of a single seed over images (Wilson)."""
    found = spread(group.accuracies).interval
    if found is None:
        accuracy = group.records[0].accuracy
        assert accuracy is not None
        found = wilson(sum(accuracy.correct), accuracy.images)
    return Interval(max(found.low, 0.0), min(found.high, 1.0))


def interval_text(group: Group) -> str:
    """`[0.933, 0.957]`."""
    found = interval(group)
    return f"[{found.low:.3f}, {found.high:.3f}]"


def _interval_of(group: Group) -> str:
    return "the mean over seeds" if len(group.seeds) > 1 else "this seed, over images"


def _range(group: Group) -> str:
    low, high = min(group.accuracies), max(group.accuracies)
    return "" if len(group.accuracies) < 2 else f"{low:.3f} to {high:.3f}"


def _data(group: Group) -> str:
    return group.cell.data.name


def _sample(group: Group) -> str:
    return "resampled" if group.cell.resampled else ""


def _difference(row: Compared) -> str:
    found = row.difference
    return difference_text(found.estimate, found.low, found.high)


def _bootstrap(row: Compared) -> str:
    interval = row.difference.bootstrap
    return f"[{points(interval.low, sign=True)}, {points(interval.high, sign=True)}]"


def difference_text(estimate: float, low: float, high: float) -> str:
    """`+2.3 [+1.1, +3.5]`, in points."""
    return " ".join((points(estimate, sign=True), f"[{points(low, sign=True)}, {points(high, sign=True)}]"))


def _mcnemar(row: Compared) -> str:
    return ", ".join(p_text(p) for p in row.difference.mcnemar)
