"""Tables in GitHub's Markdown that nothing in a record can break."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import msgspec

Item = TypeVar("Item")


class Column(msgspec.Struct, Generic[Item], frozen=True):
    """A column of a table of items."""

    heading: str
    text: Callable[[Item], str]
    number: bool = False
    """Numbers stand to the right."""


def table_of(items: Iterable[Item], columns: Sequence[Column[Item]]) -> str:
    """One row per item."""
    items = list(items)
    return table(
        [column.heading for column in columns],
        [[column.text(item) for column in columns] for item in items],
        right=[place for place, column in enumerate(columns) if column.number],
    )


def filled(items: Sequence[Item], columns: Iterable[Column[Item]]) -> list[Column[Item]]:
    """The columns that say something of at least one item."""
    return [column for column in columns if any(column.text(item) for item in items)]


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """A GitHub table, aligned in plain text too; nothing in a cell can break it or inject markup."""
    cells = [[escape(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    rights = set(right)
    lines = [_line(row, widths, rights) for row in cells]
    rule = [
        ("-" * (width - 1) + ":") if column in rights else "-" * width for column, width in enumerate(widths)
    ]
    return "\n".join((lines[0], _line(rule, widths, rights), *lines[1:]))


def escape(text: str) -> str:
    """Text as it stands, in one line, with Markdown's and HTML's marks disarmed."""
    flat = " ".join(str(text).split())
    for mark, stand_in in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("|", "\\|"),
        ("`", "'"),
        ("](", "] ("),
    ):
        flat = flat.replace(mark, stand_in)
    return flat


def _line(cells: Sequence[str], widths: Sequence[int], rights: set[int]) -> str:
    padded = [
        cell.rjust(width) if column in rights else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"
