"""What the runner and a worker say to each other: a job goes in, events come out, one JSON line each."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from backends.base import ModelSpec, Normalization
from benchmarks.harness.advise import Evidence
from benchmarks.harness.gate.scenarios import Mode, Network, Rule
from benchmarks.harness.images.data import DataSet
from benchmarks.harness.plan import Cell, Combination
from benchmarks.harness.recipe import Recipe
from benchmarks.harness.record import (
    CellDescription,
    Curves,
    Data,
    Epoch,
    Failure,
    Gate,
    RangeTest,
    Record,
    Weights,
)

# --- Jobs -----------------------------------------------------------------------------------------


class StartingWeights(msgspec.Struct, frozen=True, kw_only=True):
    """What a cell starts from."""

    name: str
    """`none`, `imagenet`, `source`, or a file's name."""
    path: str | None = None
    sha256: str | None = None


class CellJob(msgspec.Struct, frozen=True, kw_only=True, tag="cell"):
    """Run a cell; the result is its record."""

    cell: Cell
    data: DataSet
    weights: StartingWeights
    threads: int
    input_workers: int
    gate: Gate | None = None
    """Matched track: it has been passed, or failed."""
    key: str | None = None
    """See `Record.key`."""
    snapshot: str | None = None
    """The file that keeps the training from epoch to epoch, and that it goes on from; None: none."""

    def description(self, framework_version: str) -> CellDescription:
        """The record's description of the cell."""
        cell = self.cell
        return CellDescription(
            id=cell.id,
            backend=cell.backend,
            framework_version=framework_version,
            track=cell.recipe.track,
            architecture=cell.recipe.architecture,
            recipe=cell.recipe.id,
            protocol=cell.recipe.protocol,
            variant=cell.variant,
            seed=cell.seed,
            profile=cell.profile.name,
            device=cell.device,
            precision=cell.precision,
            resampled=cell.resampled,
            data=Data(
                name=self.data.name,
                sha256=self.data.sha256,
                train=len(self.data.train.files),
                test=len(self.data.test.files),
                classes=self.data.classes,
            ),
            weights=Weights(name=self.weights.name, sha256=self.weights.sha256),
        )


class PretrainJob(msgspec.Struct, frozen=True, kw_only=True, tag="pretrain"):
    """Train network A and write its neutral weights to `target`."""

    recipe: Recipe
    data: DataSet
    key: str
    target: str
    device: str
    threads: int
    input_workers: int


class GateJob(msgspec.Struct, frozen=True, kw_only=True, tag="gate"):
    """Compare a backend with the reference, unless this environment's cache knows that it passes."""

    backend: str
    network: Network
    modes: tuple[Mode, ...]
    rules: tuple[Rule, ...]
    device: str
    precision: str
    variant: str
    threads: int


class RangeTestJob(msgspec.Struct, frozen=True, kw_only=True, tag="range-test"):
    """Train with a rate that grows at every step; see `range_test.py`."""

    cell: Cell
    data: DataSet
    weights: StartingWeights
    threads: int
    input_workers: int
    lowest: float
    highest: float
    steps: int


class CurveJob(msgspec.Struct, frozen=True, kw_only=True, tag="curves"):
    """Time a network at many batch and image sizes; see `curves.py`."""

    cell: Cell
    """Whose recipe says which network, and what of it trains."""
    combinations: tuple[Combination, ...]
    """Those of one image size beside each other."""
    threads: int


class AdviseJob(msgspec.Struct, frozen=True, kw_only=True, tag="advise"):
    """Measure how far the data are from the source; see `advise.py`."""

    cell: Cell
    """Whose recipe says which network, and how images come to it."""
    data: DataSet
    weights: StartingWeights
    threads: int
    input_workers: int


class PublishedJob(msgspec.Struct, frozen=True, kw_only=True, tag="published"):
    """Fetch a backend's published ImageNet checkpoint and write all of it to `target` as neutral weights."""

    backend: str
    architecture: str
    normalization: Normalization
    """What the checkpoint expects of its inputs."""
    target: str


class ReadCheckpointJob(msgspec.Struct, frozen=True, kw_only=True, tag="read-checkpoint"):
    """Load a file in a framework's own format into that framework's network, and write it to `target` as
    neutral weights."""

    backend: str
    path: str
    architecture: str | None
    """None: the first that fits."""
    normalization: Normalization | None
    """What the weights expect of their inputs; None: what is usual for the architecture."""
    target: str
    infer: bool
    """Whether to run the network."""


class WriteCheckpointJob(msgspec.Struct, frozen=True, kw_only=True, tag="write-checkpoint"):
    """Write neutral weights to `path` in a framework's own format."""

    backend: str
    source: str
    spec: ModelSpec
    path: str
    infer: bool


class ProbeJob(msgspec.Struct, frozen=True, kw_only=True, tag="probe"):
    """Import the framework and say what it is."""

    backend: str


Job = (
    CellJob
    | PretrainJob
    | GateJob
    | RangeTestJob
    | CurveJob
    | AdviseJob
    | PublishedJob
    | ReadCheckpointJob
    | WriteCheckpointJob
    | ProbeJob
)


# --- Events ---------------------------------------------------------------------------------------


class Step(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
    """Images of an epoch done so far."""

    epoch: int
    epochs: int
    done: int
    images: int


class EpochEnd(msgspec.Struct, frozen=True, kw_only=True, tag="epoch"):
    """An epoch and its evaluation are over."""

    row: Epoch
    epochs: int


class Stage(msgspec.Struct, frozen=True, kw_only=True, tag="stage"):
    """What happens now, in a few words."""

    text: str


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag="notice"):
    """Something a reader of the output should know afterwards too."""

    text: str


class CellDone(msgspec.Struct, frozen=True, kw_only=True, tag="cell-done"):
    """The record, of a failed cell too."""

    record: Record


class PretrainDone(msgspec.Struct, frozen=True, kw_only=True, tag="pretrain-done"):
    """The weights are written."""

    sha256: str
    accuracy: float
    """Of network A on the source set's own test images."""
    seconds: float


class GateDone(msgspec.Struct, frozen=True, kw_only=True, tag="gate-done"):
    """How close the backend came."""

    gate: Gate


class RangeTestDone(msgspec.Struct, frozen=True, kw_only=True, tag="range-test-done"):
    """What the loss did."""

    result: RangeTest


class CurveDone(msgspec.Struct, frozen=True, kw_only=True, tag="curves-done"):
    """What was timed, on so many threads."""

    result: Curves


class AdviseDone(msgspec.Struct, frozen=True, kw_only=True, tag="advise-done"):
    """What was measured."""

    evidence: Evidence


class WeightsDone(msgspec.Struct, frozen=True, kw_only=True, tag="weights-done"):
    """A checkpoint was read or written, and what its network answers to the test images."""

    name: str
    """Of the checkpoint read."""
    spec: ModelSpec
    logits: tuple[tuple[float, ...], ...] = ()
    """(N, K), in inference mode; empty if the network was not run."""


class ProbeDone(msgspec.Struct, frozen=True, kw_only=True, tag="probe-done"):
    """What the framework is."""

    version: str
    devices: tuple[str, ...]


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The job could not be done."""

    failure: Failure


Outcome = (
    CellDone
    | PretrainDone
    | GateDone
    | RangeTestDone
    | CurveDone
    | AdviseDone
    | WeightsDone
    | ProbeDone
    | Failed
)
"""The last event of a job."""
Event = Step | EpochEnd | Stage | Notice | Outcome
Emit = Callable[[Event], None]
