"""Tables in hand-written Markdown, regenerated from the committed records they came from.

A block begins with `<!-- table: FOLDER -->` or `<!-- parity: FOLDER -->`, a folder of records relative to the
project, and ends with `<!-- end -->`; what stands between them is this module's.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.harness import record
from benchmarks.report import tables

BLOCK = re.compile(r"(<!-- (?P<kind>table|parity): (?P<folder>\S+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


def regenerate(text: str, project: Path) -> str:
    """The text with every block made anew from its records.

    Raises:
        RecordError: a record of a block cannot be read.
    """

    def block(match: re.Match[str]) -> str:
        records = record.read_all(project / match["folder"])
        made = tables.overview(records) if match["kind"] == "table" else tables.parity_table(records)
        return f"{match[1]}\n{made}\n\n{match['end']}"

    return BLOCK.sub(block, text)
