"""The contract in Keras on TensorFlow: graph mode, `model.compile`, Keras' own training step and metrics."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from backends import weights
from backends.base import (
    Backend,
    Batch,
    ImageList,
    InverseTime,
    Metrics,
    ModelSpec,
    Optimizer,
    Pipeline,
    Session,
    Trainable,
    Transform,
    UsageError,
    WeightsError,
    one_line,
    require_device,
)

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # Keras reads it once, when it is first imported
if os.environ["KERAS_BACKEND"] != "tensorflow":
    raise UsageError(
        f"KERAS_BACKEND is '{os.environ['KERAS_BACKEND']}', but this backend is Keras on TensorFlow: unset it"
    )

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled  # where Keras itself reads it

from backends.keras import INFO, input, models

DOWNLOAD_SILENCE = 10.0
"""Seconds without a byte after which a download has failed; Keras itself would wait for ever."""


class FrameworkBackend(Backend):
    """Keras on TensorFlow behind the contract."""

    info = INFO

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        require_device(session, self.devices())
        _set_threads(session.threads)
        keras.utils.set_random_seed(session.seed)
        keras.config.set_floatx(session.precision)  # these two: ~/.keras/keras.json may say otherwise
        keras.config.set_image_data_format("channels_last")
        self._device = _device_name(session.device)

    @staticmethod
    def devices() -> tuple[str, ...]:
        return ("cpu", *(f"cuda:{index}" for index, _ in enumerate(tf.config.list_physical_devices("GPU"))))

    # Building

    def architectures(self) -> tuple[str, ...]:
        return tuple(models.ARCHITECTURES)

    def build(self, spec: ModelSpec) -> None:
        keras.utils.clear_session()  # Keras' global state keeps what earlier networks left in it
        # Initialisers take their seeds from Python's generator, which anybody may have moved meanwhile.
        keras.utils.set_random_seed(self.session.seed)
        self._spec = spec
        with tf.device(self._device):
            self._network = models.build(spec)
        self._tensors = models.neutral_tensors(self._network)
        self._loss = keras.losses.SparseCategoricalCrossentropy()
        self._logits = self._inference_function(models.logits_of(self._network))
        self._features = self._inference_function(models.features_of(self._network, spec.architecture))
        self.set_trainable(Trainable())

    def load_official(self) -> str:
        published = models.OFFICIAL[self._spec.architecture]
        path = _official_file(self._spec.architecture, published)
        tensors = models.neutral_tensors(published.application(include_top=False, weights=str(path)))
        self.load_weights(
            {name: models.to_neutral(tensor.numpy()) for name, tensor in tensors.items()}, head=False
        )
        return f"{path.name} {published.md5}"

    def load_weights(self, tensors: Mapping[str, np.ndarray], *, head: bool) -> None:
        shapes = {name: models.neutral_shape(tensor) for name, tensor in self._tensors.items()}
        for name, value in weights.select(tensors, shapes, head=head).items():
            self._tensors[name].assign(models.from_neutral(value))

    def export_weights(self) -> dict[str, np.ndarray]:
        return {name: models.to_neutral(tensor.numpy()) for name, tensor in self._tensors.items()}

    # Training

    def set_trainable(self, trainable: Trainable) -> None:
        trained = weights.trained_from(self._spec.architecture, trainable.first)
        for layer in self._network.layers:
            if layer.variables:
                layer.trainable = f"{layer.name}.".startswith(trained)
        self._gradients = self._batch_function(self._forward_backward)

    def configure_optimizer(self, optimizer: Optimizer) -> None:
        rate: Any = float(optimizer.learning_rate)
        if isinstance(optimizer.schedule, InverseTime):
            rate = keras.optimizers.schedules.InverseTimeDecay(
                rate, decay_steps=1, decay_rate=optimizer.schedule.decay
            )
        # Keras keeps the rate inside the velocity (v = m*v - lr*g, w = w + v). At a constant rate that is the
        # contract's step; under a schedule with momentum it is not, and that difference is Keras' own.
        arguments = {
            "learning_rate": rate,
            "momentum": float(optimizer.momentum),
            "nesterov": optimizer.nesterov,
        }
        with tf.device(self._device):
            if optimizer.head_multiplier == 1 and optimizer.weight_decay == 0:
                self._optimizer = keras.optimizers.SGD(**arguments)
            else:
                self._optimizer = GroupedSGD(
                    head_multiplier=optimizer.head_multiplier,
                    coupled_decay=optimizer.weight_decay,
                    **arguments,
                )
            self._optimizer.build(self._network.trainable_variables)
            self._accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
            # What a layer's `trainable` says is read here and no later.
            self._network.compile(
                optimizer=self._optimizer, loss=self._loss, metrics=[self._accuracy], jit_compile="auto"
            )
        self._train = self._batch_function(self._keras_step)

    def input_pipeline(
        self, images: ImageList, transform: Transform, *, batch_size: int, training: bool
    ) -> Pipeline:
        return input.pipeline(
            images, transform, batch_size=batch_size, training=training, session=self.session
        )

    def to_host_batch(self, images: np.ndarray, labels: np.ndarray) -> Batch:
        with tf.device("CPU:0"):
            return tf.constant(images), tf.constant(labels)

    def train_step(self, batch: Batch) -> None:
        self._train(*batch)

    def take_metrics(self) -> Metrics:
        loss = next(metric for metric in self._network.metrics if metric.name == "loss")
        metrics = Metrics(
            loss=float(loss.result()), correct=int(self._accuracy.total), images=int(self._accuracy.count)
        )
        self._network.reset_metrics()
        return metrics

    # Looking

    def logits(self, batch: Batch) -> Any:
        return self._logits(batch[0])

    def features(self, batch: Batch) -> Any:
        return self._features(batch[0])

    def gradients(self, batch: Batch) -> dict[str, np.ndarray]:
        return {
            name: models.to_neutral(gradient.numpy()) for name, gradient in self._gradients(*batch).items()
        }

    def to_numpy(self, array: Any) -> np.ndarray:
        return array.numpy().astype(np.float32, copy=False)

    def synchronize(self) -> None:
        tf.test.experimental.sync_devices()

    def settings(self) -> dict[str, Any]:
        network, optimizer = self._network, self._optimizer
        norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
        grouped = isinstance(optimizer, GroupedSGD)
        schedule = optimizer.get_config()["learning_rate"]  # a number, or a schedule as a dictionary
        return {
            "threads": tf.config.threading.get_intra_op_parallelism_threads(),
            "input_workers": input.parallel_calls(self.session),
            "compiled": f"graph, {'with' if network.jit_compile else 'without'} XLA (jit_compile='auto')",
            "layout": {"channels_last": "NHWC", "channels_first": "NCHW"}[keras.config.image_data_format()],
            "dtype": network.variables[0].dtype,
            "tf32": None
            if self._device == "CPU:0"
            else tf.config.experimental.tensor_float_32_execution_enabled(),
            "determinism": is_op_determinism_enabled(),
            "batch_norm": {
                "layers": len(norms),
                "on_stored_statistics": sum(not layer.trainable for layer in norms),
                "epsilon": sorted({layer.epsilon for layer in norms}),
                "running_keeps": sorted({layer.momentum for layer in norms}),
                "running_variance": "biased" if norms else None,
            },
            "optimizer": {
                "class": f"keras.optimizers.SGD{', by group' if grouped else ''}",
                "learning_rates": _initial_rates(optimizer),
                "momentum": optimizer.momentum,
                "nesterov": optimizer.nesterov,
                "weight_decay": optimizer.coupled_decay if grouped else 0.0,
                "decay_form": "coupled",
                "schedule": schedule["class_name"] if isinstance(schedule, dict) else "constant",
            },
            "loss": "mean cross-entropy on logits",
            "resize": "bilinear, not antialiased (tf.image.resize)",
            "trained_parameters": sum(int(np.prod(v.shape)) for v in network.trainable_variables),
            "parameters": network.count_params(),
        }

    def peak_device_bytes(self) -> int | None:
        if self._device == "CPU:0":
            return None
        return int(tf.config.experimental.get_memory_info(self._device)["peak"])

    # How

    def _keras_step(self, images: Any, labels: Any) -> None:
        self._network.train_step((images, labels))  # what it returns lies in the metrics' variables too

    def _forward_backward(self, images: Any, labels: Any) -> dict[str, Any]:
        trained = {name: tensor for name, tensor in self._tensors.items() if tensor.trainable}
        with tf.GradientTape() as tape:
            loss = self._loss(labels, self._network(images, training=True))
        return dict(zip(trained, tape.gradient(loss, list(trained.values())), strict=True))

    def _inference_function(self, network: Any) -> Any:
        return self._graph(lambda images: network(images, training=False), self._images_spec())

    def _batch_function(self, function: Callable[[Any, Any], Any]) -> Any:
        return self._graph(function, self._images_spec(), tf.TensorSpec((None,), tf.int64))

    def _images_spec(self) -> Any:
        return tf.TensorSpec((None, self._spec.image_size, self._spec.image_size, 3), tf.float32)

    def _graph(self, function: Callable[..., Any], *signature: Any) -> Any:
        """One graph for batches of every size, traced at its first call; XLA where Keras would choose it."""

        def on_device(*arguments: Any) -> Any:
            with tf.device(self._device):
                return function(*arguments)

        return tf.function(
            on_device, input_signature=signature, autograph=False, jit_compile=self._network.jit_compile
        )


class GroupedSGD(keras.optimizers.SGD):
    """Keras' SGD with a rate of its own for the head, and with weight decay coupled to the gradient.

    Keras' own `weight_decay` is decoupled: it shrinks the weights beside the step, unseen by the momentum.
    """

    def __init__(self, *, head_multiplier: float, coupled_decay: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.head_multiplier = head_multiplier
        self.coupled_decay = coupled_decay

    def build(self, variables: Any) -> None:
        """Make the velocities, and note each variable's multiple of the learning rate."""
        super().build(variables)
        self.multipliers = tuple(
            self.head_multiplier if weights.is_head(variable.path.replace("/", ".")) else 1.0
            for variable in variables
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's step; it comes as a bare tf.Variable without a path: its index tells which it is."""
        if self.coupled_decay:
            gradient = gradient + self.coupled_decay * variable
        multiplier = self.multipliers[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * multiplier)


def _initial_rates(optimizer: Any) -> list[float]:
    rate = optimizer.get_config()["learning_rate"]
    if isinstance(rate, dict):
        rate = rate["config"]["initial_learning_rate"]
    rate = float(str(np.float32(rate)))  # Keras holds it in float32: the shortest number that means the same
    return sorted({rate * multiplier for multiplier in getattr(optimizer, "multipliers", (1.0,))})


def _device_name(device: str) -> str:
    if device == "cpu":
        return "CPU:0"
    return f"GPU:{device.partition(':')[2] or 0}"


def _set_threads(threads: int) -> None:
    # TensorFlow makes its thread pools once, at its first operation, and refuses another number afterwards;
    # `settings()` reports the number in force, whatever was asked for.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


# --- The official checkpoint ----------------------------------------------------------------------


def _official_file(architecture: str, published: models.Published) -> Path:
    """The checkpoint in Keras' cache, fetched into it first if it is not there.

    Raises:
        WeightsError: it cannot be fetched, or its hash is wrong.
    """
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
    path = folder / published.url.rsplit("/", 1)[1]
    way_out = f"put the file into {folder}, or choose --weights source or --weights PATH"
    if not path.exists():
        try:
            # Keras downloads in place and leaves there what it could not verify: let it do so elsewhere.
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as partial, _download_manners():
                fetched = keras.utils.get_file(
                    path.name, published.url, cache_dir=partial, cache_subdir="", file_hash=published.md5
                )
                Path(fetched).replace(path)
        except Exception as error:  # `get_file` raises nothing more particular
            raise WeightsError(
                f"keras {architecture}: {published.url} could not be fetched and verified"
                f" ({one_line(error)}); {way_out}"
            ) from error
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if found != published.md5:
        raise WeightsError(
            f"keras {architecture}: {path} has the MD5 {found} instead of {published.md5};"
            f" remove it, then {way_out}"
        )
    return path


@contextlib.contextmanager
def _download_manners() -> Iterator[None]:
    """No progress bar and no endless wait: Keras' loader takes no argument for either."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_SILENCE)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)
