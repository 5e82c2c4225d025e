"""A run of three backends that is valid, and hands to spoil it with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from backends.optimizers import SGD
from benchmarks.harness import record
from benchmarks.harness.figures import Conditions
from benchmarks.harness.images import manifest
from benchmarks.harness.images.duplicates import Audit, Duplicate
from benchmarks.harness.images.manifest import Images, Manifest
from benchmarks.harness.record import Environment, PhaseTraining, Record, Training
from benchmarks.harness.running.run import Identity, Plan, Planned
from benchmarks.report.check.evidence import described

QUIET = Conditions(seconds=2.5, load_average=0.5, others=0.01, stolen=0.0, throttled=None, megahertz=2600.0)
ARCHITECTURES = {"pytorch": "resnet18", "gluon": "resnet18_v2", "keras": "vgg16"}
PACKAGES = {"pytorch": {"torch": "2.9.0"}, "gluon": {"mxnet": "1.9.1"}, "keras": {"keras": "3.12.0"}}
OWN: dict[str, dict[str, Any]] = {
    "pytorch": {"compiled": "no (eager)", "layout": "NCHW", "class": "torch.optim.SGD"},
    "gluon": {"compiled": "hybridize()", "layout": "NCHW", "class": "mxnet.optimizer.SGD"},
    "keras": {"compiled": "graph, without XLA", "layout": "NHWC", "class": "keras.optimizers.SGD"},
}
MATCHED = "matched-resnet18-finetune"


def sha256(*parts: object) -> str:
    """A hash that is another for other parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def settings(backend: str, rate: float = 0.01) -> dict[str, Any]:
    """As `Backend.settings` has them: what is declared to differ does."""
    own = OWN[backend]
    return {
        "threads": 2,
        "compiled": own["compiled"],
        "layout": own["layout"],
        "batch_norm": {"layers": 20, "epsilon": [1e-5]},
        "optimizer": {"class": own["class"], "learning_rates": [rate, 8 * rate], "momentum": 0.9},
    }


class Draft:
    """Records by cell, a plan and a manifest, on their way to a folder.

    Cells: the three backends, matched and native, and matched tuned; seeds 0 and 1 of each.
    """

    def __init__(self, measured: Record) -> None:
        """Args:
        measured: a matched cell of pytorch with all figures of its speed.
        """
        self.records: dict[str, Record] = {}
        for seed in (0, 1):
            for backend in ARCHITECTURES:
                for variant in ("default", "tuned"):
                    self._add(_matched(measured, backend, variant, seed))
                self._add(_native(measured, backend, seed))
        first = next(iter(self.records.values())).cell.data
        self.identity = Identity(data=first.sha256, profile="smoke", weights="default", code="c" * 64)
        self.planned = {cell_id: str(record.key) for cell_id, record in self.records.items()}
        self.manifest: Manifest | None = Manifest(
            name=first.name,
            sha256=first.sha256,
            classes=first.classes,
            train=_images(first.train),
            test=_images(first.test),
            audit=Audit(method="by eye", duplicates=()),
        )
        self.afterwards: list[Callable[[Path], object]] = []
        """What is done to the folder once it has been written."""

    def write(self, folder: Path) -> Path:
        """The run's folder, as it would lie on disk."""
        (folder / "records").mkdir(parents=True)
        for made in self.records.values():
            (folder / "records" / f"{made.cell.id}.json").write_bytes(record.to_json(made))
        planned = tuple(Planned(cell_id, key) for cell_id, key in self.planned.items())
        (folder / "plan.json").write_bytes(msgspec.json.encode(Plan(identity=self.identity, cells=planned)))
        if self.manifest is not None:
            (folder / manifest.FILE).write_bytes(record.to_json(self.manifest))
        for change in self.afterwards:
            change(folder)
        return folder

    def change(self, cell_id: str, changes: Mapping[str, Any]) -> None:
        """Give a cell's record other values, under dotted names."""
        made = self.records[cell_id]
        for place, value in changes.items():
            made = _changed(made, place.split("."), value)
        self.records[cell_id] = made

    def change_all(self, changes: Mapping[str, Any]) -> None:
        """Give all records other values."""
        for cell_id in self.records:
            self.change(cell_id, changes)

    def recast(self, cell_id: str, **fields: Any) -> str:
        """Make a cell another one, in its plan too; returns its new id."""
        made, key = self.records.pop(cell_id), self.planned.pop(cell_id)
        made = msgspec.structs.replace(made, cell=msgspec.structs.replace(made.cell, **fields))
        new = described(made)
        self.records[new] = msgspec.structs.replace(made, cell=msgspec.structs.replace(made.cell, id=new))
        self.planned[new] = key
        return new

    def remove(self, cell_id: str) -> None:
        """As if it had neither been planned nor run."""
        del self.records[cell_id], self.planned[cell_id]

    def fail(self, cell_id: str) -> None:
        """What a cell leaves that ran out of memory."""
        made = self.records[cell_id]
        self.records[cell_id] = Record(
            key=made.key,
            cell=msgspec.structs.replace(made.cell, framework_version="unknown"),
            status="failed",
            error=record.Failure(type="WorkerDied", message="out of memory"),
            started=made.started,
            seconds=1.0,
        )

    def edit(self, cell_id: str, before: str, after: str) -> None:
        """Replace a text in a record's file, once it has been written."""

        def change(folder: Path) -> None:
            path = folder / "records" / f"{cell_id}.json"
            text = path.read_text()
            assert before in text
            path.write_text(text.replace(before, after, 1))

        self.afterwards.append(change)

    def share(self, count: int, *, exact: bool = True) -> None:
        """Have so many test images in the training set too."""
        assert self.manifest is not None
        found = tuple(
            Duplicate(
                test=self.manifest.test.files[place], train=self.manifest.train.files[place], exact=exact
            )
            for place in range(count)
        )
        audit = msgspec.structs.replace(self.manifest.audit, duplicates=found)
        self.manifest = msgspec.structs.replace(self.manifest, audit=audit)

    def _add(self, made: Record) -> None:
        self.records[made.cell.id] = made


