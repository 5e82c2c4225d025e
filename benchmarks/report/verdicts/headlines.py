"""The verdicts in words, for the first screen."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import backends
from benchmarks.harness.plan import DEFAULT_PROTOCOLS
from benchmarks.harness.record import Gate, Record
from benchmarks.report.document import Headline
from benchmarks.report.groups import Group
from benchmarks.report.labels import USUAL, backend_title
from benchmarks.report.statistics import spread
from benchmarks.report.verdicts import accuracy, cost, speed
from benchmarks.report.verdicts.comparisons import tracks
from benchmarks.report.verdicts.words import Choices, count_of, in_points, listed, points

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


def headlines(records: Sequence[Record], groups: Sequence[Group], choices: Choices) -> tuple[Headline, ...]:
    """What the records say, the most important first; topics of which they say nothing are left out."""
    told = (
        Headline("Accuracy", tuple(_accuracy(groups, choices))),
        Headline("Speed", tuple(_speed(groups, choices))),
        Headline("Cost", tuple(_cost(groups, choices))),
        Headline("Parity", tuple(_parity(records))),
        Headline("Failed", tuple(_failed(records))),
        Headline("Not run", tuple(_not_run(records))),
    )
    return tuple(headline for headline in told if headline.sentences)


# --- Accuracy -------------------------------------------------------------------------------------


ENOUGH_SEEDS = 5
"""With three, a standard error has two degrees of freedom, and nine tests ask for differences of 13 of them;
with five, of 6."""


def _accuracy(groups: Sequence[Group], choices: Choices) -> Iterable[str]:
    usual = _usual(groups)
    for track in tracks(usual):
        of_track = [group for group in usual if group.cell.track == track]
        backends_compared = accuracy.compare("backends", of_track, choices.margin)
        protocols_compared = accuracy.compare("protocols", of_track, choices.margin)
        for network, rows in _by(backends_compared, lambda row: row.pair.what[0]):
            yield f"{_network(track, network)} ({_sample(rows)}), {_by_outcome(rows, 1, _of_backends)}."
        from_scratch = [row for row in protocols_compared if row.pair.second.cell.protocol == "scratch"]
        for network, rows in _by(from_scratch, lambda row: row.pair.what[0]):
            yield f"{_network(track, network)}, against scratch: {_by_outcome(rows, None, _of_protocols)}."
        if _too_few([*backends_compared, *protocols_compared]):
            yield f"{ENOUGH_SEEDS} seeds or more show much smaller differences: `--seeds {ENOUGH_SEEDS}`."


def _by_outcome(
    rows: Sequence[accuracy.Compared],
    protocol_at: int | None,
    told: Callable[[Sequence[accuracy.Compared]], str],
) -> str:
    """What the pairs of each protocol say together; protocols of which the same is said, together.

    Args:
        protocol_at: its place in what a pair shares; None: it is the first of the pair.
    """

    def protocol(row: accuracy.Compared) -> str:
        return row.pair.names[0] if protocol_at is None else row.pair.what[protocol_at]

    outcomes = [(name, told(of)) for name, of in _by(rows, protocol)]
    return "; ".join(
        f"{listed(name for name, _ in same)}{outcome}" for outcome, same in _by(outcomes, lambda one: one[1])
    )


def _of_backends(rows: Sequence[accuracy.Compared]) -> str:
    shown = [row for row in rows if row.tested.different]
    if shown:
        return ": " + ", ".join(
            f"{row.verdict} by {_interval(row)} points than {_lower(row)}" for row in shown
        )
    sides = list(dict.fromkeys(name for row in rows for name in row.pair.names))
    who = f"the {len(sides)} frameworks" if len(sides) > 2 else listed(sides)
    if all(row.tested.equivalent for row in rows):
        return f": equivalent within {in_points(rows[0].margin)} in {who}"
    return f": no difference shown between {who} {_least(rows)}"


def _of_protocols(rows: Sequence[accuracy.Compared]) -> str:
    shown = [row.tested.different for row in rows]
    where = (
        f" in each of the {len(rows)} frameworks" if len(rows) > 1 else f" in {rows[0].pair.first.backend}"
    )
    if all(shown) and len({row.tested.estimate > 0 for row in rows}) == 1:
        gains = sorted(abs(row.difference.estimate) for row in rows)
        by = points(gains[0]) if len(rows) == 1 else f"{points(gains[0])} to {points(gains[-1])}"
        return f" {'higher' if rows[0].tested.estimate > 0 else 'lower'} by {by} points{where}"
    if not any(shown):
        return f": no difference shown{where} {_least(rows)}"
    return ": " + ", ".join(f"{row.verdict} in {row.pair.first.backend}" for row in rows)


def _least(rows: Sequence[accuracy.Compared]) -> str:
    return f"(could have shown {points(max(row.least for row in rows))} points)"


def _lower(row: accuracy.Compared) -> str:
    return row.pair.names[1 if row.tested.estimate > 0 else 0]


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


def _too_few(rows: Sequence[accuracy.Compared]) -> bool:
    undecided = (row for row in rows if not row.tested.different and not row.tested.equivalent)
    return any(len(row.seeds) < ENOUGH_SEEDS for row in undecided)


# --- Speed ----------------------------------------------------------------------------------------


def _speed(groups: Sequence[Group], choices: Choices) -> Iterable[str]:
    told = False
    for track in tracks(groups):
        of_track = [group for group in groups if group.cell.track == track]
        compared, _ = speed.compare("backends", speed.TRAINING, of_track, choices.speed_margin)
        for (network, variant), rows in _by(compared, lambda row: (row.pair.what[0], row.pair.what[2])):
            told = True
            protocol, of_protocol = _by(rows, lambda row: row.pair.what[1])[0]  # what trains the most
            what = ", ".join((_network(track, network), *_but_usual((protocol, variant))))
            yield f"{what}: {_ranked(of_protocol)}."
    if not told and any(record.throughput for group in groups for record in group.records):
        yield (
            "no framework is called faster: that takes two seeds or more in alternation, as `python -m"
            " benchmarks run --seeds 3` runs them."
        )


def _ranked(rows: Sequence[speed.Compared]) -> str:
    """The fastest with its rate, and how much faster it is than each of the others."""
    groups = {group.backend: group for row in rows for group in (row.pair.first, row.pair.second)}
    rates = {name: _mean_rate(group) for name, group in groups.items()}
    fastest = max(rates, key=lambda name: rates[name])
    told = []
    for row in rows:
        if fastest not in row.pair.names:
            continue
        turned = row.pair.names[1] == fastest
        other = row.pair.names[0 if turned else 1]
        if row.tested.different:
            told.append(f"{_factor(row, turned)} x {other}")
        else:
            told.append(f"{other}: {row.verdict}")
    return f"{fastest} trains {rates[fastest]:.1f} images/s, {', '.join(told)}"


def _factor(row: speed.Compared, turned: bool) -> str:
    ratio = row.ratio
    if turned:
        return f"{1 / ratio.estimate:.2f} [{1 / ratio.high:.2f}, {1 / ratio.low:.2f}]"
    return speed.ratio_text(ratio)


def _mean_rate(group: Group) -> float:
    return spread(
        [record.throughput.train_images_per_second for record in group.records if record.throughput]
    ).mean


# --- Cost -----------------------------------------------------------------------------------------


def _cost(groups: Sequence[Group], choices: Choices) -> Iterable[str]:
    for track in tracks(groups):
        rows = cost.reached([group for group in _usual(groups) if group.cell.track == track], choices)
        for threshold, at in _by(rows, lambda row: row.threshold):
            quickest: dict[str, cost.Reached] = {}
            for row in at:
                best = quickest.get(row.group.backend)
                if row.median is not None and (best is None or row.median < (best.median or 0.0)):
                    quickest[row.group.backend] = row
            if quickest:
                told = ", ".join(_seconds(row) for row in quickest.values())
                yield f"{track}, to reach {threshold:.2f} by the quickest protocol: {told}."


def _seconds(row: cost.Reached) -> str:
    price = "" if row.cost is None else f", {row.cost:.4f} at {row.price:g} an hour"
    return f"{row.group.backend} {row.median:.0f} s ({row.group.protocol}; {row.share} seeds{price})"


# --- Parity, and what is missing ------------------------------------------------------------------


def _parity(records: Sequence[Record]) -> Iterable[str]:
    gates = {
        (record.cell.backend, record.gate.network or record.cell.architecture, record.gate.mode): record.gate
        for record in records
        if record.gate is not None and record.cell.precision == USUAL["precision"]
    }
    if not gates:
        return
    passed = sum(gate.passed for gate in gates.values())
    pairs = len({(backend, network) for backend, network, _ in gates})
    gradients, steps, logits = (
        _worst(gates.values(), error)
        for error in (
            lambda gate: gate.gradient_error,
            lambda gate: gate.step_error,
            lambda gate: gate.logit_error,
        )
    )
    yield (
        f"in float64 gradients agree to {gradients}, weights after 5 steps to {steps}; in float32 logits to"
        f" {logits}. {passed} of {len(gates)} gates passed ({count_of(pairs, 'pair')} of framework and"
        " network)."
    )


def _worst(gates: Iterable[Gate], error: Callable[[Gate], float | None]) -> str:
    errors = [error(gate) for gate in gates]
    known = [value for value in errors if value is not None]
    return f"{max(known):.0e}" if known and len(known) == len(errors) else "no finite figure"


def _failed(records: Sequence[Record]) -> Iterable[str]:
    failed = [record for record in records if record.status == "failed"]
    if failed:
        yield f"{len(failed)} of {count_of(len(records), 'cell')}: the reasons stand below."


def _not_run(records: Sequence[Record]) -> Iterable[str]:
    cells = [record.cell for record in records]
    if cells and all(cell.device == "cpu" for cell in cells):
        yield "GPU: `python -m benchmarks run --device cuda --profile full --data hotdog` would."
    present = {cell.backend for cell in cells}
    absent = [name for name in _known() if name not in present]
    if cells and absent:
        names = listed(backend_title(name) for name in absent)
        yield f"{names}: `tox run -m bench` runs every framework in an environment of its own."
    drawn = sorted(
        {
            f"{cell.architecture} ({backend_title(cell.backend)})"
            for cell in cells
            if cell.track == "native" and cell.weights.name == "source" and cell.protocol != "scratch"
        }
    )
    if drawn:
        yield (
            f"official ImageNet weights of {listed(drawn)}, which start from drawings: `--weights imagenet`."
        )
    missing = [name for name in DEFAULT_PROTOCOLS if name not in {cell.protocol for cell in cells}]
    if cells and missing:
        yield f"{listed(missing)}: `--protocol {','.join(missing)}`."


# --- How ------------------------------------------------------------------------------------------


def _known() -> list[str]:
    return list(backends.known())


def _usual(groups: Sequence[Group]) -> list[Group]:
    """Those of the usual variant where there are any: the first screen is for these."""
    return [group for group in groups if not group.variant] or list(groups)


def _network(track: str, network: str) -> str:
    return f"{track} {network}" if track == "matched" else track


def _but_usual(words: Iterable[str]) -> list[str]:
    return [word for word in words if word != USUAL["variant"]]


def _by(items: Iterable[Item], key: Callable[[Item], Key]) -> list[tuple[Key, list[Item]]]:
    """Items by key, in the order in which keys first come."""
    found: dict[Key, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.items())
