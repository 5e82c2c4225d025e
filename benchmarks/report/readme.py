"""Tables in hand-written Markdown, regenerated from the committed records they came from.

A block begins with `<!-- KIND: FOLDER -->`, where KIND is one of `MAKERS` or `MAKERS_OF_FOLDERS` and FOLDER a
folder of records (or several, by a pattern such as `results/*/*/records`), or of pytest-benchmark's files,
relative to the project. It ends with `<!-- end -->`; what stands between them is this module's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.harness import record
from benchmarks.harness.environment import PROJECT
from benchmarks.report import markdown
from benchmarks.report.document import Block
from benchmarks.report.groups import groups
from benchmarks.report.sections import equality, latency, overhead, parts, protocols, results, speed
from benchmarks.report.verdicts import accuracy, findings, glance
from benchmarks.report.verdicts.words import Choices

MAKERS: dict[str, Callable[[Sequence[record.Record]], Iterable[Block]]] = {
    "verdicts": lambda records: [_verdicts(records)],
    "accuracy-verdicts": lambda records: [_verdicts(records, "Compared", "Accuracy")],
    "speed-verdicts": lambda records: [
        _verdicts(records, "Compared", "Speed", "Cost", "Memory", "Latency", "Parity")
    ],
    "speeds": lambda records: [_verdicts(records, "Compared", "Speed")],
    "glance": glance.blocks,
    "accuracy": lambda records: [accuracy.groups_table(groups(records))],
    "table": results.overview,
    "parity": lambda records: [equality.parity_table(records)],
    "losses": lambda records: [equality.first_epochs_table(records)],
    "protocols": lambda records: [protocols.protocols_table(records)],
    "claims": lambda records: [protocols.claims(records)],
    "speed": speed.blocks,
    "parts": lambda records: [parts.parts_table(parts.measured(records))],
    "latency": latency.blocks,
}
MAKERS_OF_FOLDERS: dict[str, Callable[[Path], Block]] = {
    "overhead": overhead.overhead_table,
    "tuning": overhead.tuning_table,
}
"""From pytest-benchmark's files."""
BLOCK = re.compile(
    rf"(<!-- (?P<kind>{'|'.join((*MAKERS, *MAKERS_OF_FOLDERS))}): (?P<folder>\S+) -->\n)"
    ".*?(?P<end><!-- end -->)",
    re.DOTALL,
)


def _verdicts(records: Sequence[record.Record], *topics: str) -> str:
    """Of these topics; of all, if none is named."""
    told = findings(records, Choices(), {}).headlines
    return markdown.headlines(one for one in told if not topics or one.topic in topics)


def pages() -> list[Path]:
    """The project's own, README first."""
    return [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def regenerate(text: str, project: Path) -> str:
    """The text with every block made anew from its records.

    Raises:
        RecordError: a record of a block cannot be read, or its folder has none.
    """

    def block(match: re.Match[str]) -> str:
        folder = project / match["folder"]
        if match["kind"] in MAKERS_OF_FOLDERS:
            made = markdown.blocks([MAKERS_OF_FOLDERS[match["kind"]](folder)])
        else:
            records = [one for path in sorted(project.glob(match["folder"])) for one in record.read_all(path)]
            if not records:
                raise record.RecordError(f"{folder}: no records for the table of that name")
            made = markdown.blocks(MAKERS[match["kind"]](records))
        return f"{match[1]}\n{made}\n\n{match['end']}"

    return BLOCK.sub(block, text)