# --- How ------------------------------------------------------------------------------------------


def _images(count: int) -> Images:
    half = count // 2
    names = [(name, place) for name in ("hotdog", "not-hotdog") for place in range(half)]
    return Images(
        files=tuple(f"{name}/{place}.jpg" for name, place in names), labels=(0,) * half + (1,) * half
    )


def _matched(measured: Record, backend: str, variant: str, seed: int) -> Record:
    special = "" if variant == "default" else f"-{variant}"
    made = _of(measured, f"{backend}-{MATCHED}{special}-s{seed}", backend, variant, seed)
    weights = msgspec.structs.replace(made.cell.weights, initial_sha256=sha256("initial", seed))
    return msgspec.structs.replace(
        made,
        cell=msgspec.structs.replace(made.cell, weights=weights),
        batches_sha256=tuple(sha256("batch", seed, epoch) for epoch in (1, 2, 3)),
    )


def _native(measured: Record, backend: str, seed: int) -> Record:
    architecture = ARCHITECTURES[backend]
    recipe = f"native-{architecture}-finetune"
    made = _of(measured, f"{backend}-{recipe}-s{seed}", backend, "default", seed)
    weights = msgspec.structs.replace(
        made.cell.weights, sha256=sha256("network A", backend), initial_sha256=None
    )
    cell = msgspec.structs.replace(
        made.cell, track="native", architecture=architecture, recipe=recipe, weights=weights
    )
    rates = {"pytorch": 0.01, "gluon": 0.02, "keras": 0.001}
    return msgspec.structs.replace(
        made, cell=cell, gate=None, batches_sha256=(), settings=settings(backend, rates[backend])
    )


def _of(measured: Record, cell_id: str, backend: str, variant: str, seed: int) -> Record:
    assert (
        measured.throughput is not None and measured.accuracy is not None and measured.environment is not None
    )
    environment: Environment = msgspec.structs.replace(measured.environment, packages=PACKAGES[backend])
    optimizer = SGD(learning_rate=0.01, head_multiplier=8.0, momentum=0.9)
    phase = PhaseTraining(epochs=3, recipe_epochs=5, on="images", first_trained="all", optimizer=optimizer)
    return msgspec.structs.replace(
        measured,
        key=sha256("key", cell_id),
        cell=msgspec.structs.replace(measured.cell, id=cell_id, backend=backend, variant=variant, seed=seed),
        training=Training(
            epochs=3, batch_size=32, image_size=48, optimizer=optimizer, phases=(phase,), train_images=400
        ),
        accuracy=msgspec.structs.replace(measured.accuracy, epoch=3),
        throughput=msgspec.structs.replace(measured.throughput, conditions=QUIET, inference_conditions=QUIET),
        trained_sha256=sha256("trained", cell_id),
        settings=settings(backend),
        environment=environment,
    )


def _changed(value: Any, place: list[str], new: Any) -> Any:
    """A struct, tuple or dictionary with another value at a place."""
    head, *rest = place
    if isinstance(value, dict):
        return {**value, head: _changed(value[head], rest, new) if rest else new}
    if isinstance(value, tuple):
        items = list(value)
        items[int(head)] = _changed(items[int(head)], rest, new) if rest else new
        return tuple(items)
    return msgspec.structs.replace(
        value, **{head: _changed(getattr(value, head), rest, new) if rest else new}
    )
