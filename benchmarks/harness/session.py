"""One benchmark session: options in, records out. What `pytest benchmarks` and every later command share."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
from rich.console import Console

import backends
from backends.base import BenchmarkError, UsageError
from benchmarks.harness import data, decoded, record, runner, scenarios, source
from benchmarks.harness.cache import write_whole
from benchmarks.harness.cell import require_gate
from benchmarks.harness.environment import PROJECT, code_sha256
from benchmarks.harness.messages import CellJob, GateJob, StartingWeights
from benchmarks.harness.plan import Cell, Options
from benchmarks.harness.profile import profile_of
from benchmarks.harness.progress import JobProgress, outcome
from benchmarks.harness.recipe import (
    Recipe,
    pretraining_of,
)
from benchmarks.harness.record import Gate

RUNS = PROJECT / "results" / "runs"
SCRATCH_RUN = "local"


def run_folder(name: str) -> Path:
    """The folder of a run: below results/runs, or the path given."""
    return Path(name).expanduser().resolve() if "/" in name or "\\" in name else RUNS / name


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What all records of a run share."""

    data: str
    profile: str
    weights: str
    code: str


class Session:
    """The cells of one invocation and the run they belong to."""

    def __init__(
        self, options: Options, cells: list[Cell], console: Console, *, keeps_records: bool = True
    ) -> None:
        """Prepare the data, and make sure that the run may take these cells.

        Args:
            keeps_records: False for what is no run, and leaves the records that there are alone.

        Raises:
            BenchmarkError: a data set or a device that is not there, or a run of another kind.
        """
        self.options = options
        self.console = console
        self.folder = run_folder(options.run)
        self.cells = cells
        self._sources: dict[str, StartingWeights] = {}
        self._gates: dict[GateJob, Gate] = {}
        if options.device != "cpu":
            for name in sorted({cell.backend for cell in self.cells}):
                log = self.folder / "logs" / f"probe-{name}.log"
                runner.require_device(backends.resolve(name), options.device, log=log)
        with JobProgress("data", console) as shown:
            self.data = data.open_data(options.data, profile_of(options.profile), shown.images)
            if any(cell.recipe.track == "matched" for cell in cells):
                decoded.prepare(self.data, shown.images)
        if keeps_records:
            self._claim()

    @property
    def records(self) -> Path:
        """The folder of the run's records."""
        return self.folder / "records"

    def run(self, cell: Cell) -> record.Record:
        """Run a cell, or take its record where the session resumes; the record is on disk when this
        returns."""
        path = self.records / f"{cell.id}.json"
        if self.options.resume and path.exists():
            kept = record.read(path)
            if kept.status == "ok":
                return kept
        log = self.folder / "logs" / f"{cell.id}.log"
        job = CellJob(
            cell=cell,
            data=self.data,
            weights=StartingWeights(name=self._weights_name(cell)),
            threads=runner.threads(),
            input_workers=runner.input_workers(cell.device, runner.threads()),
        )
        try:
            job = msgspec.structs.replace(job, gate=self.gate_of(cell))
            require_gate(job.gate)
            job = msgspec.structs.replace(job, weights=self.weights_for(cell))
        except (BenchmarkError, OSError) as error:  # an OSError: the cache cannot be read or written
            finished = runner.failed(job, error)
            self.console.print(
                f"{cell.id}  {outcome(finished)}", highlight=False, markup=False, soft_wrap=True
            )
        else:
            with JobProgress(cell.id, self.console) as shown:
                finished = runner.run_cell(job, log=log, on_event=shown.on_event)
        record.write(self.records, finished)
        return finished

    def gate_of(self, cell: Cell) -> Gate | None:
        """Whether the cell's backend computes what the reference computes; None in the native track, which
        claims nothing of the kind.

        Raises:
            JobFailed: the comparison could not be made.
        """
        if cell.recipe.track != "matched":
            return None
        modes, rules = scenarios.coverage_of(cell.recipe)
        spec = cell.recipe.model(classes=len(self.data.classes), image_size=cell.profile.image_size)
        job = GateJob(
            backend=cell.backend,
            network=scenarios.network_of(spec),
            modes=modes,
            rules=rules,
            device=cell.device,
            precision=cell.precision,
            variant=cell.variant,
            threads=runner.threads(),
        )
        if job not in self._gates:
            what = scenarios.coverage_name(modes, rules)
            title = f"gate of {job.backend} {job.network.name}, {what}"
            log = self.folder / "logs" / f"gate-{job.backend}-{job.network.name}-{what}.log"
            with JobProgress(title, self.console) as shown:
                self._gates[job] = runner.pass_gate(job, log=log, on_event=shown.on_event)
        return self._gates[job]

    def weights_for(self, cell: Cell) -> StartingWeights:
        """The weights a cell starts from; trains network A, or fetches a checkpoint, if it must and nobody
        has."""
        name = self._weights_name(cell)
        if name == "source":
            return self._source(pretraining_of(cell.recipe))
        if name == "imagenet" and cell.recipe.track == "matched":
            return source.published(cell.recipe, console=self.console)
        if name in ("none", "imagenet"):
            return StartingWeights(name=name)
        path = Path(name).expanduser().resolve()
        return StartingWeights(name=path.name, path=str(path))

    def _weights_name(self, cell: Cell) -> str:
        if not cell.recipe.pretrained:
            return "none"
        return self.options.weights or cell.recipe.weights

    def _source(self, recipe: Recipe) -> StartingWeights:
        if recipe.id not in self._sources:
            self._sources[recipe.id] = source.network_a(
                recipe, device=self.options.device, console=self.console
            )
        return self._sources[recipe.id]

    def _claim(self) -> None:
        """Make the run's folder ours: scratch paper is wiped, a named run must be of the same kind."""
        identity = Identity(
            data=self.data.sha256,
            profile=self.options.profile,
            weights=self.options.weights or "default",
            code=code_sha256(),
        )
        path = self.folder / "run.json"
        if path.exists():
            try:
                found = msgspec.json.decode(path.read_bytes(), type=Identity)
            except msgspec.DecodeError as error:
                raise UsageError(f"{path} is damaged; choose another --run") from error
            if found != identity:
                self._wipe_or_refuse(found, identity)
        if self.options.run != SCRATCH_RUN and not self.options.resume:
            there = [cell.id for cell in self.cells if (self.records / f"{cell.id}.json").exists()]
            if there:
                raise UsageError(
                    f"run {self.options.run} already has {len(there)} of these {len(self.cells)} cells"
                    f" ({there[0]}, ...);"
                    " --resume keeps them and runs the others, or choose another --run"
                )
        self.records.mkdir(parents=True, exist_ok=True)
        write_whole(path, msgspec.json.encode(identity))

    def _wipe_or_refuse(self, found: Identity, wanted: Identity) -> None:
        if self.options.run != SCRATCH_RUN:
            names = [
                name for name in Identity.__struct_fields__ if getattr(found, name) != getattr(wanted, name)
            ]
            raise UsageError(
                f"run {self.options.run} was made with other {', '.join(names)}: its records cannot be"
                f" mixed with these;"
                " choose another --run"
            )
        for name in ("records", "logs", "plots", "range-tests"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for stale in self.folder.glob("*.*"):
            stale.unlink()
