"""What else differs between two runs: the machine that a speed belongs to, and where to look for a cause."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from benchmarks.harness.record import Environment, Record
from benchmarks.report.compare.pairs import Pair
from benchmarks.report.labels import backend_title

LONGEST = 60
"""Letters of a value that is shown; the rest is in the records."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a speed belongs to, beside the device, which is in a cell's id."""

    cpu: str
    cores: int
    threads: int
    ram: int
    """GiB, rounded: the same machine reports some MiB more or less after each boot."""
    gpu: str | None
    """Without its driver, which is software."""


def machine_of(environment: Environment) -> Machine:
    """The machine that a cell ran on."""
    return Machine(
        cpu=environment.cpu,
        cores=environment.cores,
        threads=environment.threads,
        ram=round(environment.ram_bytes / 2**30),
        gpu="; ".join(_gpus(environment, 0)) or None,
    )


def machines_of(pair: Pair) -> tuple[set[Machine], set[Machine]]:
    """The machines of the baseline's cells, and of the candidate's."""
    first, second = (
        {machine_of(record.environment) for record in records if record.environment is not None}
        for records in (pair.baseline, pair.candidate)
    )
    return first, second


def foreign(pair: Pair) -> bool:
    """Whether its cells did not all run on one machine, or one does not say on which."""
    records = (*pair.baseline, *pair.candidate)
    first, second = machines_of(pair)
    return len(first | second) != 1 or any(record.environment is None for record in records)


def repeatable(pair: Pair, seed: int) -> bool:
    """Whether nothing but the software can have made a seed's networks differ: both are bit-equal from run to
    run, and on one machine they began with the same values and saw the same bytes."""
    first, second = (
        next(record for record in records if record.cell.seed == seed)
        for records in (pair.baseline, pair.candidate)
    )
    initial = first.cell.weights.initial_sha256
    return (
        first.cell.variant == second.cell.variant == "reproducible"
        and initial is not None
        and initial == second.cell.weights.initial_sha256
        and len(first.batches_sha256) > 0
        and first.batches_sha256 == second.batches_sha256
        and not foreign(pair)
    )


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A fact that is not the same in both runs."""

    what: str
    before: str
    after: str
    """In words; several values where the cells of one run differ already."""
    where: tuple[str, ...] = ()
    """The backends or, where not all their cells have it, the pairs; empty: everywhere."""


def changes_of(pairs: Sequence[Pair]) -> tuple[Change, ...]:
    """Everything that records say of machine, software, settings and input, as far as it changed."""
    found: dict[tuple[str, str, str], list[Pair]] = {}
    for pair in pairs:
        shared = {one.cell.seed for one in pair.baseline} & {one.cell.seed for one in pair.candidate}
        first, second = (_facts_of(side, shared) for side in (pair.baseline, pair.candidate))
        for what in dict.fromkeys((*first, *second)):
            before, after = (" or ".join(sorted(side.get(what, {NONE}))) for side in (first, second))
            if before != after:
                found.setdefault((what, before, after), []).append(pair)
    return tuple(
        Change(what=what, before=before, after=after, where=_where(members, pairs))
        for (what, before, after), members in found.items()
    )


# --- How ------------------------------------------------------------------------------------------

NONE = "none"
"""Where a run does not have, or a record does not say."""


def _where(members: Sequence[Pair], pairs: Sequence[Pair]) -> tuple[str, ...]:
    if len(members) == len(pairs):
        return ()
    backends = {_backend(pair) for pair in members}
    if len(members) == sum(_backend(pair) in backends for pair in pairs):
        return tuple(sorted(backend_title(backend) for backend in backends))
    return tuple(pair.name for pair in members)


def _backend(pair: Pair) -> str:
    return pair.baseline[0].cell.backend


def _facts_of(records: Iterable[Record], seeds: set[int]) -> dict[str, set[str]]:
    """Args:
    seeds: of which what belongs to one seed is told: those that the other run has too.
    """
    facts: dict[str, set[str]] = {}
    for record in records:
        told = [*_facts(record), *(_facts_of_seed(record) if record.cell.seed in seeds else ())]
        for what, value in told:
            facts.setdefault(what, set()).add(value)
    return facts


def _facts_of_seed(record: Record) -> Iterator[tuple[str, str]]:
    seed, initial = record.cell.seed, record.cell.weights.initial_sha256
    if initial:
        yield f"initial weights of seed {seed}", initial[:12]
    if record.batches_sha256:
        digest = hashlib.sha256("".join(record.batches_sha256).encode())
        yield f"batches of seed {seed}", digest.hexdigest()[:12]


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    """Name and value of each, what is looked for first in front."""
    cell, training = record.cell, record.training
    if record.environment is not None:
        yield from _of_environment(record.environment)
    yield cell.backend, cell.framework_version
    yield "weights", _text(cell.weights.name)
    if cell.weights.sha256:
        yield "weights' sha256", cell.weights.sha256[:12]
    if record.gate is not None:
        yield "gate's reference", record.gate.reference_sha256[:12]
    if training is not None:
        for field in ("epochs", "batch_size", "image_size", "train_images", "validation_images"):
            yield from _flat(field.replace("_", " "), getattr(training, field))
        yield from _flat("optimizer", msgspec.to_builtins(training.optimizer))
    yield from _flat("setting", record.settings)


def _of_environment(environment: Environment) -> Iterator[tuple[str, str]]:
    commit = (environment.git_commit or "unknown")[:10]
    yield "commit", commit + (" with changes" if environment.git_dirty else "")
    yield "code's sha256", environment.code_sha256[:12]
    machine = machine_of(environment)
    for field in Machine.__struct_fields__:
        value = getattr(machine, field)
        yield field, f"{value} GiB" if field == "ram" else str(value or NONE)
    yield "gpu driver", "; ".join(_gpus(environment, 1)) or NONE
    yield "system", environment.os
    yield "python", environment.python
    for name, version in environment.packages.items():
        yield name, version
    yield "thread pools", _text(sorted(environment.thread_pools))
    yield "processors", ", ".join(map(str, environment.affinity)) or NONE
    yield "allocator", environment.allocator or NONE
    for name, value in environment.variables.items():
        yield name, _text(value)


def _gpus(environment: Environment, part: int) -> list[str]:
    """Of each GPU its name (0) or its driver (1)."""
    told = [one.split(",") for one in (environment.gpu or "").split(";") if one.strip()]
    return [words[part].strip() for words in told if len(words) > part]


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Leaves of nested settings under their paths; null is as good as not there."""
    if value is None:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name} {key}", inner)
    else:
        yield name, _text(value)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
