"""`python -m benchmarks report`: from records to `report.md`, `report.html` and plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from backends.base import UsageError
from benchmarks.commands.shared import out, require_report_libraries
from benchmarks.harness import plan
from benchmarks.harness.record import Record
from benchmarks.harness.running.run import SCRATCH_RUN, Run

if TYPE_CHECKING:
    from benchmarks.report.document import Headline


def report(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Option("--run", help=f"Name or path of a run. Default: {SCRATCH_RUN}.")
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Accuracies closer than that are as good as equal; a share.")
    ] = 0.02,
    threshold: Annotated[
        list[float] | None,
        typer.Option(help="An accuracy to be reached; may be given again. Default: what the curves reach."),
    ] = None,
    price: Annotated[float | None, typer.Option(help="Of an hour of the machine.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the report. Default: the run's own.")] = None,
) -> None:
    """Write `report.md`, `report.html` and their plots from the records and curves of RUN..., and merge the
    environments' JSON files into `benchmark.json`.

    RUN is a name or a path; several runs make one report, in the folder of `--output`. The options of `pytest
    benchmarks` are taken and passed over, so that `tox run -m bench -- OPTIONS` can hand the same ones to
    every step.

    Examples: `python -m benchmarks report`, `python -m benchmarks report before after --output both`
    """
    margin, thresholds = _share("--margin", margin), [_share("--threshold", one) for one in threshold or ()]
    if price is not None and not price > 0:
        raise UsageError(f"--price {price:g}: the price of an hour, above 0")
    names = [*([run] if run else []), *_run_arguments(context.args)] or [SCRATCH_RUN]
    folders = [Run(name).folder for name in dict.fromkeys(names)]
    for name, folder in zip(dict.fromkeys(names), folders, strict=True):
        if not (folder / "records").is_dir():
            raise UsageError(
                f"run {name}: {folder} has no records; `tox run -m bench` or `pytest benchmarks` makes some"
            )
    if len(folders) > 1 and output is None:
        raise UsageError(f"report: {len(folders)} runs make one report; say where with --output FOLDER")
    require_report_libraries()
    from benchmarks.report import contents, merge, sources, validity, written
    from benchmarks.report.verdicts.words import Choices

    choices = Choices(margin=margin, thresholds=tuple(thresholds), price=price)
    found = sources.gather(folders)
    document = contents.document(
        found,
        title=sources.title(folders),
        choices=choices,
        validity=[validity.sentence(folder) for folder in folders],
    )
    paths = written.write(output or folders[0], document, found)
    if output is None:
        merge.merge(folders[0])
    _show(document.headlines, found.records, paths)


# --- How ------------------------------------------------------------------------------------------


def _share(option: str, value: float) -> float:
    if not 0 < value <= 1:
        raise UsageError(f"{option} {value:g}: a share, above 0 and at most 1; 0.02 is 2 points")
    return value


def _run_arguments(arguments: Iterable[str]) -> list[str]:
    """The runs among arguments that may hold `pytest benchmarks`' own options.

    Raises:
        UsageError: an option that no command has.
    """
    flags = {flag.name: flag for flag in plan.FLAGS}
    names = []
    rest = iter(arguments)
    for word in rest:
        flag = flags.get(word.split("=")[0])
        if flag is None and word.startswith("-"):
            raise UsageError(f"report: no such option {word}; see `python -m benchmarks report --help`")
        if flag is None:
            names.append(word)
        elif not flag.switch and "=" not in word:
            next(rest, None)
    return names


def _show(headlines: Sequence[Headline], records: Sequence[Record], paths: Iterable[Path]) -> None:
    """The verdicts, what failed, and where the rest is."""
    from benchmarks.report.sections.results import reason

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column()
    for headline in headlines:
        grid.add_row(Text(headline.topic), Text("\n".join(headline.sentences)))
    failed = [record for record in records if record.error is not None]
    for record in failed:
        grid.add_row(Text("failed", style="red"), Text(f"{record.cell.id}: {reason(record)}"))
    out.print(grid)
    for path in paths:
        out.print(f"{path}", markup=False, highlight=False, soft_wrap=True)
