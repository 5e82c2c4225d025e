"""The contract: what the harness may ask of a framework, and the plain values that cross it.

Nothing here imports a framework. A backend does framework work (build, load, step, synchronise); the harness
does protocol work (what to train on, for how long, when to read the clock). One process holds one backend,
and a backend holds one network at a time.

Vocabulary of shapes: N images in a batch, K classes, F features (the values that enter the head).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Protocol, get_args

import msgspec
import numpy as np

from backends.optimizers import Optimizer
from backends.sources import Source

# --- Errors ---------------------------------------------------------------------------------------


class BenchmarkError(Exception):
    """Base of every error this project raises on purpose. Its text is one line: what, where, what to do
    next."""

    def __str__(self) -> str:
        """The text with escapes in the place of what would move the cursor or colour the screen: names of
        files and tensors are others'."""
        return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in super().__str__())


class UsageError(BenchmarkError):
    """An option, a name or a combination that does not exist."""


class DataError(BenchmarkError):
    """A data set that is missing, damaged or not laid out as `train/<class>/*` and `test/<class>/*`."""


class WeightsError(BenchmarkError):
    """A checkpoint that is missing, damaged, or of another architecture."""


class DeviceError(BenchmarkError):
    """A device that this machine or this build of the framework does not have."""


class NumericalError(BenchmarkError):
    """A loss or an output that is not finite."""


def one_line(error: BaseException) -> str:
    """Somebody else's error, shortened to its first line; to its last, where the others trace how it came
    about."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


# --- Values that cross the contract ---------------------------------------------------------------


Precision = Literal["float32", "bfloat16"]
Variant = Literal["default", "tuned", "reproducible"]
Stage = Literal["transfer", "forward", "backward", "update"]
STAGES: tuple[Stage, ...] = get_args(Stage)
Track = Literal["native", "matched"]
Head = Literal["linear", "mlp-256", "mlp-1024-128", "fc6-fc7"]
Output = Literal["softmax", "sigmoid"]
Entry = Literal["images", "features"]
Initializer = Literal["default", "xavier", "he"]
Normalization = Literal["imagenet", "caffe", "inception"]
ResizeMode = Literal["shorter-side", "squash", "none"]


class BackendInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A backend's visiting card: all that is known of it without importing its framework."""

    name: str
    title: str
    """The framework's own name, for tables."""
    aliases: tuple[str, ...] = ()
    module: str
    """The framework's import name."""
    extra: str
    """The extra in pyproject.toml that installs it."""
    distributions: tuple[str, ...]
    """Distributions that may provide the framework; the version is that of the first one found."""
    packages: tuple[str, ...] = ()
    """Distributions beside it that the figures depend on; records name their versions."""
    architectures: tuple[str, ...]
    """What it can build; the first is its own users' choice."""
    checkpoint_suffixes: tuple[str, ...]
    """Of files in the framework's own format, the usual one first."""
    sources: tuple[Source, ...] = ()
    """The official ImageNet checkpoints."""
    tuning: tuple[str, ...] = ()
    """What an expert may switch on, by name; which of it the `tuned` variant has on which device, the backend
    decides."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The conditions a process runs a backend under; fixed before the framework starts to compute."""

    device: str = "cpu"
    track: Track = "native"
    """`matched`: batch norm and the optimiser follow the contract's one definition, dropout is that of the
    masks that come with a batch, and the running variance is updated with the batch's unbiased one. `native`:
    the framework's own idioms."""
    precision: Precision | Literal["float64"] = "float32"
    """Of parameters and arithmetic; `bfloat16` is the framework's own mixed precision: parameters, updates
    and the loss stay in float32. float64 is for proving equality, in the matched track on the CPU."""
    variant: Variant = "default"
    """`tuned`: what an expert switches on for speed. `reproducible`: nothing but the framework's
    deterministic algorithms, so that two runs on the same machine end with the same bits."""
    tuning: tuple[str, ...] | None = None
    """Of the card's `tuning` what is on; None: what the variant has."""
    seed: int = 0
    threads: int = 1
    """Threads for one operation. The caller also sets OMP_NUM_THREADS and its like before the import. Where a
    process has computed with another number, that may stay; `settings()` has the one in force."""
    input_workers: int = 0
    """Processes or threads that read images; 0 reads in the training process, between steps."""


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An architecture with a new head."""

    architecture: str
    classes: int
    image_size: int
    """Height and width of an input image in pixels."""
    head: Head = "linear"
    """`linear`: one affine layer on the globally averaged features. `mlp-256`: Dense 256 relu, K.
    `mlp-1024-128`: Dense 1024 relu, 128 relu, K. `fc6-fc7`: VGG16's own two layers of 4096 and relu, then K;
    of these only the last is new. All but the first flatten VGG16's features, in the neutral order
    (C, H, W)."""
    output: Output = "softmax"
    """`softmax`: K units and cross-entropy. `sigmoid`, for two classes: one unit, which says how much more
    likely the second class is, and binary cross-entropy. Its logits are (0, z), so that in either case the
    largest one is the answer."""
    dropout: float = 0.0
    """Rate at which training drops the values that enter the last affine layer, scaling up those it keeps.
    Native: by the framework's own generator. Matched: by the masks that come with a batch, and a multiple of
    1/256."""
    entry: Entry = "images"
    """`features`: the head alone. Its batches are (N, F) float32 features; it has no tensors but the
    head's."""
    initializer: Initializer = "default"
    """`default`: what the framework's own constructors draw. `xavier`: Glorot uniform; `he`: He normal over
    the fan-in; both with zero biases, for convolutions and affine layers."""
    normalization: Normalization = "imagenet"
    """How a uint8 batch becomes an input, on the device."""


