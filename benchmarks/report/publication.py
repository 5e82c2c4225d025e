"""Published results: under `results/` a folder for each machine and date, in it runs; their report, and the
page that leads to all of them. Nothing of it is typed by hand.

A run that is published has its `plan.json`, which says how it was made.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from backends.base import one_line
from benchmarks.harness.recipe import Recipe, recipes_by_id
from benchmarks.harness.record import Record, RecordError
from benchmarks.harness.run import RUNS, Plan
from benchmarks.report import contents, markdown, sources, validity, written
from benchmarks.report.document import Block, Column, Document, Section, Table, table_of
from benchmarks.report.groups import Group, groups
from benchmarks.report.sections import results
from benchmarks.report.sources import Sources
from benchmarks.report.statistics import spread
from benchmarks.report.verdicts.accuracy import interval_text
from benchmarks.report.verdicts.words import Choices

INDEX = "README.md"
MADE = "Made by `python -m benchmarks results` from the records; nothing in it is typed by hand."


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one machine and date, read."""

    folder: Path
    runs: tuple[Path, ...]
    plans: tuple[Plan, ...]
    """Of each run."""
    found: Sources
    document: Document

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.name


def publications(root: Path) -> list[Publication]:
    """Those below a folder, the latest first.

    Raises:
        RecordError: a record or a plan cannot be read.
    """
    folders = [
        folder for folder in sorted(root.iterdir(), reverse=True) if folder.is_dir() and folder != RUNS
    ]
    return [_read(folder, runs) for folder in folders if (runs := _runs(folder))]


def files(root: Path, found: Sequence[Publication]) -> dict[Path, bytes]:
    """Everything that is generated: each publication's report and plots, and the page that leads to them."""
    made = {
        one.folder / path: content
        for one in found
        for path, content in written.files(one.folder, one.document, one.found).items()
    }
    return {**made, root / INDEX: index(found)}


def index(found: Sequence[Publication]) -> bytes:
    """What was run, the verdicts first."""
    sections = [_section(one) for one in found]
    document = Document(title="Results", blocks=(MADE,), sections=tuple(sections))
    return markdown.render(document).encode()


# --- How ------------------------------------------------------------------------------------------


def _runs(folder: Path) -> tuple[Path, ...]:
    return tuple(
        sorted(run.parent for run in folder.glob("*/plan.json") if (run.parent / "records").is_dir())
    )


def _read(folder: Path, runs: tuple[Path, ...]) -> Publication:
    found = sources.gather(runs)
    document = contents.document(
        found,
        title=folder.name,
        choices=Choices(),
        validity=[validity.sentence(run) for run in runs],
    )
    return Publication(
        folder=folder, runs=runs, plans=tuple(map(_plan, runs)), found=found, document=document
    )


def _plan(run: Path) -> Plan:
    path = run / "plan.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except (ValueError, RecursionError, OSError) as error:
        raise RecordError(f"plan {path}: {one_line(error)}; take it from where the run was made") from error


def _section(one: Publication) -> Section:
    links = f"[The report as a page]({one.name}/{written.PAGE}), [as tables]({one.name}/{written.MARKDOWN})."
    blocks: tuple[Block, ...] = (
        markdown.headlines(one.document.headlines),
        links,
        results.conditions(one.found.records),
    )
    return Section(
        one.name,
        blocks,
        (
            Section("What was run", (_runs_table(one), _commands(one))),
            Section("Others' figures and ours", _published(one.found.records)),
        ),
    )


class _Row(msgspec.Struct, frozen=True):
    """Of the table of runs."""

    run: Path
    records: tuple[Record, ...]


def _runs_table(one: Publication) -> Table:
    rows = []
    for run in one.runs:
        paths = {path.resolve() for path in (run / "records").glob("*.json")}
        records = [
            record for record in one.found.records if one.found.files[record.cell.id].resolve() in paths
        ]
        rows.append(_Row(run, tuple(records)))
    columns: list[Column[_Row]] = [
        Column("run", lambda row: row.run.name),
        Column("tracks", partial(_distinct, "track")),
        Column("architectures", partial(_distinct, "architecture")),
        Column("protocols", partial(_distinct, "protocol")),
        Column("variants", partial(_distinct, "variant")),
        Column("precisions", partial(_distinct, "precision")),
        Column("backends", partial(_distinct, "backend")),
        Column("cells", lambda row: str(len(row.records)), number=True),
        Column("failed", lambda row: str(sum(r.status != "ok" for r in row.records)), number=True),
        Column("hours", lambda row: f"{sum(r.seconds for r in row.records) / 3600:.1f}", number=True),
        Column("commit", _commits),
    ]
    return table_of("What was run", rows, columns)


def _distinct(field: str, row: _Row) -> str:
    return ", ".join(dict.fromkeys(str(getattr(record.cell, field)) for record in row.records))


def _commits(row: _Row) -> str:
    found = (record.environment for record in row.records)
    return ", ".join(dict.fromkeys(one.git_commit[:10] for one in found if one and one.git_commit))


def _commands(one: Publication) -> str:
    """How to run it again."""
    lines = ["```console"]
    for run, plan in zip(one.runs, one.plans, strict=True):
        lines += [
            shlex.join(("python", "-m", "benchmarks", "run", *words, "--run", run.name))
            for words in plan.asked
        ]
    return "\n".join((*lines, "```")) if len(lines) > 1 else ""


def _published(records: Iterable[Record]) -> tuple[Block, ...]:
    """Of recipes for which others report a figure."""
    recipes = recipes_by_id()
    rows = [
        (recipes[group.cell.recipe], group)
        for group in groups(records)
        if group.cell.recipe in recipes and recipes[group.cell.recipe].published and not group.variant
    ]
    columns: list[Column[tuple[Recipe, Group]]] = [
        Column("document", lambda row: row[0].seed_document),
        Column("recipe", lambda row: row[0].id),
        Column("backend", lambda row: row[1].backend),
        Column(
            "published", lambda row: "; ".join(f"{one.accuracy} ({one.source})" for one in row[0].published)
        ),
        Column("seeds", lambda row: str(len(row[1].seeds)), number=True),
        Column("ours [95 %]", lambda row: f"{spread(row[1].accuracies).mean:.3f} {interval_text(row[1])}"),
        Column("why they differ", lambda row: row[0].difference),
    ]
    return (table_of("Others' figures and ours", rows, columns),) if rows else ()
