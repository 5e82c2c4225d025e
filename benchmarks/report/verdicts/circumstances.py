"""What a verdict rests on, and what it does not cover, for the first screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import backends
from benchmarks.harness.images.data import DRAWN
from benchmarks.harness.plan import DEFAULT_PROTOCOLS
from benchmarks.harness.record import Gate, Record
from benchmarks.report.labels import USUAL, backend_title, scored, shows_hot_dogs
from benchmarks.report.verdicts.words import ENOUGH_SEEDS, count_of, listed

MOST_FAILED = 3
"""Failed cells that the first screen names."""


def scope(records: Sequence[Record]) -> Iterable[str]:
    """What keeps these records from being an answer."""
    drawn = all(record.cell.data.name in DRAWN for record in records)
    smoke = all(record.cell.profile == "smoke" for record in records)
    if records and (drawn or smoke):
        what = [*(["drawn images"] if drawn else []), *(["the small profile `smoke`"] if smoke else [])]
        yield (
            f"a trial, on {listed(what)}: no ground to choose a framework by. That takes photographs: `python"
            f" -m benchmarks run --data hotdog --profile cpu --seeds {ENOUGH_SEEDS}`."
        )
    elif records and not scored(records):
        yield (
            "speeds alone, of short trainings on a few of the images: no word about accuracy. That takes"
            " `--profile cpu`."
        )


def parity(records: Sequence[Record]) -> Iterable[str]:
    """How closely each backend computed what the reference computes."""
    gates: dict[tuple[str, ...], Gate] = {}
    for record in records:
        gate, cell = record.gate, record.cell
        if gate is not None and cell.precision == USUAL["precision"]:
            network = gate.network or cell.architecture
            key = (cell.backend, network, gate.mode, cell.variant, cell.device)
            if key not in gates or not gate.passed:
                gates[key] = gate
    if not gates:
        return
    passed = [gate for gate in gates.values() if gate.passed]
    if len(passed) < len(gates):
        names = listed(
            sorted({f"{backend_title(key[0])} {key[1]}" for key in gates if not gates[key].passed})
        )
        yield (
            f"{len(gates) - len(passed)} of {len(gates)} checks against the reference failed ({names}): their"
            " cells were not trained."
        )
    if not passed:
        return
    pairs = len({key[:2] for key, gate in gates.items() if gate.passed})
    gradients, steps, logits = (
        _worst(passed, error)
        for error in (
            lambda gate: gate.gradient_error,
            lambda gate: gate.step_error,
            lambda gate: gate.logit_error,
        )
    )
    yield (
        "before training each framework computed what the reference computes: in float64 gradients agree to"
        f" {gradients}, weights after 5 steps to {steps}; in float32 logits to {logits}. {len(passed)} of"
        f" {len(gates)} such checks passed ({count_of(pairs, 'pair')} of framework and network)."
    )


def failed(records: Sequence[Record]) -> Iterable[str]:
    """Which cells did."""
    names = [record.cell.id for record in records if record.status == "failed"]
    if names:
        count = len(names)
        if len(names) > MOST_FAILED:
            names = [*names[:MOST_FAILED], f"{len(names) - MOST_FAILED} more"]
        yield f"{count} of {count_of(len(records), 'cell')}, the reasons stand below: {listed(names)}."


def not_run(records: Sequence[Record]) -> Iterable[str]:
    """What is not in the records, with the command that would put it there."""
    cells = [record.cell for record in records]
    if cells and all(cell.device == "cpu" for cell in cells):
        yield "GPU: `python -m benchmarks run --device cuda --profile full --data hotdog` would."
    present = {cell.backend for cell in cells}
    absent = [name for name in backends.known() if name not in present]
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
    if cells and all(cell.track == "matched" for cell in cells):
        yield "each framework as its users write it: `--track native`."
    hot_dogs = {cell.data.name for cell in cells if shows_hot_dogs(cell.data)}
    if hot_dogs and "hotdog" not in hot_dogs:
        yield "the book's own photographs of hot dogs: `--data hotdog` fetches them."
    missing = [name for name in DEFAULT_PROTOCOLS if name not in {cell.protocol for cell in cells}]
    if cells and missing:
        yield f"{listed(missing)}: `--protocol {','.join(missing)}`."


# --- How ------------------------------------------------------------------------------------------


def _worst(gates: Iterable[Gate], error: Callable[[Gate], float | None]) -> str:
    errors = [error(gate) for gate in gates]
    known = [value for value in errors if value is not None]
    return f"{max(known):.0e}" if known and len(known) == len(errors) else "no finite figure"
