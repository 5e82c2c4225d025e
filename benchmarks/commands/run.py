"""`python -m benchmarks run`: the whole matrix, each cell in the environment of its backend."""

from __future__ import annotations

import shlex
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

import backends
from backends.base import BenchmarkError
from benchmarks.commands.shared import display, out, takes_flags
from benchmarks.harness import plan
from benchmarks.harness.plan import Options
from benchmarks.harness.running import matrix, runner
from benchmarks.harness.running.session import Session


class Terminated(KeyboardInterrupt):
    """Somebody asked this process to end."""


@takes_flags
def run(
    options: Options,
    cell: Annotated[
        str | None,
        typer.Option(
            help="Only this cell of the plan, by its id. Other processes may run theirs meanwhile: a job of"
            " a cluster is this. What the cell has is kept."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cells in order, and end.")] = False,
) -> None:
    """Run every cell asked for, backends in alternation (A B C, C B A, ...), each in a process of its
    backend's own environment.

    The variants of a cell alternate too, and each seed reverses the order of the one before. Only speeds of
    one such sitting are compared: of all cells that one process of this command ran.

    A record is written the moment its cell ends; --resume runs what has none, and goes on with a training
    after its last epoch. Exit code: 0 if every cell has a record that is ok, 1 if some failed, 2 if nothing
    could be run, 130 after Ctrl-C.

    Examples:

    `python -m benchmarks run --run first`

    `python -m benchmarks run --data hotdog.zip --profile cpu --protocol finetune,frozen --seeds 5 --run
    photographs`

    `python -m benchmarks run --data hotdog.zip --profile cpu --protocol finetune,frozen --seeds 5 --run
    photographs --resume`
    """
    cells = plan.plan(options, runner.available())
    if dry_run:
        for place, planned in enumerate(matrix.alternating(cells), start=1):
            out.print(f"{place:5}  {planned.id}", highlight=False, markup=False)
        return
    signal.signal(signal.SIGTERM, _terminate)
    if cell is None:
        _warn_of_absent(options)
    with Session(options, cells, display, only=cell) as session:
        tally = None
        try:
            for tally in matrix.run_all(session, sitting=matrix.new_sitting() if cell is None else None):
                if tally.kept and not tally.records:
                    display.print(f"{tally.kept} of {tally.cells} cells have their records and are kept")
            curves_failed = _curves(session) if options.curves else 0
        except KeyboardInterrupt as interrupt:
            if tally is not None:
                _print_interrupted(tally)
            sys.exit(143 if isinstance(interrupt, Terminated) else 130)
    assert tally is not None
    _print_end(tally, options.run)
    sys.exit(1 if tally.failed or curves_failed else 0)


def _curves(session: Session) -> int:
    """Measure the curves; returns how many could not be."""
    failed = 0
    for cell in matrix.alternating(plan.curved(session.cells)):
        try:
            session.curves(cell)
        except BenchmarkError as error:
            failed += 1
            display.print(f"failed: curves of {cell.id}: {error}")
    return failed


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def _warn_of_absent(options: Options) -> None:
    if not options.backend:
        here = {card.name for card in runner.available()}
        absent = [card for card in backends.known().values() if card.name not in here]
        for card in absent:
            display.print(f"without {card.title}: `tox run -e bench-{card.name} --notest` would install it")


def _print_interrupted(tally: matrix.Tally) -> None:
    done = tally.kept + len(tally.records) - len(tally.failed)
    words = [word for word in sys.argv[1:] if word != "--resume"]
    again = shlex.join(["python", "-m", "benchmarks", *words, "--resume"])
    display.print(f"stopped; {done} of {tally.cells} cells have their records; go on with: {again}")


def _print_end(tally: matrix.Tally, run: str) -> None:
    done = tally.kept + len(tally.records) - len(tally.failed)
    for record in tally.failed:
        assert record.error is not None
        display.print(f"failed: {record.cell.id}: {record.error.type}: {record.error.message}")
    more = "; --resume runs the failed ones again" if tally.failed else ""
    display.print(f"{done} of {tally.cells} cells ok{more}")
    timed = [record.throughput for record in tally.records if record.throughput]
    doubtful = [one for one in timed if one.doubts]
    if doubtful:
        display.print(
            f"{len(doubtful)} of {len(timed)} timings (~) were disturbed or did not become steady: such"
            " speeds are compared with nothing; `python -m benchmarks check` names them"
        )
    display.print(f"report: {shlex.join(['python', '-m', 'benchmarks', 'report', run])}")
