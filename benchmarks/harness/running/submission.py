"""A plan on its way to a cluster: what of it is left to do, whose jobs are at it, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import msgspec

from backends.base import BenchmarkError, UsageError, one_line
from benchmarks.harness import plan, record
from benchmarks.harness.cache import write_whole
from benchmarks.harness.images import manifest
from benchmarks.harness.plan import Cell, Options
from benchmarks.harness.running import cluster
from benchmarks.harness.running.cluster import Job, Submitted
from benchmarks.harness.running.command_line import asked, words_of
from benchmarks.harness.running.progress import Display
from benchmarks.harness.running.run import Run
from benchmarks.harness.running.supplies import Supplies


class Submission:
    """A plan whose cells are run by jobs, each by a `run --cell` of its own. It writes no records, so that
    cells may run meanwhile."""

    def __init__(self, options: Options, cells: Sequence[Cell], display: Display) -> None:
        """Prepare the data.

        Raises:
            BenchmarkError: a data set or a device that is not there.
        """
        self.options, self.display = options, display
        self.cells = list(cells)
        self.run = Run(options.run)
        self.folder = self.run.folder / "logs" / "cluster"
        """What submitit and the jobs write."""
        self.supplies = Supplies(options, self.cells, self.run, display)

    def answered(self, *, resume: bool = True) -> set[str]:
        """Write the plan, and name the cells that have a record which answers it, and the curves that it is
        to measure.

        Raises:
            UsageError: see `Run.take_up`.
        """
        supplies, options = self.supplies, self.options
        planned = [supplies.planned(cell) for cell in self.cells]
        found = self.run.take_up(
            supplies.identity(), planned, resume=resume, allow_dirty=options.allow_dirty, asked=asked(options)
        )
        return {cell.id for cell in self.cells if cell.id in found and not self._lacks_curves(cell)}

    def at_work(self) -> list[Submitted]:
        """The jobs of earlier submissions that wait or run.

        Raises:
            ClusterError: their cluster does not answer.
        """
        try:
            earlier = msgspec.json.decode(self._jobs.read_bytes(), type=list[Submitted])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as error:
            raise UsageError(
                f"{self._jobs} is damaged ({one_line(error)}); delete it when no job of this run is left"
            ) from error
        return cluster.alive(earlier)

    def remember(self, jobs: Iterable[Submitted]) -> None:
        """Keep these jobs for a later `at_work`, and no others."""
        write_whole(self._jobs, msgspec.json.encode(list(jobs)))

    def start_over(self, cells: Iterable[Cell]) -> None:
        """Forget what there is of cells: their jobs would keep it."""
        for cell in cells:
            self._record(cell).unlink(missing_ok=True)
            self.run.snapshot(cell).unlink(missing_ok=True)
            if cell in self._curved:
                self.run.curves(cell).unlink(missing_ok=True)

    def prepare(self, cells: Iterable[Cell]) -> None:
        """Name the images, and make or fetch the weights that cells start from, so that no two jobs do. Where
        there are no weights, records will say so."""
        manifest.write(self.run.folder, self.supplies.manifest())
        for cell in {cell.recipe.id: cell for cell in cells}.values():
            try:
                self.supplies.weights_for(cell)
            except (BenchmarkError, OSError) as error:
                self.display.print(f"{cell.recipe.id}  no weights to start from: {one_line(error)}")

    def job(self, cell: Cell) -> Job:
        """The command line that runs one cell, as a user would type it."""
        options = msgspec.structs.replace(self.options, curves=cell in self._curved)
        words = (*words_of(options), "--resume", "--cell", cell.id)
        return Job(cell.id, (sys.executable, "-m", "benchmarks", "run", *words))

    def complaint(self, cell: Cell) -> str:
        """Why a cell has no record that answers the plan."""
        path = self._record(cell)
        if not path.exists():
            return "no record: its job was cancelled, was killed or could not start"
        try:
            error = record.read(path).error
        except record.RecordError as unreadable:
            return str(unreadable)
        if error:
            return f"{error.type}: {error.message}"
        return "no curves" if self._lacks_curves(cell) else f"{path} was made from something else"

    def _lacks_curves(self, cell: Cell) -> bool:
        return cell in self._curved and not self.run.curves(cell).exists()

    @cached_property
    def _curved(self) -> Sequence[Cell]:
        """The cells whose jobs measure curves: those of a network are measured once."""
        return plan.curved(self.cells) if self.options.curves else ()

    def _record(self, cell: Cell) -> Path:
        return self.run.records / f"{cell.id}.json"

    @property
    def _jobs(self) -> Path:
        return self.folder / "jobs.json"
