"""With what a run's figures were made."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness.record import Environment, Record
from benchmarks.report.document import Column, Table, filled, table_of
from benchmarks.report.labels import conditions_columns, side_by_side
from benchmarks.report.sections.results import BACKEND


def environment_table(records: Sequence[Record]) -> Table:
    """The packages and effective settings of each backend in each of its variants."""
    found: dict[tuple[object, ...], Record] = {}
    for record in records:
        cell = record.cell
        if record.environment is not None:
            made_with = (_commit(record), _packages(record), record.environment.cpu)
            found.setdefault((cell.backend, cell.variant, cell.precision, cell.device, made_with), record)
    rows = side_by_side(found.values())
    columns: list[Column[Record]] = [
        BACKEND,
        *conditions_columns(rows),
        Column("Python", lambda record: f"Python {_environment(record).python}"),
        Column("packages", _packages),
        Column("threads", lambda record: str(record.settings.get("threads", ""))),
        Column("compiled", lambda record: str(record.settings.get("compiled", ""))),
        *filled(
            rows,
            [
                Column("tuning", _tuning),
                Column("allocator", lambda record: _environment(record).allocator or ""),
                Column("processors", lambda record: ", ".join(map(str, _environment(record).affinity))),
            ],
        ),
        Column("commit", _commit, record=lambda record: record.cell.id),
    ]
    return table_of("The packages and effective settings of each backend", rows, columns)


def commit_text(environment: Environment) -> str:
    """The code that a cell ran."""
    if environment.git_commit is None:
        return "unknown"
    return environment.git_commit[:10] + (" (with changes)" if environment.git_dirty else "")


# --- How ------------------------------------------------------------------------------------------


def _environment(record: Record) -> Environment:
    assert record.environment is not None
    return record.environment


def _packages(record: Record) -> str:
    packages = _environment(record).packages
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def _tuning(record: Record) -> str:
    """What an expert may switch on, and is on; blank where it is not recorded, or nothing is."""
    return ", ".join(map(str, record.settings.get("tuning") or ()))


def _commit(record: Record) -> str:
    return commit_text(_environment(record))
