"""`python -m benchmarks compare`: has anything got worse from one run to another?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from backends.base import UsageError
from benchmarks.commands.shared import out, require_report_libraries
from benchmarks.harness import record
from benchmarks.harness.record import Record
from benchmarks.harness.running.run import Run
from benchmarks.report.compare.thresholds import Thresholds

if TYPE_CHECKING:
    from benchmarks.report import document
    from benchmarks.report.compare.verdicts import Comparison

USUAL = Thresholds()
STYLES = {"worse": "bold red", "better": "green"}


def compare(
    baseline: Annotated[str, typer.Argument(metavar="RUN_A", help="The baseline: a run's name or path.")],
    candidate: Annotated[str, typer.Argument(metavar="RUN_B", help="The candidate.")],
    accuracy_threshold: Annotated[
        float, typer.Option(help="Differences of accuracy up to this do not count.")
    ] = USUAL.accuracy,
    speed_threshold: Annotated[
        float, typer.Option(help="Speeds and memory count beyond 1 + this times, or below 1 / (1 + this).")
    ] = USUAL.speed,
    across_machines: Annotated[
        bool, typer.Option("--across-machines", help="Compare speeds and memory of different machines, too.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="RUN_B may lack cells that RUN_A has.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For a machine.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Markdown, for a comment under a change.")
    ] = False,
) -> None:
    """Compare two runs of the same cells: two versions, commits or machines.

    Something is worse or better only if it is significant (at .05, Holm-corrected over all tests of its
    table) and more than its threshold. Accuracy is compared by the same seeds on the same test images; speeds
    and memory by Welch's test over seeds, two or more in each run, and on one machine only.

    With one seed no accuracy is compared unless its cells are of the variant `reproducible`, trained on one
    machine, on the same bytes from the same values.

    Exit code: 0 no regression shown, 1 something is worse, fails that did not, or is missing, 2 nothing can
    be compared.

    Examples:

    `python -m benchmarks run --seeds 5 --run before`, and after the change `... --run after`

    `python -m benchmarks compare before after`

    `python -m benchmarks compare before after --markdown > comment.md`

    `python -m benchmarks compare laptop server --across-machines --speed-threshold 0.1`
    """
    if as_json and as_markdown:
        raise UsageError("compare: --json or --markdown, not both")
    for flag, value in (("accuracy", accuracy_threshold), ("speed", speed_threshold)):
        if not 0 <= value < 1:
            raise UsageError(f"--{flag}-threshold {value:g}: a share from 0 to 1, as in 0.05")
    records = [_records(baseline), _records(candidate)]
    require_report_libraries()
    from benchmarks.report.compare import shown, verdicts

    found = verdicts.compare(
        records[0],
        records[1],
        (baseline, candidate),
        thresholds=Thresholds(accuracy=accuracy_threshold, speed=speed_threshold),
        across_machines=across_machines,
        allow_missing=allow_missing,
    )
    if as_json:
        text = msgspec.json.encode(
            {"sentence": shown.sentence(found), "exit_code": found.exit_code} | _plain(found)
        )
        sys.stdout.write(msgspec.json.format(text).decode() + "\n")
    elif as_markdown:
        sys.stdout.write(shown.markdown(found))
    else:
        _print(found)
    raise typer.Exit(found.exit_code)


# --- How ------------------------------------------------------------------------------------------


def _records(run: str) -> list[Record]:
    folder: Path = Run(run).folder / "records"
    found = record.read_all(folder)
    if not found:
        raise UsageError(
            f"run {run}: {folder} has no records; `python -m benchmarks run --run {run}` makes some"
        )
    return found


def _plain(found: Comparison) -> dict[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(found)
    return plain


def _print(found: Comparison) -> None:
    from benchmarks.report.compare import shown

    for name, run in zip(("A, the baseline", "B, the candidate"), found.names, strict=True):
        out.print(f"{name}: {run}", markup=False, highlight=False, soft_wrap=True)
    for one in shown.tables(found):
        out.print()
        out.print(_table(one))
    for heading, lines in shown.lists(found):
        out.print(f"\n{heading}", style="bold", markup=False, highlight=False)
        listed = Table.grid(padding=(0, 1))
        for line in lines:
            listed.add_row("-", Text(line))
        out.print(listed)
    out.print()
    out.print(shown.sentence(found), style="bold", markup=False, highlight=False, soft_wrap=True)


def _table(content: document.Table) -> Table:
    shown = Table(title=Text(content.name, style="bold"), title_justify="left", box=None, pad_edge=False)
    for place, heading in enumerate(content.headings):
        right = place in content.right
        shown.add_column(Text(heading), justify="right" if right else "left", no_wrap=right)
    for row in content.rows:
        shown.add_row(*(Text(cell.text, style=STYLES.get(cell.text, "")) for cell in row))
    return shown
