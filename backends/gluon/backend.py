"""The contract in MXNet Gluon: hybridised networks, `gluon.Trainer`."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

from backends import allocator, denormals, weights
from backends.architectures import LOSSES, is_parameter, trained_from
from backends.base import (
    NORMALIZATIONS,
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
    require_device,
    tuning_of,
)
from backends.gluon import INFO, checkpoint, input, models, precision, threads
from backends.gluon import optimizer as own_optimizer
from backends.gluon.optimizer import as_kernels_take_it
from backends.optimizers import Optimizer, schedule_name
from backends.resume import epoch_seed


class FrameworkBackend(Backend):
    """MXNet Gluon behind the contract."""

    info = INFO

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        require_device(session, self.devices())
        _seed(session.seed)
        os.environ["MXNET_ENFORCE_DETERMINISM"] = "1" if session.variant == "reproducible" else "0"
        threads.use(session.threads)
        self._tuning = tuning_of(INFO, session, _TUNED[session.device.partition(":")[0]])
        allocator.keep_freed("keep-memory" in self._tuning)
        self._mixed = session.precision == "bfloat16"
        if self._mixed and session.device == "cpu":
            precision.require()
        precision.use_mixed(self._mixed)
        self._dtype = "float32" if self._mixed else session.precision
        kind, _, index = session.device.partition(":")
        self._device = mx.gpu(int(index or 0)) if kind == "cuda" else mx.cpu()
        self._on_gpu = kind == "cuda"
        # MXNet's own CPU kernels keep running variances of the biased kind, cuDNN unbiased ones.
        self._unbiases = session.track == "matched" and not self._on_gpu
        self._loss_sum = mx.nd.zeros(1, ctx=self._device, dtype=self._dtype)
        self._correct = mx.nd.zeros(1, ctx=self._device, dtype="int64")
        self._images = 0

    @staticmethod
    def devices() -> tuple[str, ...]:
        return ("cpu", *(f"cuda:{index}" for index in range(mx.context.num_gpus())))

    # Building

    def build(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._network = models.build(spec, self._device, dropout=self.session.track == "native")
        if self._dtype != "float32":
            self._network.cast(self._dtype)
        self._tensors = models.neutral_tensors(self._network, spec)
        self._up_to: dict[str, gluon.HybridBlock] = {}
        self._masked = self.session.track == "matched" and spec.dropout > 0
        self._loss = _LOSSES[spec.output]()
        self._areas = models.batch_norm_areas(self._network, spec) if self._unbiases else {}
        self._scaling = NORMALIZATIONS[spec.normalization]
        self._mean, self._deviation = (
            mx.nd.array([[[values]]], ctx=self._device, dtype=self._dtype)
            for values in (self._scaling.mean, self._scaling.deviation)
        )
        self.set_trainable(Trainable())

    def load_official(self, *, head: bool = False) -> str:
        file = checkpoint.fetch_official(self._spec.architecture)
        checkpoint.load(self._network, self._spec, file, head=head)
        return file.name

    def load_weights(self, tensors: Mapping[str, np.ndarray], *, head: bool) -> None:
        shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        for name, value in weights.select(tensors, shapes, head=head).items():
            models.assign(self._tensors[name], value)

    def export_weights(self) -> dict[str, np.ndarray]:
        return {name: self.to_numpy(tensor.data()) for name, tensor in self._tensors.items()}

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
        for name, tensor in self._tensors.items():
            if is_parameter(name):
                tensor.grad_req = "write" if name.startswith(trained) else "null"
        stored = trainable.batch_norm == "stored"
        for norm in models.batch_norms(self._network):
            norm._kwargs["use_global_stats"] = stored  # takes effect when `split` hybridises anew
        self._frozen, self._trained = models.split(
            self._network,
            self._spec,
            trained,
            masked=self._masked,
            static_memory="static-memory" in self._tuning,
        )
        moving = [] if stored else models.batch_norms(self._trained)
        self._corrected = [(norm, self._areas[norm]) for norm in moving if norm in self._areas]
        leading = models.leading_batch_norm(self._network)
        self._leading = leading if leading in moving and not self._on_gpu else None

    def configure_optimizer(self, optimizer: Optimizer) -> None:
        self._learning = {name: t for name, t in self._tensors.items() if t.grad_req != "null"}
        self._trainer = own_optimizer.make(optimizer, self._learning, self.session.track)
        if "separate-updates" in self._tuning:
            # MXNet updates four tensors at a time; its CPU kernel for that takes half as long again.
            self._trainer.optimizer.aggregate_num = 1
        self._schedule = optimizer.schedule
        self._scheduler = own_optimizer.Scheduler(self._trainer, optimizer.schedule)

    def optimizer_state(self) -> dict[str, np.ndarray]:
        return dict(own_optimizer.state(self._trainer, self._scheduler, self._learning))

    def load_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        own_optimizer.load_state(self._trainer, self._scheduler, self._learning, state)

    def reseed(self, epoch: int) -> None:
        _seed(epoch_seed(self.session.seed, epoch))

    def input_pipeline(
        self, images: ImageList, transform: Transform, *, batch_size: int, training: bool
    ) -> Pipeline:
        return input.pipeline(
            images, transform, batch_size=batch_size, training=training, session=self.session
        )

    def to_host_batch(self, images: np.ndarray, labels: np.ndarray, kept: np.ndarray | None = None) -> Batch:
        if images.ndim == 4 and images.dtype != np.uint8:
            images = images.transpose(0, 3, 1, 2)
        arrays = (images, labels) if kept is None else (images, labels, kept)
        # One copy, into MXNet's memory: its `from_numpy` would make the caller's array read-only.
        return tuple(mx.nd.array(array, dtype=array.dtype) for array in arrays)

    def train_step(self, batch: Batch) -> None:
        # MXNet's queue has no end: nothing else in an epoch waits, so that the loop would be done with all of
        # its batches, and hold them, minutes before the device is. This waits for the forward pass of the
        # step before; its backward pass and update are still to come.
        self._loss_sum.wait_to_read()
        self.run_stages(batch, "update")

    def take_metrics(self) -> Metrics:
        metrics = Metrics(
            loss=float(self._loss_sum.asscalar()) / max(self._images, 1),
            correct=int(self._correct.asscalar()),
            images=self._images,
        )
        self._loss_sum[:] = 0
        self._correct[:] = 0
        self._images = 0
        return metrics

    # Measuring

    def run_stages(self, batch: Batch, last: Stage) -> None:
        inputs, labels, masks = self._inputs(batch[0]), self._to_device(batch[1]), self._masks(batch)
        if last == "transfer":
            return
        outputs, loss = self._forward_loss(inputs, labels, *masks)
        if last == "forward":
            return
        self._backward(loss, inputs)
        if last == "backward":
            return
        if self.session.variant == "reproducible":
            # Weights that inference left in oneDNN's layout are brought back by an operation the forward asks
            # for. An update that overtakes it is written to another array than the weight, and MXNet's
            # Nesterov then reads the old weight where it otherwise reads the new one.
            mx.nd.waitall()
        self._scheduler.step()
        self._trainer.step(1)  # of 1, since the loss is the mean already
        self._loss_sum += loss * len(labels)
        self._correct += (self._answers(outputs) == labels).sum()
        self._images += len(labels)

    def matrix_product(self, size: int) -> Callable[[int], mx.nd.NDArray]:
        # The spread of a product's values is that of its factors.
        factor = mx.nd.random.normal(shape=(size, size), ctx=self._device).astype(self._dtype) / size**0.5
        factor = precision.low(factor) if self._mixed else factor

        def multiply(times: int) -> mx.nd.NDArray:
            product = factor
            for _ in range(times):  # as an affine layer: oneDNN computes those, and a BLAS plain products
                product = mx.nd.FullyConnected(product, factor, no_bias=True, num_hidden=size)
            return self._whole(product)

        return multiply

    def decode(self, path: Path) -> Any:
        return input.decoded(path)

    # Looking

    def logits(self, batch: Batch) -> mx.nd.NDArray:
        outputs = self._whole(self._network(self._inputs(batch[0])))
        if self._spec.output == "sigmoid":
            return mx.nd.concat(mx.nd.zeros_like(outputs), outputs, dim=1)
        return outputs

    def features(self, batch: Batch, block: str | None = None) -> mx.nd.NDArray:
        if block is None:
            return self._whole(self._network.features(self._inputs(batch[0])))
        if block not in self._up_to:
            self._up_to[block] = models.up_to(self._network, self._spec, block)
        return self._whole(self._up_to[block](self._inputs(batch[0])))

    def block_outputs(self, batch: Batch) -> dict[str, np.ndarray]:
        outputs, values = {}, self._inputs(batch[0])
        for block, layers in models.block_layers(self._network, self._spec).items():
            for layer in layers:
                values = layer(values)
            outputs[block] = self.to_numpy(self._whole(values))
        return outputs

    def gradients(self, batch: Batch) -> dict[str, np.ndarray]:
        inputs, labels = self._inputs(batch[0]), self._to_device(batch[1])
        self._backward(self._forward_loss(inputs, labels, *self._masks(batch))[1], inputs)
        return {
            name: self.to_numpy(tensor.grad())
            for name, tensor in self._tensors.items()
            if tensor.grad_req != "null"
        }

    def moments(self) -> dict[str, np.ndarray]:
        found = own_optimizer.moments(self._trainer, self._learning)
        return {name: self.to_numpy(buffer) for name, buffer in found}

    def to_numpy(self, array: Any) -> np.ndarray:
        return array.asnumpy()

    def synchronize(self) -> None:
        mx.nd.waitall()

    def settings(self) -> dict[str, Any]:
        norms = models.batch_norms(self._network)
        frozen = models.batch_norms(self._frozen) if self._frozen is not None else []
        trained = [tensor for tensor in self._tensors.values() if tensor.grad_req != "null"]
        unbiased = self._on_gpu or self._unbiases
        return {
            "threads": threads.in_use(),
            "input_workers": self.session.input_workers,
            "tuning": sorted(self._tuning),
            "compiled": _hybridized(self._trained),
            "layout": "NCHW",
            "dtype": np.dtype(trained[0].dtype).name,
            "computed_in": "bfloat16" if precision.in_use() else np.dtype(trained[0].dtype).name,
            # cuDNN lets float32 convolutions use TF32 unless this variable forbids it; MXNet has no switch.
            "tf32": os.environ.get("NVIDIA_TF32_OVERRIDE") != "0" if self._on_gpu else None,
            "denormals": denormals.described(self._denormal_products()),
            "determinism": os.environ.get("MXNET_ENFORCE_DETERMINISM", "0") == "1",
            "batch_norm": {
                "layers": len(norms),
                "on_stored_statistics": sum(n in frozen or n._kwargs["use_global_stats"] for n in norms),
                "epsilon": sorted({norm._kwargs["eps"] for norm in norms}),
                "running_keeps": sorted({norm._kwargs["momentum"] for norm in norms}),
                "running_variance": ("unbiased" if unbiased else "biased") if norms else None,
            },
            "optimizer": {
                **own_optimizer.settings(self._trainer, self._scheduler),
                "schedule": schedule_name(self._schedule),
            },
            "loss": LOSSES[self._spec.output],
            "dropout": self._spec.dropout,
            "resize": "bilinear, not antialiased (OpenCV)"
            if self.session.track == "native"
            else "bilinear, antialiased (Pillow, the harness's)",
            "trained_parameters": sum(tensor.data().size for tensor in trained),
            "parameters": sum(
                tensor.data().size for name, tensor in self._tensors.items() if is_parameter(name)
            ),
        }

    def peak_device_bytes(self) -> int | None:
        if not self._on_gpu:
            return None
        free, total = mx.context.gpu_memory_info(self._device.device_id)
        return total - free  # MXNet's pool gives nothing back: what is taken now is the peak

    # How

    def _denormal_products(self) -> np.ndarray:
        normal = mx.nd.full((denormals.COUNT,), denormals.NORMAL, ctx=self._device)
        return self.to_numpy(normal * denormals.FACTOR)

    def _to_device(self, array: mx.nd.NDArray) -> mx.nd.NDArray:
        return array.as_in_context(self._device)

    def _inputs(self, images: mx.nd.NDArray) -> mx.nd.NDArray:
        """Images on the device, normalised, (N, 3, H, W), in the session's precision; or features (N, F)."""
        images = self._to_device(images)
        if images.dtype != np.uint8:
            return images.astype(self._dtype, copy=False)
        inputs = images.astype(self._dtype)  # (N, H, W, 3): the last axis is the cheapest to broadcast
        if self._scaling.channels == "BGR":
            inputs = inputs.flip(axis=3)
        inputs /= self._scaling.divisor
        inputs -= self._mean
        inputs /= self._deviation
        return inputs.transpose((0, 3, 1, 2))

    def _whole(self, values: mx.nd.NDArray) -> mx.nd.NDArray:
        """Itself, but in the precision of the parameters."""
        return precision.whole(values) if self._mixed else values

    def _masks(self, batch: Batch) -> list[mx.nd.NDArray]:
        """What multiplies the values that enter the last layer, (N, W), where the batch says it."""
        if not self._masked:
            return []
        return [self._to_device(batch[2]).astype(self._dtype) / (1 - self._spec.dropout)]

    def _forward_loss(
        self, inputs: mx.nd.NDArray, labels: mx.nd.NDArray, *masks: mx.nd.NDArray
    ) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
        """The last layer's outputs and the mean loss (1,), recorded from the first trained layer on."""
        # What is frozen runs unrecorded, in inference mode: under `record(train_mode=False)` a plain backward
        # would take the gradients of another function than the one the forward computed.
        values = inputs if self._frozen is None else self._frozen(inputs)
        if self._spec.output == "sigmoid":
            labels = labels.astype(self._dtype)
        with autograd.record():
            outputs = self._whole(self._trained(values, *masks))
            loss = self._loss(outputs, labels).mean()
        return outputs, loss

    def _answers(self, outputs: mx.nd.NDArray) -> mx.nd.NDArray:
        if self._spec.output == "sigmoid":
            return (outputs[:, 0] > 0).astype("int64")
        return outputs.argmax(axis=1).astype("int64")

    def _backward(self, loss: mx.nd.NDArray, images: mx.nd.NDArray) -> None:
        """Gradients of the loss; on the CPU it is here that running statistics move."""
        with self._matched_statistics(len(images)):
            if self._leading is not None:
                self._move_statistics(self._leading, images)
            loss.backward()

    @contextlib.contextmanager
    def _matched_statistics(self, images: int) -> Iterator[None]:
        """Make what moves running statistics move them as the matched track has it.

        MXNet does `r = k * r + (1 - k) * b` with the biased variance of the batch, and with k rounded to
        float32. With `r` multiplied by one factor before and by another after that, the result has the exact
        k and the unbiased variance; of one value there is none, and the biased one stays. In float32 the
        mean's factors are nothing but the rounding of k, and are left out.
        """
        moving = []
        for norm, area in self._corrected:
            keeps, rounded = norm._kwargs["momentum"], as_kernels_take_it(norm._kwargs["momentum"])
            n = images * area
            of_batch = (1 - keeps) / (1 - rounded)
            for running, after in (
                (norm.running_mean, of_batch),
                (norm.running_var, of_batch * n / max(n - 1, 1)),
            ):
                before = keeps / (rounded * after)
                if self._dtype == "float64" or abs(after - 1) > NEARLY_ONE:
                    moving.append((running.data(), before, after))
        for values, before, _ in moving:
            values *= before
        yield
        for values, _, after in moving:
            values *= after

    def _move_statistics(self, norm: gluon.nn.BatchNorm, images: mx.nd.NDArray) -> None:
        """Update the running statistics of the batch norm on the images. MXNet's CPU kernels do that in the
        backward pass, and nothing asks for this layer's; cuDNN does it in the forward pass."""
        mean, variance = norm.running_mean.data(), norm.running_var.data()
        with autograd.train_mode():
            _, mean_of_batch, inverse_deviation = mx.nd.BatchNorm(
                images,
                mx.nd.ones_like(mean),
                mx.nd.zeros_like(mean),
                mean,
                variance,
                output_mean_var=True,
                **norm._kwargs,
            )
        keeps = as_kernels_take_it(norm._kwargs["momentum"])
        for running, of_batch in (
            (mean, mean_of_batch),
            (variance, inverse_deviation**-2 - norm._kwargs["eps"]),
        ):
            running *= keeps
            running += (1 - keeps) * of_batch


NEARLY_ONE = 1e-6
"""How far factors may be from 1 that correct nothing but k: less than a float32 mean of a batch is exact."""

_TUNED: Mapping[str, tuple[str, ...]] = {
    "cpu": ("keep-memory", "separate-updates", "static-memory"),
    "cuda": ("static-memory",),
}
"""What the tuned variant has, by kind of device."""


def _hybridized(block: gluon.HybridBlock) -> str:
    if not block._active:
        return "no (imperative)"
    return f"hybridize({', '.join(f'{flag}={value}' for flag, value in block._flags)})"


def _seed(seed: int) -> None:
    mx.random.seed(seed)
    random.seed(seed)  # Gluon's random crops
    np.random.seed(seed)  # its order of images


_LOSSES = {"softmax": gluon.loss.SoftmaxCrossEntropyLoss, "sigmoid": gluon.loss.SigmoidBCELoss}
"""By the network's output; both take what enters the softmax or the sigmoid."""