class Trainable(msgspec.Struct, frozen=True, kw_only=True):
    """What one step of training may change."""

    first: str = "all"
    """`all`; `head`; or a block of the architecture (`block5`, `layer4`) and everything above it."""
    batch_norm: Literal["batch", "stored"] = "batch"
    """Trained batch-norm layers normalise by the batch and update their running statistics (`batch`), or use
    the stored statistics and leave them alone (`stored`). Frozen ones always do the latter."""


class Transform(msgspec.Struct, frozen=True, kw_only=True):
    """From a decoded image to an input.

    Training: a random crop of `scale` of the area with an aspect ratio within `ratio`, resized to
    `size` x `size`, flipped left-right with probability 1/2; without `augment`, as testing. Testing: resize
    to `resize`, then the centre `size` x `size`. Both end with `normalization`.
    """

    size: int
    resize: int
    resize_mode: ResizeMode = "shorter-side"
    """Test images: the shorter side becomes `resize`, or both do, or (`none`, matched track) neither."""
    augment: bool = True
    """False in the matched track only."""
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    normalization: Normalization = "imagenet"


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """From RGB values in 0..255 to an input: `(value / divisor - mean) / deviation` for each channel."""

    channels: Literal["RGB", "BGR"]
    """Order of the input's channels, which `mean` and `deviation` follow."""
    divisor: float
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


NORMALIZATIONS: Mapping[Normalization, Scaling] = {
    # torchvision's and Gluon's networks
    "imagenet": Scaling(
        channels="RGB", divisor=255, mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225)
    ),
    # keras.applications.vgg16.preprocess_input
    "caffe": Scaling(channels="BGR", divisor=1, mean=(103.939, 116.779, 123.68), deviation=(1.0, 1.0, 1.0)),
    # timm's name for it; EfficientNet-Lite's own
    "inception": Scaling(channels="RGB", divisor=255, mean=(0.5, 0.5, 0.5), deviation=(0.5, 0.5, 0.5)),
}


class ImageList(msgspec.Struct, frozen=True, kw_only=True):
    """One split of a data set: image files below a folder, in file order."""

    root: str
    files: tuple[str, ...]
    """Paths relative to `root`, sorted; `<class>/<name>`."""
    labels: tuple[int, ...]
    """For each file an index into `classes`."""
    classes: tuple[str, ...]


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """What training steps gathered since they were last asked."""

    loss: float
    """Mean over the images of the loss each step saw before its update."""
    correct: int
    images: int


Batch = tuple[Any, ...]
"""Images (or features) and integer labels, as the framework holds them in host memory, ready for
`train_step`: normalised and in its own layout, or uint8 as the harness made them. A third part, where there
is one, says what dropout keeps."""


class Pipeline(Protocol):
    """A framework's own input pipeline. Each iteration is one epoch. A training pipeline draws its order and
    all else from the framework's generators as that iteration finds them: anew each time, and the same again
    after the same `reseed`."""

    def __len__(self) -> int:
        """Batches in an epoch, the last and smaller one included."""

    def __iter__(self) -> Iterator[Batch]: ...


# --- The contract ---------------------------------------------------------------------------------


