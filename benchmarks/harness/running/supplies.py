"""What cells need that is made once for all of them: the data, the weights to start from, and the verdict on
their backends."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import msgspec

import backends
from backends import weights
from benchmarks.harness.environment import code_sha256
from benchmarks.harness.gate import scenarios
from benchmarks.harness.images import data, decoded, duplicates, manifest, sketch
from benchmarks.harness.images.manifest import Manifest
from benchmarks.harness.messages import GateJob, StartingWeights
from benchmarks.harness.plan import Cell, Options
from benchmarks.harness.profile import profile_of
from benchmarks.harness.recipe import Recipe, pretraining_of
from benchmarks.harness.record import Gate
from benchmarks.harness.running import runner, source
from benchmarks.harness.running.progress import Display, JobProgress
from benchmarks.harness.running.run import Identity, Planned, Run, key_of


class Supplies:
    """Prepared for these options and cells; what is slow to make is made when it is first asked for."""

    def __init__(self, options: Options, cells: list[Cell], run: Run, display: Display) -> None:
        """Prepare the data.

        Args:
            run: whose folder gets the logs.

        Raises:
            BenchmarkError: a data set or a device that is not there.
        """
        self.options, self.run, self.display = options, run, display
        self._sources: dict[str, StartingWeights] = {}
        self._gates: dict[GateJob, Gate] = {}
        if options.device != "cpu":
            for name in sorted({cell.backend for cell in cells}):
                runner.require_device(backends.resolve(name), options.device, log=run.log(f"probe-{name}"))
        with JobProgress("data", display) as shown:
            self.data = data.open_data(options.data, profile_of(options.profile), shown.images)
            if any(cell.recipe.track == "matched" for cell in cells):
                decoded.prepare(self.data, shown.images)

    def identity(self) -> Identity:
        """What the records of these options share."""
        return Identity(
            data=self.data.sha256,
            profile=self.options.profile,
            weights=Path(self.options.weights or "default").name,  # what is in a file, the cells' keys hold
            code=code_sha256(),
        )

    def manifest(self) -> Manifest:
        """The images by name, and those that are in both splits."""
        with JobProgress("data", self.display) as shown:
            return manifest.of(self.data, duplicates.audit(self.data, shown.images))

    def planned(self, cell: Cell) -> Planned:
        """The cell as its run's plan has it."""
        key = key_of(cell, data=self.data.sha256, weights=self._weights_identity(cell))
        return Planned(cell.id, key)

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
            log = self.run.log(f"gate-{job.backend}-{job.network.name}-{what}")
            with JobProgress(title, self.display) as shown:
                self._gates[job] = runner.pass_gate(job, log=log, on_event=shown.on_event)
        return self._gates[job]

    def weights_for(self, cell: Cell) -> StartingWeights:
        """The weights a cell starts from; trains network A, or fetches a checkpoint, if it must and nobody
        has.

        Raises:
            JobFailed: they cannot be had; says why.
        """
        name = self.weights_name(cell)
        if name == "source":
            return self._source(pretraining_of(cell.recipe))
        if name == "imagenet" and cell.recipe.track == "matched":
            return source.published(cell.recipe, display=self.display)
        if name in ("none", "imagenet"):
            return StartingWeights(name=name)
        path = Path(name).expanduser().resolve()
        return StartingWeights(name=path.name, path=str(path))

    def weights_name(self, cell: Cell) -> str:
        """`none`, `source`, `imagenet`, or a path."""
        if not cell.recipe.pretrained:
            return "none"
        return self.options.weights or cell.recipe.weights

    def _weights_identity(self, cell: Cell) -> str:
        """What tells the weights from others, without making or fetching them."""
        name = self.weights_name(cell)
        if name == "source":
            recipe = msgspec.json.encode(pretraining_of(cell.recipe))
            return f"source {sketch.SKETCH_VERSION} {hashlib.sha256(recipe).hexdigest()}"
        if name in ("none", "imagenet"):
            return name
        return _sha256_of(Path(name).expanduser().resolve())

    def _source(self, recipe: Recipe) -> StartingWeights:
        if recipe.id not in self._sources:
            self._sources[recipe.id] = source.network_a(
                recipe, device=self.options.device, display=self.display
            )
        return self._sources[recipe.id]


@cache
def _sha256_of(path: Path) -> str:
    return weights.sha256_of(path.read_bytes())
