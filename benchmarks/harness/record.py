"""The record: one JSON file that holds everything a cell measured, and everything needed to judge it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import msgspec

from backends.base import (
    BenchmarkError,
    one_line,
)
from backends.optimizers import Optimizer
from benchmarks.harness.cache import write_whole
from benchmarks.harness.figures import CurvePoint, Memory, Throughput

SCHEMA_FILE = Path(__file__).with_name("record.schema.json")


class RecordError(BenchmarkError):
    """A file that is not a record of this version, or cannot be written."""


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """The data set of a cell."""

    name: str
    sha256: str
    train: int
    """Training images used."""
    test: int
    classes: tuple[str, ...]


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """The weights a cell starts from."""

    name: str
    """`none`, `source`, the official checkpoint's file name, or a file."""
    sha256: str | None
    """Of the neutral file; null where the framework's own loader verified the checkpoint, or there is
    none."""
    initial_sha256: str | None = None
    """Matched track: of every tensor before the first step, the new head's included."""


class CellDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What was run."""

    id: str
    backend: str
    framework_version: str
    track: str
    architecture: str
    recipe: str
    protocol: str
    variant: str
    seed: int
    profile: str
    device: str
    precision: str
    resampled: bool = False
    """Whether the seed drew its own training images; see `pipelines.parts_of`."""
    data: Data
    weights: Weights


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a cell failed."""

    type: str = msgspec.field(name="class")
    message: str


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """How closely a backend computed what the reference computed, before it was timed; see `parity.py`.
    Errors are relative to a tensor's largest value, and null where something was missing or not finite."""

    passed: bool
    network: str = ""
    """Which was compared: the architecture, and its head where that is a special one."""
    mode: str
    """What was trained in the comparison: `all`, `frozen` (the head), `features` (the head alone), and under
    which optimisers and schedules beside SGD; several are joined by a plus sign."""
    failures: tuple[str, ...] = ()
    logit_error: float | None
    block_error: float | None
    features_error: float | None = None
    first_loss_error: float | None
    gradient_error: float | None
    loss_error: float | None
    step_error: float | None
    tolerances: dict[str, float]
    worst: dict[str, str]
    """For each kind of comparison the tensor with the largest error."""
    reference_sha256: str
    """Of the network's golden file."""
    seconds: float


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the learning curve."""

    epoch: int
    """Counted from 1, through all phases."""
    phase: int = 1
    """Which of the recipe's trainings it belongs to, counted from 1."""
    train_loss: float
    """Mean over the epoch's images, each before its own update."""
    train_accuracy: float
    validation_accuracy: float | None = None
    """On the part of the training set that is held out to choose by; null where none is."""
    test_accuracy: float
    train_seconds: float
    """Input pipeline included, evaluation not."""
    input_wait_seconds: float
    """The part of `train_seconds` in which the loop waited for a batch."""
    eval_seconds: float
    images: int


class Extraction(msgspec.Struct, frozen=True, kw_only=True):
    """How a split's features came into the store; see `features.py`."""

    split: str
    key: str
    images: int
    width: int
    """F: values per image."""
    bytes: int
    extracted: int
    """Images that were computed now; the others were in the store already."""
    seconds: float
    """What all of them took to compute, whenever that was; input pipeline included."""


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Top-1 accuracy on all test images after the epoch chosen."""

    test: float
    correct: tuple[int, ...]
    """1 or 0 for each test image, in file order."""
    images: int
    epoch: int | None = None
    """The one with the best validation accuracy, or the last; null where nothing was trained by epochs."""


class PhaseTraining(msgspec.Struct, frozen=True, kw_only=True):
    """What was in force in one phase, the profile included."""

    epochs: int
    recipe_epochs: int
    """What the recipe asks for; the profile may shorten it."""
    on: str
    """`images`, or the head alone on stored `features`."""
    first_trained: str
    """`all`, `head`, or the lowest block that trained."""
    optimizer: Optimizer
    """Schedules counted in steps."""


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """The hyper-parameters that were in force, the profile's included."""

    epochs: int
    """Of the last phase."""
    batch_size: int
    recipe_batch_size: int | None = None
    """What the recipe asks for; the profile may change it."""
    image_size: int
    optimizer: Optimizer
    """Of the last phase."""
    phases: tuple[PhaseTraining, ...] = ()
    train_images: int | None = None
    """In an epoch, repeats counted."""
    distinct_train_images: int | None = None
    """Fewer than `train_images` where the cell is resampled."""
    validation_images: int = 0


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the software."""

    cpu: str
    """Its name, family, model and widest vectors."""
    cores: int
    """Physical cores this process may use."""
    threads: int
    ram_bytes: int
    os: str
    python: str
    packages: dict[str, str]
    gpu: str | None
    thread_pools: tuple[str, ...]
    """OpenMP and BLAS runtimes found in the process, with their threads."""
    affinity: tuple[int, ...] = ()
    """Processors this process may run on."""
    allocator: str | None = None
    """What hands out host memory, and what it was told."""
    variables: dict[str, str] = {}
    """Of the environment, what threads, allocators and the frameworks' libraries go by."""
    load_average: float
    """One-minute load when the cell began."""
    git_commit: str | None
    git_dirty: bool | None
    code_sha256: str