class Backend(abc.ABC):
    """One framework. Methods are called in the order in which they stand here."""

    info: BackendInfo

    def __init__(self, session: Session) -> None:
        """Seed every generator of the framework; set its threads, and what the variant asks for.

        Raises:
            DeviceError: the device does not exist; the text names those that do.
        """
        self.session = session

    @staticmethod
    @abc.abstractmethod
    def devices() -> tuple[str, ...]:
        """Names of the devices this framework can compute on here: `cpu`, and `cuda` where there is a GPU."""

    # Building

    @abc.abstractmethod
    def build(self, spec: ModelSpec) -> None:
        """Make the network, randomly initialised from the session's seed.

        Raises:
            UsageError: an architecture or head this backend does not have.
        """

    @abc.abstractmethod
    def load_official(self, *, head: bool = False) -> str:
        """Load the framework's own published ImageNet checkpoint into all but the head; returns its file
        name, with the hash where the name holds none.

        The framework's own loader fetches and verifies it. With `head`, and a network of 1000 classes with
        the published head (`linear`; VGG16 `fc6-fc7`), into the head too.

        Raises:
            WeightsError: there is none, it cannot be fetched, or its hash is wrong.
        """

    @abc.abstractmethod
    def load_weights(self, tensors: Mapping[str, np.ndarray], *, head: bool) -> None:
        """Load neutral weights (see `weights.py`), the head's too if `head`.

        Raises:
            WeightsError: names the first tensor that is missing or has another shape.
        """

    @abc.abstractmethod
    def export_weights(self) -> dict[str, np.ndarray]:
        """Every parameter and running statistic under its neutral name, in the order and the shapes of
        `architectures.shapes`, in the session's precision."""

    @staticmethod
    @abc.abstractmethod
    def inspect_checkpoint(path: Path, architecture: str) -> ModelSpec:
        """What to build for a file in the framework's own format: its classes, head and (where the head's
        shape tells it) image size, read off its tensors' shapes.

        Raises:
            WeightsError: missing, truncated, not such a file, or of another architecture; names the first
                wrong tensor.
        """

    @abc.abstractmethod
    def load_checkpoint(self, path: Path) -> None:
        """Load a file in the framework's own format, head included, into the network built. Runs no code that
        the file brings.

        Raises:
            WeightsError: as `inspect_checkpoint`.
        """

    @abc.abstractmethod
    def save_checkpoint(self, path: Path) -> None:
        """Write the network's weights as the framework's users would, in the format the suffix asks for.

        Raises:
            UsageError: not one of the card's `checkpoint_suffixes`.
        """

    # Training

    @abc.abstractmethod
    def set_trainable(self, trainable: Trainable) -> None:
        """State what trains. No gradient is computed for, or passed through, what does not.

        Raises:
            UsageError: the architecture has no block of that name.
        """

    @abc.abstractmethod
    def configure_optimizer(self, optimizer: Optimizer) -> None:
        """Make the optimiser for what trains.

        Raises:
            UsageError: the framework cannot express it.
        """

    @abc.abstractmethod
    def optimizer_state(self) -> dict[str, np.ndarray]:
        """Copies of everything but the weights that the coming steps depend on, to the last bit: buffers,
        step counts, the place in the schedule and what schedules changed. Contiguous arrays under names of
        the backend's own, for `load_optimizer_state`; to be asked for after a step."""

    @abc.abstractmethod
    def load_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on where `optimizer_state` was asked for, with the same `set_trainable` and
        `configure_optimizer` before.

        Raises:
            WeightsError: names the first entry that is missing or has another shape.
        """

    @abc.abstractmethod
    def reseed(self, epoch: int) -> None:
        """Seed every generator anew from the session's seed and the epoch's number.

        Called right before each epoch's iteration of the training pipeline. What chance decides in an epoch
        (the native track's order, crops, flips and dropout) then depends on nothing that came before it.
        """

    @abc.abstractmethod
    def input_pipeline(
        self, images: ImageList, transform: Transform, *, batch_size: int, training: bool
    ) -> Pipeline:
        """The framework's own way from image files to batches. Training shuffles and augments; testing keeps
        the file order. No image is dropped."""

    @abc.abstractmethod
    def to_host_batch(self, images: np.ndarray, labels: np.ndarray, kept: np.ndarray | None = None) -> Batch:
        """Wrap a batch, labels (N,) int64, in host memory. Images (N, H, W, 3): float32, normalised already,
        come out as the pipeline would deliver them; uint8 RGB stay uint8 until the device has them, and are
        normalised there as the `ModelSpec` says. Features (N, F) float32 for a network that is entered there.
        In all cases no copy that can be avoided.

        Args:
            kept: for training in the matched track where the `ModelSpec` has dropout: (N, W) uint8, 1 for
                each value to keep of the W that enter the last affine layer.
        """

    @abc.abstractmethod
    def train_step(self, batch: Batch) -> None:
        """Transfer, forward, mean loss, backward, update. May return before the device has finished."""

    @abc.abstractmethod
    def take_metrics(self) -> Metrics:
        """Loss and hits of the training steps since the last call; waits for them."""

    # Measuring

    @abc.abstractmethod
    def run_stages(self, batch: Batch, last: Stage) -> None:
        """`train_step` up to the end of a stage, and nothing of what follows it.

        `transfer`: to the device, and there to normalised inputs. `forward`: outputs and loss, in training
        mode and recorded. `backward`: gradients. `update`: weights and metrics, and with them the whole step.
        What the last stage made is kept nowhere. A stage takes the time that it adds to the ones before.
        """

    @abc.abstractmethod
    def matrix_product(self, size: int) -> Callable[[int], Any]:
        """A call that multiplies two (size, size) matrices on the device so many times, each product a factor
        of the next, and returns the last one, a device array that may not be computed yet.

        In the precision and by the library that the network's layers compute with: what it reaches is the
        peak they are measured by. One product is 2 * size**3 FLOPs.
        """

    @abc.abstractmethod
    def decode(self, path: Path) -> Any:
        """An image file's pixels as the framework's own input pipeline decodes them, and does nothing else to
        them.

        Raises:
            DataError: it cannot be read.
        """

    def stopwatch(self) -> Callable[[], float]:
        """Start a clock, once the device has finished what it was given. What is returned stops it, once the
        device has finished what it was given meanwhile, and tells the seconds between."""
        self.synchronize()
        start = perf_counter()

        def stop() -> float:
            self.synchronize()
            return perf_counter() - start

        return stop

    # Looking

    @abc.abstractmethod
    def logits(self, batch: Batch) -> Any:
        """Values before the softmax, (N, K), in inference mode; a device array that may not be computed
        yet."""

    @abc.abstractmethod
    def features(self, batch: Batch, block: str | None = None) -> Any:
        """CNN codes of a batch of images, in inference mode; a device array that may not be computed yet.

        Args:
            block: None: the (N, F) values that enter the head, flattened ones in the neutral order (C, H, W).
                A block of the architecture: its output, after activation and pooling, averaged over H and W,
                (N, C).
        """

    @abc.abstractmethod
    def block_outputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """Output of every block of `architectures.blocks_of`, in inference mode: (N, C, H, W), after the
        block's activation and pooling; (N, F) for `fc6` and `fc7`."""

    @abc.abstractmethod
    def gradients(self, batch: Batch) -> dict[str, np.ndarray]:
        """Gradient of the mean loss for every trained parameter, under neutral names, as training would see
        it (without decay). Changes no parameter; running statistics may move."""

    @abc.abstractmethod
    def moments(self) -> dict[str, np.ndarray]:
        """The optimiser's buffers as `optimizers` defines them, under `<moment> of <neutral name>`
        (`velocity of head.weight`); none before the first step."""

    @abc.abstractmethod
    def to_numpy(self, array: Any) -> np.ndarray:
        """A device array as NumPy, in the precision it was computed in; waits for it."""

    @abc.abstractmethod
    def synchronize(self) -> None:
        """Return when the device has finished everything it was given."""

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """Effective settings, read off the live objects: plain JSON values under the same keys in every
        backend."""

    def peak_device_bytes(self) -> int | None:
        """Peak memory of the accelerator in bytes; None on the CPU."""
        return None


def require_architecture(info: BackendInfo, architecture: str) -> None:
    """Raise UsageError unless the architecture is on the backend's card."""
    if architecture not in info.architectures:
        raise UsageError(
            f"{info.name} has no architecture '{architecture}'; it has: {', '.join(info.architectures)}"
        )


def tuning_of(info: BackendInfo, session: Session, tuned: Iterable[str]) -> frozenset[str]:
    """What is switched on in a session.

    Args:
        tuned: what the `tuned` variant has on the session's device.

    Raises:
        UsageError: something that the backend does not have, or bfloat16 in a variant that is not tuned.
    """
    if session.precision == "bfloat16" and session.variant != "tuned":
        raise UsageError(f"bfloat16 is for the tuned variant, not for {session.variant}")
    if session.tuning is None:
        return frozenset(tuned) if session.variant == "tuned" else frozenset()
    for name in session.tuning:
        if name not in info.tuning:
            raise UsageError(
                f"{info.name} has no tuning '{name}'; it has: {', '.join(info.tuning) or 'none'}"
            )
    return frozenset(session.tuning)


def require_device(session: Session, available: Iterable[str]) -> None:
    """Raise DeviceError unless the session's device is among the available ones (`cuda` means `cuda:0`)."""
    names = tuple(available)
    if session.device not in names and f"{session.device}:0" not in names:
        raise DeviceError(f"no device '{session.device}' here; this framework sees: {', '.join(names)}")
