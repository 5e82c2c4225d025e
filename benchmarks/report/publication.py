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
from benchmarks.harness.images.data import DRAWN
from benchmarks.harness.recipe import recipes_by_id
from benchmarks.harness.record import RecordError
from benchmarks.harness.running.run import RUNS, Plan
from benchmarks.report import contents, markdown, sources, validity, written
from benchmarks.report.document import Block, Column, Document, Headline, Section, Table, table_of
from benchmarks.report.labels import is_default, scored
from benchmarks.report.markdown_table import escape
from benchmarks.report.sections import protocols, results
from benchmarks.report.sources import Sources
from benchmarks.report.verdicts import circumstances, glance, summary
from benchmarks.report.verdicts.words import Choices, count_of, listed

INDEX = "README.md"
DATE = len("2026-11-23")
"""At the end of a folder's name."""
MADE = "Made by `python -m benchmarks results` from the records; nothing in it is typed by hand."


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A run, read."""

    folder: Path
    plan: Plan
    found: Sources
    document: Document
    """Its report."""

    @property
    def began(self) -> tuple[str, str]:
        """By what runs are ordered: when the first cell ran, if it is known, and the name."""
        sittings = [record.turn.sitting for record in self.found.records if record.turn is not None]
        return min(sittings, default=""), self.folder.name


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one machine and date."""

    name: str
    runs: tuple[Published, ...]
    """In the order in which they were made."""
    found: Sources
    """All runs together."""


def publications(root: Path) -> list[Publication]:
    """Those below a folder, the latest first.

    Raises:
        RecordError: a record or a plan cannot be read.
    """
    return [
        Publication(
            name=folder.name,
            runs=tuple(sorted(map(_read, runs_in(folder)), key=lambda run: run.began)),
            found=sources.gather(runs_in(folder)),
        )
        for folder in folders(root)
    ]


def folders(root: Path) -> list[Path]:
    """Those that hold published runs, the latest first."""
    found = [folder for folder in root.iterdir() if folder.is_dir() and folder.resolve() != RUNS.resolve()]
    return sorted(filter(runs_in, found), key=lambda folder: (folder.name[-DATE:], folder.name), reverse=True)


def runs_in(folder: Path) -> tuple[Path, ...]:
    """The published runs of one machine and date, by name."""
    return tuple(
        sorted(run.parent for run in folder.glob("*/plan.json") if (run.parent / "records").is_dir())
    )


def files(root: Path, found: Sequence[Publication]) -> dict[Path, bytes]:
    """Everything that is generated: each run's report and plots, and the page that leads to them."""
    made = {
        run.folder / path: content
        for one in found
        for run in one.runs
        for path, content in written.files(run.folder, run.document, run.found).items()
    }
    return {**made, root / INDEX: index(found)}


def index(found: Sequence[Publication]) -> bytes:
    """What was run, the verdicts first."""
    sections = [_section(one) for one in found]
    document = Document(title="Results", blocks=(MADE, *_of_all(found)), sections=tuple(sections))
    reports = {
        _place(one, run): f"{_place(one, run)}/{written.MARKDOWN}" for one in found for run in one.runs
    }
    return markdown.render(document, link=reports.get).encode()


# --- How ------------------------------------------------------------------------------------------


OF_ALL_RUNS = ("Parity", "Not run")
"""Topics that are told once."""


def _of_all(found: Sequence[Publication]) -> tuple[Block, ...]:
    """The accuracies of all runs, what all were held to, and what none of them is."""
    records = [record for one in found for record in one.found.records]
    if not records:
        return ()
    runs = [(_place(one, run), run.found.records) for one in found for run in one.runs]
    told = (
        Headline("Parity", tuple(circumstances.parity(records))),
        Headline("Not run", tuple(circumstances.not_run(records))),
    )
    return (
        *summary.blocks(runs, Choices()),
        markdown.headlines(headline for headline in told if headline.sentences),
    )


def _place(one: Publication, run: Published) -> str:
    return f"{one.name}/{run.folder.name}"


def _read(run: Path) -> Published:
    found = sources.gather([run])
    document = contents.document(
        found, title=f"Run {run.name}", choices=Choices(), validity=[validity.sentence(run)]
    )
    return Published(folder=run, plan=_plan(run), found=found, document=document)