class RangeTest(msgspec.Struct, frozen=True, kw_only=True):
    """A learning-rate range test; see `range_test.py`. A file of its own beside the records."""

    cell: str
    architecture: str
    data: str
    data_sha256: str
    weights: str
    batch_size: int
    image_size: int
    rates: tuple[float, ...]
    """Of each step; the head's multiplier is not in it."""
    losses: tuple[float, ...]
    """Of each step's batch, before its update."""
    smoothed: tuple[float, ...]
    suggestion: float | None
    """Null where no rate made the loss fall."""


class Curves(msgspec.Struct, frozen=True, kw_only=True):
    """Images/s against batch size, image size and threads; see `curves.py`. A file of its own beside the
    records."""

    backend: str
    framework_version: str
    track: str
    architecture: str
    variant: str
    precision: str
    device: str
    first_trained: str
    """`all`, `head`, or the lowest block that trained."""
    points: tuple[CurvePoint, ...]
    left_out: tuple[str, ...] = ()
    """Combinations that were not measured, and why."""
    environment: Environment
    """Of the process with the most threads."""
    started: str
    """ISO 8601, UTC."""
    seconds: float


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """When a cell had its turn among those that were run in alternation; see `matrix.alternating`."""

    sitting: str
    """Names the one process of `run` that gave the turns. The speeds of cells of one sitting may be
    compared."""
    place: int
    """Among the cells that the sitting ran, counted from 0."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one cell."""

    schema_version: Literal[1] = 1
    key: str | None = None
    """What the cell was made from, as its run's plan has it: a hash of the recipe in full, the conditions,
    the data and the weights."""
    cell: CellDescription
    turn: Turn | None = None
    """Null where cells were not run in alternation: `pytest benchmarks`, `run --cell` and its jobs."""
    status: Literal["ok", "failed"]
    error: Failure | None = None
    gate: Gate | None = None
    """Matched track."""
    training: Training | None = None
    batches_sha256: tuple[str, ...] = ()
    """Matched track: of the uint8 batches, labels and dropout masks of each epoch of training on images.
    Stored features are each backend's own and have none."""
    extractions: tuple[Extraction, ...] = ()
    """Where features were stored: of each split."""
    fit_seconds: float | None = None
    """Of a scikit-learn classifier."""
    curve: tuple[Epoch, ...] = ()
    resumed: tuple[int, ...] = ()
    """Epochs after which the training was broken off and went on in another process. Such a cell is not
    timed."""
    trained_sha256: str | None = None
    """Of every tensor after the training, with the weights chosen; of a head alone trained on features, its
    own."""
    accuracy: Accuracy | None = None
    throughput: Throughput | None = None
    """Null where the training was resumed, or no timing was asked for."""
    memory: Memory | None = None
    settings: dict[str, Any] = {}
    """Effective settings, read off the live objects."""
    environment: Environment | None = None
    """Null where the process died before it could say."""
    started: str
    """ISO 8601, UTC."""
    seconds: float


def to_json(value: Any) -> bytes:
    """Compact JSON with a line for each field of the outermost object: small, and still a readable diff."""
    fields = msgspec.to_builtins(value)
    lines = [f"{json.dumps(key)}: {msgspec.json.encode(field).decode()}" for key, field in fields.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def write(folder: Path, record: Record) -> Path:
    """Write `<folder>/<cell id>.json`, whole or not at all.

    Raises:
        RecordError: the disk is full or may not be written to.
    """
    path = folder / f"{record.cell.id}.json"
    try:
        write_whole(path, to_json(record))
    except OSError as error:
        raise RecordError(
            f"record {path}: cannot be written ({one_line(error)}); make room and --resume"
        ) from error
    return path


def read(path: Path) -> Record:
    """Read and validate one record.

    Raises:
        RecordError: unreadable, not JSON, or not this schema; names the field.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (ValueError, RecursionError, OSError) as error:
        raise RecordError(f"record {path}: {one_line(error)}; delete it and run its cell again") from error


def read_all(folder: Path) -> list[Record]:
    """Every record of a folder, in order of name.

    Raises:
        RecordError: one of them is none.
    """
    return [read(path) for path in sorted(folder.glob("*.json"))]


def write_curves(path: Path, curves: Curves) -> None:
    """Write curves, whole or not at all.

    Raises:
        RecordError: the disk is full or may not be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, to_json(curves))
    except OSError as error:
        raise RecordError(f"curves {path}: cannot be written ({one_line(error)}); make room") from error


def read_curves(path: Path) -> Curves:
    """Read and validate curves.

    Raises:
        RecordError: unreadable, not JSON, or not this schema; names the field.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Curves)
    except (ValueError, RecursionError, OSError) as error:
        raise RecordError(f"curves {path}: {one_line(error)}; delete it and measure again") from error


def json_schema() -> bytes:
    """The JSON Schema of a record."""
    schema = msgspec.json.schema(Record)
    return (
        json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=1).encode()
        + b"\n"
    )
