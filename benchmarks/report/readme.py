"""Tables in hand-written Markdown, regenerated from the committed records they came from.

A block begins with `<!-- table: FOLDER -->`, `<!-- parity: FOLDER -->` or `<!-- losses: FOLDER -->`, a
folder of records relative to the project, and ends with `<!-- end -->`; what stands between them is this
module's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness import record
from benchmarks.report import tables

BLOCK = re.compile(
    r"(<!-- (?P<kind>table|parity|losses): (?P<folder>\S+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)

MAKERS: dict[str, Callable[[Sequence[record.Record]], str]] = {
    "table": tables.overview,
    "parity": tables.parity_table,
    "losses": tables.first_epochs_table,
}


def regenerate(text: str, project: Path) -> str:
    """The text with every block made anew from its records.

    Raises:
        RecordError: a record of a block cannot be read, or its folder has none.
    """

    def block(match: re.Match[str]) -> str:
        records = record.read_all(project / match["folder"])
        if not records:
            raise record.RecordError(f"{project / match['folder']}: no records for the table of that name")
        made = MAKERS[match["kind"]](records)
        return f"{match[1]}\n{made}\n\n{match['end']}"

    return BLOCK.sub(block, text)
