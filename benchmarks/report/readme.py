"""Tables in hand-written Markdown, regenerated from the committed records they came from.

A block begins with `<!-- KIND: FOLDER -->`, where KIND is one of `MAKERS` and FOLDER a folder of records
relative to the project, and ends with `<!-- end -->`; what stands between them is this module's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness import record
from benchmarks.report import protocols, tables

MAKERS: dict[str, Callable[[Sequence[record.Record]], str]] = {
    "table": tables.overview,
    "parity": tables.parity_table,
    "losses": tables.first_epochs_table,
    "protocols": protocols.protocols_table,
    "claims": protocols.claims,
}
BLOCK = re.compile(
    rf"(<!-- (?P<kind>{'|'.join(MAKERS)}): (?P<folder>\S+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)


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