def _plan(run: Path) -> Plan:
    path = run / "plan.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except (ValueError, RecursionError, OSError) as error:
        raise RecordError(f"plan {path}: {one_line(error)}; take it from where the run was made") from error


def _section(one: Publication) -> Section:
    return Section(
        one.name,
        (results.conditions(one.found.records),),
        (
            *(_run_section(one, run) for run in one.runs),
            Section("Others' figures and ours", _published(one)),
            Section("What was run", (_runs_table(one), _commands(one))),
        ),
    )


def _published(one: Publication) -> tuple[Block, ...]:
    """Of recipes for which others report a figure, in the usual variant."""
    recipes = recipes_by_id()
    known = [
        record
        for record in scored(one.found.records)
        if record.cell.recipe in recipes and recipes[record.cell.recipe].published and is_default(record.cell)
    ]
    return (protocols.protocols_table(known),) if known else ()


def _run_section(one: Publication, run: Published) -> Section:
    place = _place(one, run)
    told = [headline for headline in run.document.headlines if headline.topic not in OF_ALL_RUNS]
    links = f"[The report as a page]({place}/{written.PAGE}), [as tables]({place}/{written.MARKDOWN})."
    blocks: tuple[Block, ...] = (markdown.headlines(told), *glance.blocks(run.found.records), links)
    return Section(f"Run {run.folder.name}", blocks)


def _runs_table(one: Publication) -> Table:
    columns: list[Column[Published]] = [
        Column("run", lambda run: run.folder.name),
        Column("tracks", partial(_distinct, "track")),
        Column("architectures", partial(_distinct, "architecture")),
        Column("protocols", partial(_distinct, "protocol")),
        Column("variants", partial(_distinct, "variant")),
        Column("precisions", partial(_distinct, "precision")),
        Column("backends", partial(_distinct, "backend")),
        Column("cells", lambda run: str(len(run.found.records)), number=True),
        Column("failed", lambda run: str(sum(r.status != "ok" for r in run.found.records)), number=True),
        Column("hours", lambda run: f"{sum(r.seconds for r in run.found.records) / 3600:.1f}", number=True),
        Column("machine", _machines),
        Column("commit", _commits),
    ]
    return table_of("What was run", one.runs, columns)


def _distinct(field: str, run: Published) -> str:
    return ", ".join(dict.fromkeys(str(getattr(record.cell, field)) for record in run.found.records))


def _machines(run: Published) -> str:
    found = (record.environment for record in run.found.records)
    return "; ".join(dict.fromkeys(f"{one.cpu}, {count_of(one.cores, 'core')}" for one in found if one))


def _commits(run: Published) -> str:
    found = (record.environment for record in run.found.records)
    return ", ".join(dict.fromkeys(one.git_commit[:10] for one in found if one and one.git_commit))


def _commands(one: Publication) -> str:
    """How to run it again, and on what, where that cannot be had."""
    lines = [
        shlex.join(("python", "-m", "benchmarks", "run", *words, "--run", run.folder.name))
        for run in one.runs
        for words in _with_most_seeds(run.plan.asked)
    ]
    if not lines:
        return ""
    commands = "\n".join(("```console", *lines, "```"))
    own = sorted({record.cell.data.name for record in one.found.records} - {*DRAWN, "hotdog"})
    if not own:
        return commands
    return (
        f"{escape(listed(own))} cannot be had from here: `--data PATH` takes photographs of your own, `--data"
        f" hotdog` fetches the book's, others than these.\n\n{commands}"
    )


def _with_most_seeds(commands: Iterable[tuple[str, ...]]) -> Iterable[tuple[str, ...]]:
    """One of those that differ in the number of seeds only: a run may grow seed by seed."""
    most: dict[tuple[str, ...], tuple[int, tuple[str, ...]]] = {}
    for words in commands:
        place = words.index("--seeds") if "--seeds" in words else len(words)
        others, seeds = words[:place] + words[place + 2 :], int((*words[place + 1 :], "1")[0])
        most[others] = max(most.get(others, (0, words)), (seeds, words))
    return [words for _, words in most.values()]
