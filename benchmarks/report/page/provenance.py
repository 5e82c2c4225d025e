"""What a record says of where its figures are from, in a few lines."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from benchmarks.harness.record import Gate, Record
from benchmarks.report.labels import backend_title
from benchmarks.report.sections.environment import commit_text
from benchmarks.report.sections.results import accuracy_text, reason

HARMLESS = re.compile(r"[A-Za-z0-9._/-]+")


class Fact(msgspec.Struct, frozen=True):
    """Of a record."""

    name: str
    value: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One record. Texts are plain."""

    anchor: str
    id: str
    file: str
    """Address of the record itself."""
    summary: str
    failed: bool
    facts: tuple[Fact, ...]


def anchor(record: str) -> str:
    """The name by which a record's entry is linked to."""
    if HARMLESS.fullmatch(record):
        return f"record-{record}"
    return f"record-{hashlib.sha256(record.encode()).hexdigest()[:16]}"


def entry(record: Record, file: str) -> Entry:
    """Of one record."""
    failed = record.status != "ok"
    return Entry(
        anchor=anchor(record.cell.id),
        id=record.cell.id,
        file=file,
        summary="failed" if failed else accuracy_text(record),
        failed=failed,
        facts=tuple(Fact(name, value) for name, value in _facts(record) if value),
    )


# --- How ------------------------------------------------------------------------------------------


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    cell, environment = record.cell, record.environment
    yield "failed", reason(record)
    yield (
        "cell",
        (
            f"{cell.track} {cell.architecture}, {cell.recipe}, {cell.variant} {cell.precision},"
            f" seed {cell.seed}, profile {cell.profile}, {cell.device}"
        ),
    )
    yield "framework", f"{backend_title(cell.backend)} {cell.framework_version}"
    data = cell.data
    yield "data", f"{data.name}, {data.train} training and {data.test} test images, sha256 {data.sha256}"
    yield "weights", _hashes(("", cell.weights.name), ("sha256 ", cell.weights.sha256))
    yield "initial weights", _hashes(("sha256 ", cell.weights.initial_sha256))
    yield "trained weights", _hashes(("sha256 ", record.trained_sha256))
    if record.batches_sha256:
        yield "batches", f"{len(record.batches_sha256)} epochs, the first's sha256 {record.batches_sha256[0]}"
    yield "gate", _gate(record.gate) if record.gate else ""
    if environment is not None:
        yield "code", f"commit {commit_text(environment)}, sha256 {environment.code_sha256}"
        yield (
            "machine",
            (
                f"{environment.cpu}, {environment.cores} cores, {environment.threads} threads,"
                f" {environment.gpu or 'no GPU'}, {environment.os}"
            ),
        )
        packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
        yield "software", f"Python {environment.python}, {packages}"
    yield "settings", ", ".join(_settings("", record.settings))
    yield "started", f"{record.started}, took {record.seconds:.0f} s"


def _hashes(*parts: tuple[str, str | None]) -> str:
    return ", ".join(f"{name}{value}" for name, value in parts if value)


def _gate(gate: Gate) -> str:
    errors = (
        ("logits", gate.logit_error),
        ("first loss", gate.first_loss_error),
        ("gradients", gate.gradient_error),
        ("steps", gate.step_error),
    )
    told = (f"{name} {'not finite' if error is None else format(error, '.1e')}" for name, error in errors)
    said = [f"{'passed' if gate.passed else 'failed'} ({gate.mode})", *told, *gate.failures]
    return ", ".join((*said, f"reference sha256 {gate.reference_sha256}"))


def _settings(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _settings(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, (list, tuple)):
        yield f"{name} {' '.join(map(str, value)) or 'none'}"
    else:
        yield f"{name} {'none' if value is None else value}"
