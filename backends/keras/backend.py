"""The contract in Keras on TensorFlow: graph mode, `model.compile`, Keras' own training step and metrics."""

from __future__ import annotations

import contextlib
import functools
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from backends import allocator, denormals, weights
from backends.architectures import LOSSES, head_widths, is_parameter, trained_from
from backends.base import (
    Backend,
    Batch,
    ImageList,
    Metrics,
    ModelSpec,
    Pipeline,
    Session,
    Stage,
    Trainable,
    Transform,
    UsageError,
    require_device,
    tuning_of,
)
from backends.optimizers import Optimizer, schedule_factor, schedule_name
from backends.resume import epoch_seed

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # Keras reads it once, when it is first imported
if os.environ["KERAS_BACKEND"] != "tensorflow":
    raise UsageError(
        f"KERAS_BACKEND is '{os.environ['KERAS_BACKEND']}', but this backend is Keras on TensorFlow: unset it"
    )

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.config import (  # where Keras itself reads it; what is public only enables
    disable_op_determinism,
    enable_op_determinism,
    is_op_determinism_enabled,
)

from backends.keras import INFO, checkpoint, input, models
from backends.keras import optimizer as own_optimizer
from backends.keras.batch_norm import BatchNormalization


class FrameworkBackend(Backend):
    """Keras on TensorFlow behind the contract."""

    info = INFO

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        require_device(session, self.devices())
        _set_threads(session.threads)
        _set_determinism(session.variant == "reproducible")
        keras.utils.set_random_seed(session.seed)
        self._device = _device_name(session.device)
        self._tuning = tuning_of(INFO, session, _TUNED[session.device.partition(":")[0]])
        allocator.keep_freed("keep-memory" in self._tuning)
        self._mixed = session.precision == "bfloat16"
        self._dtype = "float32" if self._mixed else session.precision
        self._claim_keras()
        self._dropouts: list[Any] = []

    @staticmethod
    def devices() -> tuple[str, ...]:
        return ("cpu", *(f"cuda:{index}" for index, _ in enumerate(tf.config.list_physical_devices("GPU"))))

    # Building

    def build(self, spec: ModelSpec) -> None:
        keras.utils.clear_session()  # Keras' global state keeps what earlier networks left in it
        self._claim_keras()
        # Initialisers take their seeds from Python's generator, which anybody may have moved meanwhile.
        keras.utils.set_random_seed(self.session.seed)
        self._spec = spec
        matched = self.session.track == "matched"
        with tf.device(self._device):
            self._network = models.build(spec, matched=matched)
        self._tensors = models.neutral_tensors(self._network, spec)
        self._layouts = models.layouts(spec)
        self._trained, self._masked = self._network.trained, matched and spec.dropout > 0
        self._dropouts = [layer for layer in self._trained.layers if isinstance(layer, keras.layers.Dropout)]
        # Keras' users train what ends in a softmax or a sigmoid; its losses look through that and take the
        # logits.
        losses, sigmoid = keras.losses, spec.output == "sigmoid"
        loss = losses.BinaryCrossentropy if sigmoid else losses.SparseCategoricalCrossentropy
        self._loss = loss(from_logits=matched)
        asked = self._asked_jit_compile()
        self._jit_compile = self._trained.jit_compile if asked == "auto" else asked
        self._logits = self._inference_function(self._network.logits)
        self._features: dict[str | None, Any] = {}
        self._blocks = self._inference_function(self._network.blocks)
        self._normalize = self._graph(self._normalized, self._inputs_spec(tf.uint8))
        self.set_trainable(Trainable())

    def load_official(self, *, head: bool = False) -> str:
        top = head or self._spec.head == "fc6-fc7"  # whose two hidden layers are not new
        path, md5 = checkpoint.fetch_official(self._spec.architecture, top=top)
        checkpoint.load(self._network, self._spec, path, head=head)
        return f"{path.name} {md5}"

    def load_weights(self, tensors: Mapping[str, np.ndarray], *, head: bool) -> None:
        shapes = {name: layout.neutral for name, layout in self._layouts.items()}
        for name, value in weights.select(tensors, shapes, head=head).items():
            self._tensors[name].assign(self._layouts[name].from_neutral(value))

    def export_weights(self) -> dict[str, np.ndarray]:
        return self._to_neutral({name: tensor.numpy() for name, tensor in self._tensors.items()})

    @staticmethod
    def inspect_checkpoint(path: Path, architecture: str) -> ModelSpec:
        return checkpoint.inspect(path, architecture)

    def load_checkpoint(self, path: Path) -> None:
        checkpoint.load(self._network, self._spec, path)

    def save_checkpoint(self, path: Path) -> None:
        checkpoint.save(self._network, path)

    # Training

    def set_trainable(self, trainable: Trainable) -> None:
        trained = trained_from(self._spec.architecture, trainable.first)
        for layer in self._layers():
            layer.trainable = f"{layer.name}.".startswith(trained)
            if isinstance(layer, BatchNormalization):
                layer.stored = trainable.batch_norm == "stored"
        for name, tensor in self._tensors.items():
            # After the layers: each has just switched its own variables on, those that learn nothing too.
            tensor.trainable = name.startswith(trained) and is_parameter(name)
        self._forward = self._batch_function(self._training_loss)
        self._gradients = self._batch_function(self._forward_backward)

    def configure_optimizer(self, optimizer: Optimizer) -> None:
        self._claim_keras()
        self._schedule, self._step = optimizer.schedule, 0
        with tf.device(self._device):
            self._optimizer = own_optimizer.make(optimizer, self._trained_tensors(), self.session.track)
            self._accuracy = self._make_accuracy()
            # What a layer's `trainable` says is read here and no later.
            self._trained.compile(
                optimizer=self._optimizer,
                loss=self._loss,
                metrics=[self._accuracy],
                jit_compile=self._asked_jit_compile(),
            )
        self._train = self._batch_function(self._keras_step)

    def optimizer_state(self) -> dict[str, np.ndarray]:
        return own_optimizer.state(self._optimizer)

    def load_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        own_optimizer.load_state(self._optimizer, state)
        self._step = int(self._optimizer.iterations)

    def reseed(self, epoch: int) -> None:
        # TensorFlow's own seed stays what it is: to set it clears every compiled kernel, and what has to be
        # compiled again costs seconds of each epoch. All that draws takes a seed from these two.
        seed = epoch_seed(self.session.seed, epoch)
        random.seed(seed)
        np.random.seed(seed)
        for layer in self._dropouts:  # each holds a generator, which took its seed when the layer was made
            layer.seed_generator.state.assign(keras.random.SeedGenerator().state)

    def input_pipeline(
        self, images: ImageList, transform: Transform, *, batch_size: int, training: bool
    ) -> Pipeline:
        return input.pipeline(
            images, transform, batch_size=batch_size, training=training, session=self.session
        )

    def to_host_batch(self, images: np.ndarray, labels: np.ndarray, kept: np.ndarray | None = None) -> Batch:
        arrays = (images, labels) if kept is None else (images, labels, kept)
        with tf.device("CPU:0"):
            return tuple(map(tf.constant, arrays))

    def train_step(self, batch: Batch) -> None:
        self.run_stages(batch, "update")

    def take_metrics(self) -> Metrics:
        loss = next(metric for metric in self._trained.metrics if metric.name == "loss")
        metrics = Metrics(
            loss=float(loss.result()), correct=int(self._accuracy.total), images=int(self._accuracy.count)
        )
        self._trained.reset_metrics()
        return metrics

    # Measuring

    def run_stages(self, batch: Batch, last: Stage) -> None:
        # Graphs of their own for what is less than a step: that of the whole one has no seams.
        inputs, targets = self._inputs(batch), self._targets(batch)
        if last == "transfer":
            return
        if last == "forward":
            self._forward(inputs, *targets)
            return
        if last == "backward":
            self._gradients(inputs, *targets)
            return
        if isinstance(self._optimizer, own_optimizer.Matched):
            self._optimizer.set_factor(schedule_factor(self._schedule, self._step))
            self._step += 1
        self._train(inputs, *targets)

    def matrix_product(self, size: int) -> Callable[[int], Any]:
        with tf.device(self._device):
            # The spread of a product's values is that of its factors.
            factor = tf.random.normal((size, size)) / size**0.5
            factor = tf.cast(factor, "bfloat16" if self._mixed else self._dtype)

        def multiply(times: int) -> Any:
            product = factor
            with tf.device(self._device):
                for _ in range(times):
                    product = tf.matmul(product, factor)
                return tf.cast(product, self._dtype)

        return multiply

    def decode(self, path: Path) -> Any:
        return input.decoded(str(path))

    # Looking

    def logits(self, batch: Batch) -> Any:
        return self._logits(self._inputs(batch))

    def features(self, batch: Batch, block: str | None = None) -> Any:
        if block not in self._features:
            network = self._network.features if block is None else self._average_of(block)
            self._features[block] = self._inference_function(network)
        return self._features[block](self._inputs(batch))

    def block_outputs(self, batch: Batch) -> dict[str, np.ndarray]:
        if self._network.blocks is None:
            return {}
        outputs = {name: output.numpy() for name, output in self._blocks(self._inputs(batch)).items()}
        return {name: np.ascontiguousarray(np.moveaxis(output, -1, 1)) for name, output in outputs.items()}

    def gradients(self, batch: Batch) -> dict[str, np.ndarray]:
        gradients = self._gradients(self._inputs(batch), *self._targets(batch))
        return self._to_neutral({name: gradient.numpy() for name, gradient in gradients.items()})

    def moments(self) -> dict[str, np.ndarray]:
        return {
            f"{moment} of {name}": self._layouts[name].to_neutral(buffer)
            for moment, name, buffer in own_optimizer.moments(self._optimizer, self._trained_tensors())
        }

    def to_numpy(self, array: Any) -> np.ndarray:
        return array.numpy()

    def synchronize(self) -> None:
        tf.test.experimental.sync_devices()

    def settings(self) -> dict[str, Any]:
        norms = [layer for layer in self._layers() if isinstance(layer, BatchNormalization)]
        asked = self._asked_jit_compile()
        return {
            "threads": tf.config.threading.get_intra_op_parallelism_threads(),
            "input_workers": input.parallel_calls(self.session),
            "tuning": sorted(self._tuning),
            "compiled": f"graph, {'with' if self._jit_compile else 'without'} XLA (jit_compile={asked!r})",
            "layout": {"channels_last": "NHWC", "channels_first": "NCHW"}[keras.config.image_data_format()],
            "dtype": self._trained.weights[0].dtype,
            "computed_in": self._trained.compute_dtype,
            "tf32": None
            if self._device == "CPU:0"
            else tf.config.experimental.tensor_float_32_execution_enabled(),
            "denormals": denormals.described(self._denormal_products()),
            "determinism": is_op_determinism_enabled(),
            "batch_norm": {
                "layers": len(norms),
                "on_stored_statistics": sum(layer.on_stored_statistics for layer in norms),
                "epsilon": sorted({layer.epsilon for layer in norms}),
                "running_keeps": sorted({layer.momentum for layer in norms}),
                "running_variance": ("unbiased" if norms[0].unbiased else "biased") if norms else None,
            },
            "optimizer": {
                **own_optimizer.settings(self._optimizer),
                "schedule": schedule_name(self._schedule),
            },
            "loss": LOSSES[self._spec.output],
            "dropout": self._spec.dropout,
            "resize": "bilinear, not antialiased (tf.image.resize)"
            if self.session.track == "native"
            else "bilinear, antialiased (Pillow, the harness's)",
            "trained_parameters": sum(
                int(np.prod(tensor.shape)) for tensor in self._trained_tensors().values()
            ),
            "parameters": sum(
                int(np.prod(tensor.shape)) for name, tensor in self._tensors.items() if is_parameter(name)
            ),
        }

    def peak_device_bytes(self) -> int | None:
        if self._device == "CPU:0":
            return None
        return int(tf.config.experimental.get_memory_info(self._device)["peak"])

    # How

    def _denormal_products(self) -> np.ndarray:
        with tf.device(self._device):
            return self.to_numpy(tf.fill((denormals.COUNT,), denormals.NORMAL) * denormals.FACTOR)

    def _claim_keras(self) -> None:
        """Keras' global state as this session wants it, whatever ~/.keras/keras.json or anybody else said."""
        keras.config.set_floatx(self._dtype)
        keras.config.set_dtype_policy("mixed_bfloat16" if self._mixed else self._dtype)
        keras.config.set_image_data_format("channels_last")

    def _asked_jit_compile(self) -> Literal["auto"] | bool:
        """XLA where Keras chooses it, on a GPU; never in float64, which it compiles for most of a minute."""
        if self._dtype == "float64":
            return False
        return True if "xla" in self._tuning else "auto"

    def _layers(self) -> list[Any]:
        return [layer for layer in self._network.logits.layers if layer.weights]

    def _trained_tensors(self) -> dict[str, Any]:
        return {name: tensor for name, tensor in self._tensors.items() if tensor.trainable}

    def _to_neutral(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: self._layouts[name].to_neutral(array) for name, array in arrays.items()}

    def _make_accuracy(self) -> Any:
        if self._spec.output == "softmax":
            return keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        threshold = 0.0 if self.session.track == "matched" else 0.5  # of a logit, or a probability
        return keras.metrics.BinaryAccuracy(name="accuracy", threshold=threshold)

    def _keras_step(self, inputs: Any, labels: Any, *kept: Any) -> None:
        inputs = (inputs, *kept) if kept else inputs
        self._trained.train_step((inputs, labels))  # what it returns lies in the metrics' variables too

    def _training_loss(self, inputs: Any, labels: Any, *kept: Any) -> Any:
        return self._loss(labels, self._trained((inputs, *kept) if kept else inputs, training=True))

    def _forward_backward(self, inputs: Any, labels: Any, *kept: Any) -> dict[str, Any]:
        trained = self._trained_tensors()
        with tf.GradientTape() as tape:
            loss = self._training_loss(inputs, labels, *kept)
        return dict(zip(trained, tape.gradient(loss, list(trained.values())), strict=True))

    def _inputs(self, batch: Batch) -> Any:
        """Images or features as the network takes them. uint8 ones are normalised by a small graph of their
        own, so that the large ones, slow to trace, are traced once for both kinds."""
        inputs = batch[0]
        if inputs.dtype == tf.uint8:
            return self._normalize(inputs)
        return tf.cast(inputs, self._dtype)  # itself, where it is that already

    def _targets(self, batch: Batch) -> Batch:
        """Labels, and what to keep where masks say it."""
        return batch[1:3] if self._masked else batch[1:2]

    def _normalized(self, images: Any) -> Any:
        return input.normalize(images, self._spec.normalization, self._dtype)

    def _average_of(self, block: str) -> Callable[..., Any]:
        def average(images: Any, *, training: bool) -> Any:
            output = self._network.blocks(images, training=training)[block]
            return tf.reduce_mean(output, axis=(1, 2)) if output.shape.rank == 4 else output

        return average

    def _inference_function(self, network: Callable[..., Any]) -> Any:
        inputs = self._inputs_spec(self._dtype)
        return self._graph(lambda inputs: self._whole(network(inputs, training=False)), inputs)

    def _whole(self, outputs: Any) -> Any:
        """Themselves, but in the precision of the parameters."""
        return tf.nest.map_structure(lambda output: tf.cast(output, self._dtype), outputs)

    def _batch_function(self, function: Callable[..., Any]) -> Any:
        inputs, labels = self._inputs_spec(self._dtype), tf.TensorSpec((None,), tf.int64)
        if not self._masked:
            return self._graph(function, inputs, labels)
        kept = tf.TensorSpec((None, head_widths(self._spec)[-1]), tf.uint8)
        return self._graph(function, inputs, labels, kept)

    def _inputs_spec(self, dtype: Any) -> Any:
        if self._spec.entry == "features":
            return tf.TensorSpec((None, head_widths(self._spec)[0]), dtype)
        return tf.TensorSpec((None, self._spec.image_size, self._spec.image_size, 3), dtype)

    def _graph(self, function: Callable[..., Any], *signature: Any) -> Any:
        """One graph for batches of every size, traced at its first call; XLA where Keras would choose it."""

        # TensorFlow tells functions apart by their code, and would warn of one that is traced again and
        # again: behind a partial, which has none, each graph is a function of its own.
        @functools.wraps(functools.partial(function))
        def on_device(*arguments: Any) -> Any:
            with tf.device(self._device):
                return function(*arguments)

        return tf.function(
            on_device, input_signature=signature, autograph=False, jit_compile=self._jit_compile
        )


_TUNED: Mapping[str, tuple[str, ...]] = {
    # XLA was tried on CPUs, and is slower than the graph; see `benchmarks/test_tuning.py`.
    "cpu": ("keep-memory",),
    "cuda": ("xla",),
}
"""What the tuned variant has, by kind of device."""


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


def _set_determinism(wanted: bool) -> None:
    (enable_op_determinism if wanted else disable_op_determinism)()
