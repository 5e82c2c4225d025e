"""`python -m benchmarks check`: whether a run is valid."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer

from backends.base import UsageError
from benchmarks.commands.shared import out
from benchmarks.harness.running.run import Run
from benchmarks.report.check import rules
from benchmarks.report.check.evidence import gather
from benchmarks.report.check.rules import Verdict


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A violation or a note, for a machine."""

    rule: str
    where: str
    what: str
    remedy: str | None = None
    """What to do; null in a note."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a run, for a machine."""

    run: str
    folder: str
    valid: bool
    rules: tuple[str, ...]
    """Those that were looked at."""
    cells: int
    failed: int
    violations: tuple[Line, ...]
    notes: tuple[Line, ...]


def check(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Names of runs, or paths of their folders.")
    ],
    rule: Annotated[
        list[str] | None, typer.Option(help="Only this rule; may be given several times. Default: all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For a machine.")] = False,
) -> None:
    """Say whether runs are valid: a line for each violation, with the rule, the cell or file, and what to do;
    then a line that counts.

    `docs/verdicts.md` has the rules with examples. Exit code: 0 if all runs are valid, 1 if one is not, 2
    if one cannot be found or read at all. A cell that failed is counted, and makes a run invalid only where
    no cell of its backend ended well.

    Examples:

    `python -m benchmarks check photographs`

    `python -m benchmarks check results/runs/photographs --rule steady --rule peak`

    `python -m benchmarks check photographs --json`
    """
    chosen = rules.named(rule or [])
    answers = [_answer(name, chosen) for name in runs]
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(answers)).decode() + "\n")
    else:
        for answer in answers:
            _print(answer)
    if not all(answer.valid for answer in answers):
        raise typer.Exit(1)


# --- How ------------------------------------------------------------------------------------------


def _answer(name: str, chosen: tuple[rules.Rule, ...]) -> Answer:
    folder = Run(name).folder
    if not folder.is_dir():
        raise UsageError(f"run {name}: no folder {folder}; give the name of a run, or the path of its folder")
    verdict: Verdict = rules.judge(gather(folder), chosen)
    return Answer(
        run=name,
        folder=str(folder),
        valid=not verdict.violations,
        rules=tuple(rule.__name__ for rule in chosen),
        cells=verdict.cells,
        failed=verdict.failed,
        violations=tuple(
            Line(rule=rule, where=found.where, what=found.what, remedy=found.remedy)
            for rule, found in verdict.violations
        ),
        notes=tuple(Line(rule=rule, where=note.where, what=note.what) for rule, note in verdict.notes),
    )


def _print(answer: Answer) -> None:
    width = max((len(line.rule) for line in (*answer.violations, *answer.notes)), default=0)
    for line in answer.violations:
        _say(f"{line.rule:{width}}  {line.where}: {line.what}; {line.remedy}")
    for line in answer.notes:
        _say(f"{line.rule:{width}}  {line.where}: {line.what} (a note)")
    counts = (
        f"{len(answer.rules)} rules, {answer.cells} cells, {answer.failed} of them failed,"
        f" {len(answer.notes)} notes"
    )
    verdict = "valid" if answer.valid else f"NOT VALID, {len(answer.violations)} violations"
    _say(f"{answer.run}: {verdict} ({counts})")


def _say(text: str) -> None:
    """A line of its own, whatever characters a record has in it."""
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    out.print(shown, markup=False, highlight=False, soft_wrap=True)
