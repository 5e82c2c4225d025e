"""One benchmark session: options in, records out. What `pytest benchmarks` and every later command share."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
from rich.console import Console

import backends
from backends.base import BenchmarkError, UsageError
from benchmarks.harness import data, record, runner, source
from benchmarks.harness.cache import write_whole
from benchmarks.harness.environment import PROJECT, code_sha256
from benchmarks.harness.messages import CellJob, StartingWeights
from benchmarks.harness.plan import Cell, Options
from benchmarks.harness.progress import JobProgress, outcome
from benchmarks.harness.recipe import Recipe, pretraining_of, profile_of

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

    def __init__(self, options: Options, cells: list[Cell], console: Console) -> None:
        """Prepare the data, and make sure that the run may take these cells.

        Raises:
            BenchmarkError: a data set or a device that is not there, or a run of another kind.
        """
        self.options = options
        self.console = console
        self.folder = run_folder(options.run)
        self.cells = cells
        self._sources: dict[str, StartingWeights] = {}
        if options.device != "cpu":
            for name in sorted({cell.backend for cell in self.cells}):
                log = self.folder / "logs" / f"probe-{name}.log"
                runner.require_device(backends.resolve(name), options.device, log=log)
        with JobProgress("data", console) as shown:
            self.data = data.open_data(options.data, profile_of(options.profile), shown.images)
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
            weights=StartingWeights(name=self.options.weights if cell.recipe.pretrained else "none"),
            threads=runner.threads(),
            input_workers=runner.input_workers(cell.device, runner.threads()),
        )
        try:
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

    def weights_for(self, cell: Cell) -> StartingWeights:
        """The weights a cell starts from; trains network A if it must and nobody has."""
        if not cell.recipe.pretrained:
            return StartingWeights(name="none")
        if self.options.weights == "source":
            return self._source(pretraining_of(cell.recipe))
        if self.options.weights == "imagenet":
            return StartingWeights(name="imagenet")
        path = Path(self.options.weights).expanduser().resolve()
        return StartingWeights(name=path.name, path=str(path))

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
            weights=self.options.weights,
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
        for name in ("records", "logs", "plots"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for stale in self.folder.glob("*.*"):
            stale.unlink()
