"""A table as a page shows it."""

from __future__ import annotations

import math

import msgspec

from benchmarks.report.document import Cell, Table, plain

LONG = 44
"""Letters: a column with a longer text is broken into lines."""
SHORT = 10
"""Letters: a heading with no more stands in one line."""
ENOUGH_TO_FILTER = 10
"""Rows from which on a table has a box to filter them."""
ENOUGH_TO_FOLD = 2
"""Rows from which on a condition that is the same in all of them is said once, above them."""
CONDITIONS = frozenset(
    (
        *("run", "data", "document", "track", "protocol", "backend", "architecture", "network", "on"),
        *("weights", "variant", "precision", "device", "image px", "px", "batch", "seed", "seeds", "trained"),
        *("sample", "alternations", "interval of"),
        *("version", "packages", "threads", "compiled", "tuning", "allocator", "processors"),
    )
)
"""Headings of what was done, and not of what came of it."""


class Heading(msgspec.Struct, frozen=True):
    """Of a column."""

    text: str
    style: str
    """CSS classes: of numbers, of sentences, or of words; and of what is short."""


class Shown(msgspec.Struct, frozen=True):
    """A cell."""

    text: str
    style: str
    order: str | None
    """What it is sorted by; None where its column is sorted by texts."""
    record: str | None


class TableView(msgspec.Struct, frozen=True, kw_only=True):
    """What the template shows."""

    name: str
    folded: str
    """What is the same in all rows; empty where nothing is."""
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Shown, ...], ...]
    filtered: bool


def view(table: Table) -> TableView:
    """Of a table: columns of conditions that are the same in all rows are folded into a line above it."""
    places = range(len(table.headings))
    folded = [place for place in places if _folds(table, place)]
    kept = [place for place in places if place not in folded]
    styles = {place: _style(table, place) for place in kept}
    numeric = {place for place in kept if any(row[place].order is not None for row in table.rows)}
    return TableView(
        name=plain(table.name),
        folded="; ".join(f"{table.headings[place]} {plain(table.rows[0][place].text)}" for place in folded),
        headings=tuple(Heading(plain(table.headings[place]), _heading_style(table, place)) for place in kept),
        rows=tuple(
            tuple(_shown(row[place], styles[place], by_number=place in numeric) for place in kept)
            for row in table.rows
        ),
        filtered=len(table.rows) >= ENOUGH_TO_FILTER,
    )


# --- How ------------------------------------------------------------------------------------------


def _folds(table: Table, place: int) -> bool:
    cells = [row[place] for row in table.rows]
    return (
        table.headings[place] in CONDITIONS
        and len(cells) >= ENOUGH_TO_FOLD
        and bool(cells[0].text)
        and len({cell.text for cell in cells}) == 1
        and not any(cell.record for cell in cells)
    )


def _shown(cell: Cell, style: str, *, by_number: bool) -> Shown:
    return Shown(plain(cell.text), style, _number(cell.order) if by_number else None, cell.record)


def _style(table: Table, place: int) -> str:
    longest = max((len(row[place].text) for row in table.rows), default=0)
    return "number" if place in table.right else "long" if longest > LONG else ""


def _heading_style(table: Table, place: int) -> str:
    short = "short" if len(table.headings[place]) <= SHORT else ""
    return f"{_style(table, place)} {short}".strip()


def _number(order: float | None) -> str:
    """A cell without a number stands before all others."""
    if order is None or math.isnan(order):
        return ""
    return repr(max(-1e300, min(1e300, float(order))))
