"""The verdicts in words, for the first screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import geometric_mean

from benchmarks.harness.plan import DEFAULT_PROTOCOLS
from benchmarks.harness.record import Record
from benchmarks.report.document import Headline
from benchmarks.report.groups import Group, by
from benchmarks.report.labels import place
from benchmarks.report.verdicts import accuracy, circumstances, cost, expense, speed
from benchmarks.report.verdicts.comparisons import at, variant
from benchmarks.report.verdicts.words import (
    ENOUGH_SEEDS,
    count_of,
    equivalent_within,
    in_points,
    least_in_points,
    listed,
    no_difference_shown,
    points,
)


def headlines(
    records: Sequence[Record],
    found: Sequence[Group],
    accuracies: Sequence[accuracy.Family],
    speeds: Sequence[speed.Family],
    reached: Sequence[cost.Reached],
) -> tuple[Headline, ...]:
    """What the records say, the most important first; topics of which they say nothing are left out."""
    accuracies = _usual(accuracies)
    places = {row.pair.scene.place for family in accuracies for row in family.rows}
    places |= {row.pair.scene.place for family in speeds for row in family.rows}
    only = places.pop() if len(places) == 1 else ""
    told = (
        Headline("Scope", tuple(circumstances.scope(records))),
        Headline("Compared", (f"{only}.",) if only else ()),
        Headline("Accuracy", tuple(_accuracy(accuracies, only))),
        Headline("Speed", tuple(_speed(records, speeds, only))),
        Headline("Cost", tuple(expense.seconds(reached, only))),
        Headline("Memory", tuple(expense.memory(found, only))),
        Headline("Latency", tuple(expense.latency(found, only))),
        Headline("Parity", tuple(circumstances.parity(records))),
        Headline("Failed", tuple(circumstances.failed(records))),
        Headline("Not run", tuple(circumstances.not_run(records))),
    )
    return tuple(headline for headline in told if headline.sentences)


# --- Accuracy -------------------------------------------------------------------------------------


def _accuracy(families: Sequence[accuracy.Family], only: str) -> Iterable[str]:
    """Backends against each other; of protocols those that everybody knows."""
    told: list[accuracy.Compared] = []
    for family in families:
        if family.kind == "backends":
            told += family.rows
            for where, rows in by(family.rows, _where_compared):
                outcome = _by_protocol(
                    rows, lambda row: row.pair.first.protocol, lambda of: f": {between_backends(of)}"
                )
                yield f"{at(where, only)}{outcome} ({_sample(rows)})."
        elif family.kind == "protocols":
            known = [
                row
                for row in family.rows
                if {row.pair.first.cell.protocol, row.pair.second.cell.protocol} <= {*DEFAULT_PROTOCOLS}
            ]
            told += known
            for (where, _), rows in by(known, lambda row: (_where_compared(row), row.pair.names[1])):
                outcome = _by_protocol(rows, lambda row: row.pair.names[0], _of_protocols)
                yield f"{at(where, only)}{outcome} ({_sample(rows)})."
    yield from _advice(told)


def _by_protocol(
    rows: Sequence[accuracy.Compared],
    protocol: Callable[[accuracy.Compared], str],
    told: Callable[[Sequence[accuracy.Compared]], str],
) -> str:
    """What the pairs of each protocol say together; protocols of which the same is said, together."""
    outcomes = [(f"{name}{_means(of)}", told(of)) for name, of in by(rows, protocol)]
    return "; ".join(
        f"{listed(name for name, _ in same)}{outcome}" for outcome, same in by(outcomes, lambda one: one[1])
    )


def between_backends(rows: Sequence[accuracy.Compared]) -> str:
    """What the comparisons of backends with each other come to, in one protocol; empty if there are none."""
    if not rows:
        return ""
    shown = [row for row in rows if row.tested.different]
    if shown:
        return ", ".join(map(_higher, shown))
    if not _complete(rows):
        return ", ".join(f"{row.verdict} between {listed(row.pair.names)}" for row in rows)
    sides = _sides(rows)
    who = f"the {len(sides)} frameworks" if len(sides) > 2 else listed(sides)
    if all(row.tested.equivalent for row in rows):
        return f"{equivalent_within(in_points(rows[0].margin))} between {who}"
    return f"{_none_shown(rows)} between {who}"


def _of_protocols(rows: Sequence[accuracy.Compared]) -> str:
    shown = [row.tested.different for row in rows]
    against = f" against {rows[0].pair.names[1]}:"
    where = (
        f" in each of the {len(rows)} frameworks" if len(rows) > 1 else f" in {rows[0].pair.first.backend}"
    )
    if all(shown) and len({row.tested.estimate > 0 for row in rows}) == 1:
        gains = sorted(abs(row.difference.estimate) for row in rows)
        by = " to ".join(dict.fromkeys(map(points, (gains[0], gains[-1]))))
        return f"{against} {'higher' if rows[0].tested.estimate > 0 else 'lower'} by {by} points{where}"
    if all(row.tested.equivalent for row in rows) and not any(shown):
        return f"{against} {equivalent_within(in_points(rows[0].margin))}{where}"
    if not any(shown) and not any(row.tested.equivalent for row in rows):
        return f"{against} {_none_shown(rows)}{where}"
    return f"{against} " + ", ".join(f"{row.verdict} in {row.pair.first.backend}" for row in rows)


def _means(rows: Sequence[accuracy.Compared]) -> str:
    """Mean accuracies of the backends, where it is these that are compared."""
    if rows[0].pair.kind != "backends":
        return ""
    means = sorted(
        {
            f"{group.correct(row.seeds).mean():.3f}"
            for row in rows
            for group in (row.pair.first, row.pair.second)
        }
    )
    return f" ({means[0]} in each)" if len(means) == 1 else f" ({means[0]} to {means[-1]})"


def _none_shown(rows: Sequence[accuracy.Compared]) -> str:
    return no_difference_shown(least_in_points(max(row.least for row in rows)))


def _higher(row: accuracy.Compared) -> str:
    higher, lower = row.pair.names if row.tested.estimate > 0 else row.pair.names[::-1]
    small = f" ({equivalent_within(in_points(row.margin))})" if row.tested.equivalent else ""
    return f"{higher} higher by {_interval(row)} points than {lower}{small}"


def _sides(rows: Sequence[accuracy.Compared]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.pair.names))


def _complete(rows: Sequence[accuracy.Compared]) -> bool:
    """Whether every side was compared with every other."""
    sides = len(_sides(rows))
    return len(rows) == sides * (sides - 1) // 2


def _sample(rows: Sequence[accuracy.Compared]) -> str:
    seeds = sorted({len(row.seeds) for row in rows})
    of_seeds = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else count_of(seeds[0], "seed")
    return f"{of_seeds} x {rows[0].difference.images} test images"


def _interval(row: accuracy.Compared) -> str:
    found = row.difference
    low, high = sorted((abs(found.low), abs(found.high)))
    if found.low < 0 < found.high:  # Holm's p-values and McNemar's are no interval's
        low = 0.0
    return f"{points(abs(found.estimate))} [{points(low)}, {points(high)}]"


def _advice(rows: Sequence[accuracy.Compared]) -> Iterable[str]:
    if any(len(row.seeds) == 1 for row in rows):
        yield f"one seed speaks of itself alone: `--seeds {ENOUGH_SEEDS}` speaks of others."
        return
    undecided = [row for row in rows if not row.tested.different and not row.tested.equivalent]
    few = [row for row in undecided if len(row.seeds) < ENOUGH_SEEDS]
    expected = [row.difference.least_of(ENOUGH_SEEDS, row.alpha) for row in few]
    known = [least for least in expected if least is not None]
    if known:
        least = " to ".join(dict.fromkeys(map(points, (min(known), max(known)))))
        yield (
            f"where nothing was shown, {ENOUGH_SEEDS} seeds (`--seeds {ENOUGH_SEEDS}`) that vary as these do"
            f" would show a measured difference of {least} points."
        )


# --- Speed ----------------------------------------------------------------------------------------


def _speed(records: Sequence[Record], families: Sequence[speed.Family], only: str) -> Iterable[str]:
    """Of the matched track alone, in the native one networks differ too; and of whole epochs, for which a
    user waits."""
    told, reasons = False, set()
    for family in families:
        of_what = family.kind, family.division.track, family.metric
        if of_what != ("backends", "matched", speed.EPOCHS):
            continue
        reasons |= {one.reason for one in family.left}
        for where, compared in by(family.rows, _where_compared):
            told = True
            left = [one for one in family.left if _where_compared(one) == where]
            lost = _lost(compared, left)
            for protocol, rows in by(compared, _protocol_of):
                if not _first_screen(rows[0], compared[0]):
                    continue
                yield f"{at(where, only)}{protocol}: {_ranked(rows)}{_absent(rows, left)}{lost}."
                lost = ""
        compared_somewhere = set(map(_where_compared, family.rows))
        for where, left in by(family.left, _where_compared):
            if family.rows and where not in compared_somewhere:
                reasons_here = _in_brackets({one.reason for one in left})
                yield f"{at(where, only)}no framework is called faster{reasons_here}."
    if not told and any(record.throughput for record in records):
        yield (
            f"no framework is called faster{_in_brackets(reasons)}: that takes two seeds or more of the"
            " matched track in alternation on a quiet machine, as `python -m benchmarks run --seeds 3` runs"
            " them."
        )


def _ranked(rows: Sequence[speed.Compared]) -> str:
    """The fastest with its rate, and how much faster it is than each of the others."""
    rates = _rates(rows)
    fastest = max(rates, key=lambda name: rates[name])
    told = []
    for row in rows:
        if fastest not in row.pair.names:
            continue
        turned = row.pair.names[1] == fastest
        other = row.pair.names[0 if turned else 1]
        if row.tested.different:
            told.append(f"{_factor(row, turned)} x {other}")
        else:  # without its own interval, which is not corrected for the table's other tests
            measured = 1 / row.ratio.estimate if turned else row.ratio.estimate
            told.append(f"{measured:.2f} x {other} measured, {row.verdict}")
    return f"{fastest} trains {rates[fastest]:.1f} images/s in whole epochs: {'; '.join(told)}"


def _rates(rows: Sequence[speed.Compared]) -> dict[str, float]:
    """Of each side, over the seeds in which it was compared: the geometric mean."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        for one in row.alternations:
            for name, rate in zip(row.pair.names, (one.first, one.second), strict=True):
                found.setdefault(name, {})[one.seed] = rate
    return {name: geometric_mean(rates.values()) for name, rates in found.items()}


