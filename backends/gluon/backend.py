"""The contract in MXNet Gluon: hybridised networks, `gluon.Trainer`."""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import Callable, Mapping
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.base import _LIB, check_call

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
    require_device,
)
from backends.gluon import INFO, input, models


class FrameworkBackend(Backend):
    """MXNet Gluon behind the contract."""

    info = INFO

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        require_device(session, self.devices())
        mx.random.seed(session.seed)
        random.seed(session.seed)  # Gluon's random crops
        np.random.seed(session.seed)  # its order of images
        _set_threads(session.threads)
        kind, _, index = session.device.partition(":")
        self._device = mx.gpu(int(index or 0)) if kind == "cuda" else mx.cpu()
        self._loss = gluon.loss.SoftmaxCrossEntropyLoss()
        self._loss_sum = mx.nd.zeros(1, ctx=self._device)
        self._correct = mx.nd.zeros(1, ctx=self._device)
        self._images = 0

    @staticmethod
    def devices() -> tuple[str, ...]:
        return ("cpu", *(f"cuda:{index}" for index in range(mx.context.num_gpus())))

    # Building

    def architectures(self) -> tuple[str, ...]:
        return tuple(models.ARCHITECTURES)

    def build(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._network = models.build(spec, self._device)
        self._tensors = models.neutral_tensors(self._network, spec.architecture)
        self._learnable = [name for name, tensor in self._tensors.items() if tensor.grad_req != "null"]
        self._overwritten = {
            name: self.to_numpy(self._tensors[name].data())
            for name in (models.LEADING_SCALE,)
            if name in self._tensors
        }
        self.set_trainable(Trainable())

    def load_official(self) -> str:
        file = models.fetch_official(self._spec.architecture)
        pretrained = models.ARCHITECTURES[self._spec.architecture](
            ModelSpec(architecture=self._spec.architecture, classes=1000, image_size=224)
        )
        pretrained.load_parameters(str(file), ctx=mx.cpu())
        tensors = models.neutral_tensors(pretrained, self._spec.architecture)
        self.load_weights(
            {name: self.to_numpy(tensor.data()) for name, tensor in tensors.items()}, head=False
        )
        return file.name

    def load_weights(self, tensors: Mapping[str, np.ndarray], *, head: bool) -> None:
        shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        for name, value in weights.select(tensors, shapes, head=head).items():
            self._tensors[name].set_data(mx.nd.array(value))
            if name in self._overwritten:
                self._overwritten[name] = value.copy()

    def export_weights(self) -> dict[str, np.ndarray]:
        tensors = {name: self.to_numpy(tensor.data()) for name, tensor in self._tensors.items()}
        return tensors | {name: value.copy() for name, value in self._overwritten.items()}

    # Training

    def set_trainable(self, trainable: Trainable) -> None:
        trained = weights.trained_from(self._spec.architecture, trainable.first)
        for name in self._learnable:
            self._tensors[name].grad_req = "write" if name.startswith(trained) else "null"
        stored = trainable.batch_norm == "stored"
        for norm in models.batch_norms(self._network):
            norm._kwargs["use_global_stats"] = stored  # takes effect when `split` hybridises anew
        self._frozen, self._trained = models.split(self._network, self._spec.architecture, trained)
        self._leading = None
        if self._frozen is None and trainable.batch_norm == "batch" and self._device.device_type == "cpu":
            self._leading = models.leading_batch_norm(self._network, self._spec.architecture)

    def configure_optimizer(self, optimizer: Optimizer) -> None:
        if optimizer.nesterov:
            raise UsageError(
                "gluon has no Nesterov momentum as torch defines it (its 'nag' is another); leave it out"
            )
        for name, tensor in self._tensors.items():
            tensor.lr_mult = optimizer.head_multiplier if weights.is_head(name) else 1.0
        self._trainer = gluon.Trainer(
            [tensor for tensor in self._tensors.values() if tensor.grad_req != "null"],
            "sgd",
            {
                "learning_rate": optimizer.learning_rate,
                "momentum": optimizer.momentum,
                "wd": optimizer.weight_decay,
            },
        )
        self._initial_rate, self._momentum = self._trainer.learning_rate, self._trainer.optimizer.momentum
        self._schedule = optimizer.schedule if isinstance(optimizer.schedule, InverseTime) else None
        self._steps = 0

    def input_pipeline(
        self, images: ImageList, transform: Transform, *, batch_size: int, training: bool
    ) -> Pipeline:
        return input.pipeline(
            images, transform, batch_size=batch_size, training=training, session=self.session
        )

    def to_host_batch(self, images: np.ndarray, labels: np.ndarray) -> Batch:
        return mx.nd.array(images.transpose(0, 3, 1, 2)), mx.nd.array(labels, dtype="int64")

    def train_step(self, batch: Batch) -> None:
        logits, loss, labels = self._forward_loss(batch)
        loss.backward()
        if self._schedule is not None:
            self._apply_schedule(self._schedule)
        self._trainer.step(len(labels))
        self._loss_sum += loss.sum()
        self._correct += (logits.argmax(axis=1) == labels.astype("float32")).sum()
        self._images += len(labels)

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

    # Looking

    def logits(self, batch: Batch) -> mx.nd.NDArray:
        return self._network(self._to_device(batch[0]))

    def features(self, batch: Batch) -> mx.nd.NDArray:
        return self._network.features(self._to_device(batch[0]))

    def gradients(self, batch: Batch) -> dict[str, np.ndarray]:
        _, loss, labels = self._forward_loss(batch)
        loss.backward()  # of the sum over the batch: `Trainer.step` divides, and so does this
        return {
            name: self.to_numpy(tensor.grad()) / len(labels)
            for name, tensor in self._tensors.items()
            if tensor.grad_req != "null"
        }

    def to_numpy(self, array: Any) -> np.ndarray:
        return array.asnumpy().astype(np.float32, copy=False)

    def synchronize(self) -> None:
        mx.nd.waitall()

    def settings(self) -> dict[str, Any]:
        norms = models.batch_norms(self._network)
        frozen = models.batch_norms(self._frozen) if self._frozen is not None else []
        trained = [tensor for tensor in self._tensors.values() if tensor.grad_req != "null"]
        on_gpu = self._device.device_type == "gpu"
        optimizer = self._trainer.optimizer
        return {
            "threads": _threads(),
            "input_workers": self.session.input_workers,
            "compiled": "hybridize()" if self._network._active else "no (imperative)",
            "layout": "NCHW",
            "dtype": np.dtype(trained[0].dtype).name,
            # cuDNN lets float32 convolutions use TF32 unless this variable forbids it; MXNet has no switch.
            "tf32": os.environ.get("NVIDIA_TF32_OVERRIDE") != "0" if on_gpu else None,
            "determinism": os.environ.get("MXNET_ENFORCE_DETERMINISM", "0") == "1",
            "batch_norm": {
                "layers": len(norms),
                "on_stored_statistics": sum(n in frozen or n._kwargs["use_global_stats"] for n in norms),
                "epsilon": sorted({norm._kwargs["eps"] for norm in norms}),
                "running_keeps": sorted({norm._kwargs["momentum"] for norm in norms}),
                "running_variance": ("unbiased" if on_gpu else "biased") if norms else None,
            },
            "optimizer": {
                "class": f"mxnet.optimizer.{type(optimizer).__name__}",
                "learning_rates": sorted({self._initial_rate * tensor.lr_mult for tensor in trained}),
                "momentum": self._momentum,
                "nesterov": False,
                "weight_decay": optimizer.wd,
                "decay_form": "coupled",
                "schedule": type(self._schedule).__name__ if self._schedule else "constant",
            },
            "loss": "mean cross-entropy on logits",
            "resize": "bilinear, not antialiased (OpenCV)",
            "trained_parameters": sum(tensor.data().size for tensor in trained),
            "parameters": sum(self._tensors[name].data().size for name in self._learnable),
        }

    def peak_device_bytes(self) -> int | None:
        if self._device.device_type == "cpu":
            return None
        free, total = mx.context.gpu_memory_info(self._device.device_id)
        return total - free  # MXNet's pool gives nothing back: what is taken now is the peak

    # How

    def _to_device(self, array: mx.nd.NDArray) -> mx.nd.NDArray:
        return array.as_in_context(self._device)

    def _forward_loss(self, batch: Batch) -> tuple[mx.nd.NDArray, mx.nd.NDArray, mx.nd.NDArray]:
        """Logits (N, K), losses (N,) and labels (N,) of a batch, recorded from the first trained layer on."""
        images, labels = self._to_device(batch[0]), self._to_device(batch[1])
        if self._leading is not None:
            self._move_statistics(self._leading, images)
        # What is frozen runs unrecorded, in inference mode: under `record(train_mode=False)` a plain backward
        # would take the gradients of another function than the one the forward computed.
        inputs = images if self._frozen is None else self._frozen(images)
        with autograd.record():
            logits = self._trained(inputs)
            loss = self._loss(logits, labels)
        return logits, loss, labels

    def _move_statistics(self, norm: gluon.nn.BatchNorm, images: mx.nd.NDArray) -> None:
        """Update the running statistics of the batch norm on the images. MXNet's CPU kernels do that in the
        backward pass, and nothing asks for this layer's; cuDNN does it in the forward pass."""
        arguments = (norm.gamma, norm.beta, norm.running_mean, norm.running_var)
        with autograd.train_mode():
            _, mean, inverse_deviation = mx.nd.BatchNorm(
                images, *(parameter.data() for parameter in arguments), output_mean_var=True, **norm._kwargs
            )
        keeps, variance = norm._kwargs["momentum"], inverse_deviation**-2 - norm._kwargs["eps"]
        for parameter, of_batch in ((norm.running_mean, mean), (norm.running_var, variance)):
            running = parameter.data()
            running *= keeps
            running += (1 - keeps) * of_batch

    def _apply_schedule(self, schedule: InverseTime) -> None:
        """Set the learning rate of the coming step. MXNet keeps the rate inside the velocity,
        `u = m * u - lr * g`; with `m * new / old` in the place of `m` that equals a rate outside of it."""
        optimizer = self._trainer.optimizer
        rate = self._initial_rate / (1 + schedule.decay * self._steps)
        optimizer.momentum = self._momentum * rate / optimizer.learning_rate
        self._trainer.set_learning_rate(rate)
        self._steps += 1


# --- Threads --------------------------------------------------------------------------------------
# MXNet computes in a worker thread of its engine, and OpenMP keeps a number of threads for each thread that
# calls it: it has to be set, and read, from in there. oneDNN's kernels and the BLAS follow it at any time;
# MXNet's own kernels were fixed at import to OMP_NUM_THREADS or, without it, to at most half the processors.


class _Context(ctypes.Structure):
    """`mxnet::Context`: kind of device (1 is the CPU) and its number."""

    _fields_ = (("kind", ctypes.c_int), ("index", ctypes.c_int))


def _set_threads(threads: int) -> None:
    _in_cpu_worker(lambda: _LIB.omp_set_num_threads(threads))


def _threads() -> int:
    answers: list[int] = []
    _in_cpu_worker(lambda: answers.append(_LIB.omp_get_max_threads()))
    return answers[0]


def _in_cpu_worker(call: Callable[[], object]) -> None:
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(
        lambda _run, _parameter: call() and None
    )
    context, normal = _Context(1, 0), ctypes.c_int(0)
    check_call(
        _LIB.MXEnginePushSync(
            function, None, None, ctypes.byref(context), None, 0, None, 0, ctypes.byref(normal), 0, b"threads"
        )
    )
    mx.nd.waitall()
