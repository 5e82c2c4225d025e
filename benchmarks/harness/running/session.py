"""One invocation: the cells asked for, the run they belong to, and how each becomes a record. What `pytest
benchmarks`, `run` and the jobs of `submit` share."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import TracebackType

import msgspec

from backends.base import BenchmarkError, UsageError
from benchmarks.harness import plan, record
from benchmarks.harness.images import manifest
from benchmarks.harness.messages import CellJob, CurveJob, StartingWeights
from benchmarks.harness.plan import Cell, Options
from benchmarks.harness.running import command_line, runner
from benchmarks.harness.running.progress import Display, JobProgress, outcome
from benchmarks.harness.running.run import Head, Run
from benchmarks.harness.running.supplies import Supplies
from benchmarks.harness.worker.cell import require_gate


class Session:
    """Holds the run's lock from its making until `close`."""

    def __init__(
        self, options: Options, cells: Sequence[Cell], display: Display, *, only: str | None = None
    ) -> None:
        """Prepare the data, write the plan, and see what of it has been answered.

        Args:
            cells: the plan.
            only: one cell of it; others may run theirs meanwhile. What it has is kept.

        Raises:
            BenchmarkError: a data set or a device that is not there, or a run that is in use or of another
                kind.
        """
        self.options, self.display = options, display
        self.cells = [cell for cell in cells if only in (None, cell.id)]
        if not self.cells:
            raise UsageError(f"--cell {only}: no such cell in this plan ({cells[0].id}, ...)")
        self.run_folder = Run(options.run)
        self.supplies = Supplies(options, self.cells, self.run_folder, display)
        self._locks = contextlib.ExitStack()
        self._locks.enter_context(self.run_folder.held(cell=only))
        try:
            self._planned = {cell.id: self.supplies.planned(cell) for cell in self.cells}
            self.resumes = options.resume or only is not None
            self.answered: dict[str, Head] = self.run_folder.take_up(
                self.supplies.identity(),
                list(self._planned.values()),
                resume=self.resumes,
                allow_dirty=options.allow_dirty,
                asked=command_line.asked(options),
            )
            """The records that answer cells of this plan already."""
            manifest.write(self.run_folder.folder, self.supplies.manifest())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others have the run."""
        self._locks.close()

    def run(self, cell: Cell, title: str | None = None, *, turn: record.Turn | None = None) -> record.Record:
        """Run a cell, or take its record where the session resumes; the record is on disk when this
        returns.

        Args:
            title: what to call it on the display; None: its id.
            turn: the cell's, where cells are run in alternation.

        Raises:
            RecordError: the record cannot be written.
        """
        folder = self.run_folder.records
        if cell.id in self.answered:
            with contextlib.suppress(record.RecordError):  # of another version: run it again
                return record.read(folder / f"{cell.id}.json")
        finished = msgspec.structs.replace(self._finished(cell, title or cell.id), turn=turn)
        self.display.print(f"{title or cell.id}  {outcome(finished)}")
        record.write(folder, finished)
        if finished.status == "ok":
            self.run_folder.snapshot(cell).unlink(missing_ok=True)
        return finished

    def curves(self, cell: Cell) -> record.Curves:
        """Images/s of a cell's network against batch size, image size and threads; kept as a file of the run,
        and not measured again where the session resumes.

        Raises:
            JobFailed, GateError: it could not be measured; says why.
            RecordError: the file cannot be written.
        """
        path = self.run_folder.curves(cell)
        if self.resumes and path.exists():
            with contextlib.suppress(record.RecordError):
                return record.read_curves(path)
        require_gate(self.supplies.gate_of(cell))
        most = runner.threads()
        jobs = [CurveJob(cell=cell, combinations=plan.combinations(cell.profile.image_size), threads=most)]
        alone = (plan.Combination(plan.CURVE_BATCH, cell.profile.image_size),)
        jobs += [CurveJob(cell=cell, combinations=alone, threads=fewer) for fewer in _fewer(most)]
        found = []
        for job in jobs:
            title = f"curves of {cell.id}, {job.threads} threads"
            with JobProgress(title, self.display) as shown:
                log = self.run_folder.log(f"curves-{cell.id}-{job.threads}")
                found.append(runner.curves(job, log=log, on_event=shown.on_event))
        whole = msgspec.structs.replace(
            found[0],
            points=tuple(point for part in found for point in part.points),
            left_out=tuple(text for part in found for text in part.left_out),
            seconds=sum(part.seconds for part in found),
        )
        record.write_curves(path, whole)
        return whole

    def _finished(self, cell: Cell, title: str) -> record.Record:
        snapshot = self.run_folder.snapshot(cell)
        job = CellJob(
            cell=cell,
            data=self.supplies.data,
            weights=StartingWeights(name=self.supplies.weights_name(cell)),
            threads=runner.threads(),
            input_workers=runner.input_workers(cell.device, runner.threads()),
            key=self._planned[cell.id].key,
            snapshot=str(snapshot),
        )
        try:
            if not self.resumes:
                snapshot.unlink(missing_ok=True)
            job = msgspec.structs.replace(job, gate=self.supplies.gate_of(cell))
            require_gate(job.gate)
            job = msgspec.structs.replace(job, weights=self.supplies.weights_for(cell))
            log = self.run_folder.log(cell.id)
            with JobProgress(title, self.display) as shown:
                return runner.run_cell(
                    job, log=log, on_event=shown.on_event, silence=self.options.cell_timeout
                )
        except (
            BenchmarkError,
            OSError,
        ) as error:  # an OSError: the cache or the run cannot be read or written
            return runner.failed(job, error)


def _fewer(most: int) -> list[int]:
    """Numbers of threads below the most: powers of two."""
    return [2**power for power in range(most.bit_length()) if 2**power < most]
