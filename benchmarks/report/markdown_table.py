"""Tables in GitHub's Markdown that nothing in a record can break."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from benchmarks.report.document import Cell, Table, plain


def table(content: Table, *, link: Callable[[str], str | None] | None = None) -> str:
    """A GitHub table, aligned in plain text too; nothing in a cell can break it or inject markup.

    Args:
        link: from a record's id to what its figures are linked to.
    """

    def shown(cell: Cell) -> str:
        target = link(cell.record) if link and cell.record is not None else None
        return escape(cell.text) if target is None else f"[{escape(cell.text)}]({target})"

    rows = [[escape(heading) for heading in content.headings]]
    rows += [[shown(cell) for cell in row] for row in content.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(content.headings))]
    lines = [_line(row, widths, content.right) for row in rows]
    rule = [
        ("-" * (width - 1) + ":") if column in content.right else "-" * width
        for column, width in enumerate(widths)
    ]
    return "\n".join((lines[0], _line(rule, widths, content.right), *lines[1:]))


def escape(text: str) -> str:
    """Text as it stands, in one line, with Markdown's and HTML's marks disarmed."""
    flat = plain(text)
    for mark, stand_in in (
        ("\\", "\\\\"),
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("|", "\\|"),
        ("*", "\\*"),
        ("`", "'"),
        ("](", "] ("),
    ):
        flat = flat.replace(mark, stand_in)
    flat = UNDERSCORES.sub(lambda found: found[0].replace("_", "\\_"), flat)
    return LIST.sub(r"\1\\\2", MARKS.sub(r"\\\g<0>", flat))


UNDERSCORES = re.compile(r"(?<![^\W_])_+|_+(?![^\W_])")
"""But those within words."""
MARKS = re.compile(r"(?<=!)\[|~(?=~)|^[-+](?=\s|$)|^#(?=#*(?:\s|$))|^[-=](?=[-=]*$)")
"""What Markdown would take for its own: pictures, crossings-out, and what begins a heading, a rule or a
list."""
LIST = re.compile(r"^(\d+)([.)])(?=\s|$)")


def _line(cells: Sequence[str], widths: Sequence[int], rights: frozenset[int]) -> str:
    padded = [
        cell.rjust(width) if column in rights else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"
