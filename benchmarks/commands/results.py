"""`python -m benchmarks results`: the published results, made anew from their records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backends.base import UsageError
from benchmarks.commands.shared import err, out, require_report_libraries
from benchmarks.harness.cache import write_whole
from benchmarks.harness.running.run import RUNS


def results(
    folder: Annotated[
        Path, typer.Argument(help="Holds a folder for each machine and date, and in it runs.")
    ] = RUNS.parent,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 if a file is stale or missing.")
    ] = False,
) -> None:
    """Make the reports, the plots and README.md of the published results from their records. The same records
    and the same libraries give the same bytes.

    To publish a run, move its `plan.json`, `images.json` and `records/` to `results/<machine>-<date>/<run>/`.

    Examples: `python -m benchmarks results`, `python -m benchmarks results --check`
    """
    require_report_libraries()
    from benchmarks.report import publication

    found = publication.publications(folder) if folder.is_dir() else []
    if not found:
        raise UsageError(f"results {folder}: no published run; move one there, see --help")
    made = publication.files(folder, found)
    stale = [path for path, content in made.items() if not path.exists() or path.read_bytes() != content]
    left = [
        path
        for one in found
        for run in one.runs
        for path in sorted((run.folder / "plots").glob("*.svg"))
        if path not in made
    ]
    for path in (*stale, *left):
        if check:
            err.print(f"{path}: stale; run `python -m benchmarks results`", soft_wrap=True)
        elif path in made:
            path.parent.mkdir(exist_ok=True)
            write_whole(path, made[path])
        else:
            path.unlink()
    if check and (stale or left):
        raise typer.Exit(1)
    out.print(f"{folder / publication.INDEX}", soft_wrap=True)
