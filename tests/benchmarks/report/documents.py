"""Whole reports, and how a table is read back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.harness.record import Curves, Record
from benchmarks.report import contents, markdown
from benchmarks.report.document import Block, Document, Table
from benchmarks.report.sources import Sources
from benchmarks.report.verdicts.words import Choices


def rows_of(content: Table | Iterable[Block]) -> list[dict[str, str]]:
    """The rows of a table, or of the first among blocks, each text under its heading."""
    if not isinstance(content, Table):
        content = next(block for block in content if isinstance(block, Table))
    return [dict(zip(content.headings, (cell.text for cell in row), strict=True)) for row in content.rows]


def sources_of(records: Iterable[Record], measured: Iterable[Curves] = ()) -> Sources:
    """What a report is made of, the records lying in the report's folder."""
    records = tuple(records)
    files = {record.cell.id: Path("records") / f"{record.cell.id}.json" for record in records}
    return Sources(records=records, files=files, curves=tuple(measured), images={})


def document_of(records: Iterable[Record], measured: Iterable[Curves] = ()) -> Document:
    """The whole report."""
    return contents.document(sources_of(records, measured), title="Run x", choices=Choices())


def report_of(records: Iterable[Record], measured: Iterable[Curves] = ()) -> str:
    """The whole report as Markdown."""
    return markdown.render(document_of(records, measured))