def _absent(rows: Sequence[speed.Compared], left: Sequence[speed.Left]) -> str:
    """Those of the same scene that could be compared with none."""
    present = {name for row in rows for name in row.pair.names}
    absent = {
        name: one.reason
        for one in left
        if one.pair.scene == rows[0].pair.scene
        for name in one.pair.names
        if name not in present
    }
    return "".join(f"; {name} not compared ({reason})" for name, reason in absent.items())


def _first_screen(one: speed.Compared | speed.Left, most: speed.Compared) -> bool:
    """Whether a protocol's speeds are told: those of what trains the most, and of all protocols that
    everybody knows."""
    protocol = one.pair.first.cell.protocol
    return protocol in DEFAULT_PROTOCOLS or place(protocol) <= place(most.pair.first.cell.protocol)


def _lost(compared: Sequence[speed.Compared], left: Sequence[speed.Left]) -> str:
    """Protocols whose speeds would be told, and of which no two backends could be compared."""
    present = set(map(_protocol_of, compared))
    reasons = {_protocol_of(one): one.reason for one in left if _first_screen(one, compared[0])}
    return "".join(
        f"; {protocol} not compared ({reason})"
        for protocol, reason in reasons.items()
        if protocol not in present
    )


def _in_brackets(reasons: Iterable[str]) -> str:
    told = "; ".join(sorted(reasons))
    return f" ({told})" if told else ""


def _factor(row: speed.Compared, turned: bool) -> str:
    ratio = row.ratio
    if turned:
        return speed.ratio_text(1 / ratio.estimate, 1 / ratio.high, 1 / ratio.low)
    return speed.ratio_text(ratio.estimate, ratio.low, ratio.high)


# --- How ------------------------------------------------------------------------------------------


def _protocol_of(row: speed.Compared | speed.Left) -> str:
    return row.pair.first.protocol


def _where_compared(row: accuracy.Compared | speed.Compared | speed.Left) -> str:
    """On what two backends or protocols were compared, and in which variant, if it is not the usual one."""
    return f"{row.pair.scene.place}{variant(row.pair.first)}"


def _usual(families: Sequence[accuracy.Family]) -> list[accuracy.Family]:
    """Those of the usual variant where there are any: the first screen is for these."""
    usual = {(family.kind, family.division.track) for family in families if family.division.usual}
    return [
        family
        for family in families
        if family.division.usual or (family.kind, family.division.track) not in usual
    ]
