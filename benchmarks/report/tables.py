"""Records to Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

import backends
from benchmarks.harness.recipe import Recipe, all_recipes
from benchmarks.harness.record import Record
from benchmarks.report.statistics import wilson

ORDER = (
    "finetune",
    "frozen",
    "last-block",
    "scratch",
)  # as a reader compares them: from most to least reused


def report(records: Sequence[Record], *, run: str) -> str:
    """The whole report of one run as Markdown."""
    if not records:
        return f"# Run {run}\n\nNo records yet.\n"
    sections = [f"# Run {run}", conditions(records)]
    for protocol in sorted({record.cell.protocol for record in records}, key=_place):
        chosen = [record for record in records if record.cell.protocol == protocol]
        sections += [f"## {protocol}", _summary(chosen), results_table(chosen)]
    failures = [record for record in records if record.error is not None]
    if failures:
        sections += ["## Failed cells", failures_table(failures)]
    sections += ["## How to read this", READING, "## Environment", environment_table(records)]
    return "\n\n".join(sections) + "\n"


READING = """\
- **Test accuracy** is the share of test images classified rightly after the last epoch, with Wilson's 95 %
  interval over those images. It says nothing of how another seed would have done. Whether two rows differ
  takes a paired test, which this report does not make.
- These are rows of the *native* track: each framework with its own architecture, preprocessing and idioms. A
  difference between rows is a difference between networks as much as between frameworks.
- **Train** and **inference** images/s come from the median of synchronised steps on a batch already in host
  memory; "~" marks a rate whose steps had not become steady when the time was up.
- **Epoch** is what a user waits for, input pipeline included: the median of the epochs after the first.
- Cells ran one after the other, not interleaved: speeds are for orientation, and no framework is called
  faster here.
- **Memory** is the peak resident set of the cell's process, framework included."""


def conditions(records: Sequence[Record]) -> str:
    """What all records of a run share, in two lines."""
    cell = records[0].cell
    data = cell.data
    ok = sum(record.status == "ok" for record in records)
    lines = [
        f"{ok} of {len(records)} cells ok. Data: {data.name} ({data.train} training and {data.test} test"
        f" images,"
        f" classes {', '.join(data.classes)}; sha256 `{data.sha256[:12]}`). Profile: {cell.profile}."
    ]
    environment = next((record.environment for record in records if record.environment), None)
    if environment:
        lines.append(
            f"Machine: {environment.cpu}, {environment.cores} cores, {environment.ram_bytes / 2**30:.0f} GiB,"
            f" {environment.os}; {environment.gpu or 'no GPU'}."
        )
    return "\n".join(lines)


HEADINGS = (
    "backend",
    "architecture",
    "weights",
    "seed",
    "test accuracy [95 %]",
    "train images/s",
    "inference images/s",
    "epoch s",
    "peak memory",
    "version",
)


def results_table(records: Iterable[Record]) -> str:
    """One row per cell."""
    return table(HEADINGS, [_row(record) for record in records], right=range(5, 9))


OVERVIEW_HEADINGS = (
    "protocol",
    "backend",
    "architecture",
    "weights",
    "test accuracy [95 %]",
    "train images/s",
    "inference images/s",
    "epoch s",
)


def overview(records: Sequence[Record]) -> str:
    """All cells in one table, by protocol, under a line that says on what they ran."""
    ordered = sorted(
        records, key=lambda record: (_place(record.cell.protocol), record.cell.backend, record.cell.seed)
    )
    rows = []
    for record in ordered:
        backend, architecture, start, _, accuracy, train, inference, epoch, *_ = _row(record)
        rows.append((record.cell.protocol, backend, architecture, start, accuracy, train, inference, epoch))
    return conditions(records) + "\n\n" + table(OVERVIEW_HEADINGS, rows, right=range(5, 8))


def failures_table(records: Iterable[Record]) -> str:
    """Why cells failed."""
    rows = [
        (record.cell.id, f"{record.error.type}: {record.error.message}")
        for record in records
        if record.error is not None
    ]
    return table(("cell", "reason"), rows)


def environment_table(records: Sequence[Record]) -> str:
    """Each backend's packages and effective settings."""
    rows = []
    seen = set()
    for record in records:
        environment = record.environment
        if environment is None or record.cell.backend in seen:
            continue
        seen.add(record.cell.backend)
        packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
        rows.append(
            (
                _title(record.cell.backend),
                f"Python {environment.python}",
                packages,
                str(record.settings.get("threads", "")),
                str(record.settings.get("compiled", "")),
                _commit(record),
            )
        )
    return table(("backend", "Python", "packages", "threads", "compiled", "commit"), rows)


def recipe_table(recipes: Iterable[Recipe] | None = None) -> str:
    """Every recipe with what it stands for."""
    rows = [
        (recipe.id, recipe.protocol, recipe.backend, recipe.architecture, recipe.track, recipe.seed_document)
        for recipe in (all_recipes() if recipes is None else recipes)
    ]
    return table(("recipe", "protocol", "backend", "architecture", "track", "seed document"), rows)


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


# --- How ------------------------------------------------------------------------------------------


def _line(cells: Sequence[str], widths: Sequence[int], rights: set[int]) -> str:
    padded = [
        cell.rjust(width) if column in rights else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def _place(protocol: str) -> tuple[int, str]:
    return (ORDER.index(protocol) if protocol in ORDER else len(ORDER), protocol)


def _title(backend: str) -> str:
    card = backends.known().get(backend)
    return card.title if card else backend


def _summary(records: Sequence[Record]) -> str:
    summaries = {recipe.id: recipe.summary for recipe in all_recipes()}
    return summaries.get(records[0].cell.recipe, "")


def _row(record: Record) -> tuple[str, ...]:
    cell = record.cell
    start = (_title(cell.backend), cell.architecture, cell.weights.name, str(cell.seed))
    if record.accuracy is None or record.throughput is None or record.memory is None:
        return (*start, "failed", "", "", "", "", cell.framework_version)
    throughput = record.throughput
    interval = wilson(sum(record.accuracy.correct), record.accuracy.images)
    later = record.curve[1:] or record.curve
    return (
        *start,
        f"{record.accuracy.test:.3f} [{interval.low:.3f}, {interval.high:.3f}]",
        f"{'' if throughput.steady else '~'}{throughput.train_images_per_second:.1f}",
        f"{throughput.inference_images_per_second:.1f}",
        f"{median(row.train_seconds for row in later):.1f}",
        f"{record.memory.peak_rss_bytes / 2**30:.2f} GiB",
        cell.framework_version,
    )


def _commit(record: Record) -> str:
    environment = record.environment
    if environment is None or environment.git_commit is None:
        return "unknown"
    return environment.git_commit[:10] + (" (with changes)" if environment.git_dirty else "")
