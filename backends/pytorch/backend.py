"""The contract in PyTorch: eager mode, contiguous tensors, torch's own optimisers."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

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
from backends.optimizers import Optimizer, schedule_name
from backends.pytorch import INFO, checkpoint, input, models
from backends.pytorch import optimizer as own_optimizer
from backends.resume import epoch_seed


class FrameworkBackend(Backend):
    """PyTorch behind the contract."""

    info = INFO

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        require_device(session, self.devices())
        torch.manual_seed(session.seed)
        torch.set_num_threads(session.threads)
        self._device = torch.device(session.device)
        self._tuning = tuning_of(INFO, session, _TUNED[self._device.type])
        allocator.keep_freed("keep-memory" in self._tuning)
        # For this thread and those that it starts: torch's own begin with its first parallel operation.
        torch.set_flush_denormal("flush-denormals" in self._tuning)
        _set_determinism(session.variant == "reproducible")
        torch.backends.cudnn.benchmark = "cudnn-benchmark" in self._tuning  # algorithms by their speed
        torch.set_float32_matmul_precision("high" if "tf32" in self._tuning else "highest")
        self._layout = torch.channels_last if "channels-last" in self._tuning else torch.contiguous_format
        self._mixed = session.precision == "bfloat16"
        self._dtype: torch.dtype = torch.float32 if self._mixed else getattr(torch, session.precision)
        self._loss_sum = torch.zeros((), dtype=self._dtype, device=self._device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self._device)
        self._images = 0

    @staticmethod
    def devices() -> tuple[str, ...]:
        return ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())))

    # Building

    def build(self, spec: ModelSpec) -> None:
        self._spec = spec
        network = models.build(spec, dropout=self.session.track == "native")
        self._network = network.to(self._device, self._dtype, memory_format=self._layout)
        # What runs steps and logits: to compile in float64, for the gate, would take minutes.
        compiles = "compile" in self._tuning and self.session.precision != "float64"
        self._run: Callable[..., torch.Tensor] = torch.compile(self._network) if compiles else self._network
        self._head = models.head_of(self._network, spec)
        self._last = models.last_of(self._network, spec)
        self._tensors = models.neutral_tensors(self._network, spec)
        self._scaling = NORMALIZATIONS[spec.normalization]
        self._mean, self._deviation = (
            torch.tensor(values, dtype=self._dtype, device=self._device).view(1, 3, 1, 1)
            for values in (self._scaling.mean, self._scaling.deviation)
        )
        self.set_trainable(Trainable())

    def load_official(self, *, head: bool = False) -> str:
        file = checkpoint.fetch_official(self._spec.architecture)
        checkpoint.load(self._network, self._spec, file, head=head)
        return file.name

    def load_weights(self, tensors: Mapping[str, np.ndarray], *, head: bool) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}
        with torch.no_grad():
            for name, value in weights.select(tensors, shapes, head=head).items():
                # torch takes no array that is read-only or runs backwards; others are not copied twice
                array = np.require(value, requirements=["C_CONTIGUOUS", "WRITEABLE"])
                self._tensors[name].copy_(torch.from_numpy(array))

    def export_weights(self) -> dict[str, np.ndarray]:
        return {name: self.to_numpy(tensor).copy() for name, tensor in self._tensors.items()}

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
                tensor.requires_grad_(name.startswith(trained))
        # Not training a batch norm's scale does not stop torch from using and moving batch statistics: its
        # mode does. Batch norms bear their neutral names in every network.
        self._stored_statistics = [
            module
            for name, module in self._network.named_modules()
            if isinstance(module, nn.BatchNorm2d)
            and (trainable.batch_norm == "stored" or not f"{name}.".startswith(trained))
        ]
        self._training: bool | None = None

    def configure_optimizer(self, optimizer: Optimizer) -> None:
        self._learning = {name: tensor for name, tensor in self._tensors.items() if tensor.requires_grad}
        self._optimizer = own_optimizer.make(optimizer, self._learning)
        self._schedule = optimizer.schedule
        self._scheduler = own_optimizer.schedule(optimizer, self._optimizer)

    def optimizer_state(self) -> dict[str, np.ndarray]:
        found = own_optimizer.state(self._optimizer, self._scheduler, self._learning)
        return {name: self.to_numpy(tensor).copy() for name, tensor in found}

    def load_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        own_optimizer.load_state(self._optimizer, self._scheduler, self._learning, state)

    def reseed(self, epoch: int) -> None:
        torch.manual_seed(epoch_seed(self.session.seed, epoch))

    def input_pipeline(
        self, images: ImageList, transform: Transform, *, batch_size: int, training: bool
    ) -> Pipeline:
        return input.pipeline(
            images, transform, batch_size=batch_size, training=training, session=self.session
        )

    def to_host_batch(self, images: np.ndarray, labels: np.ndarray, kept: np.ndarray | None = None) -> Batch:
        tensor = torch.from_numpy(images)
        if tensor.ndim == 4 and tensor.dtype != torch.uint8:
            tensor = tensor.permute(0, 3, 1, 2).contiguous(memory_format=self._layout)
        elif tensor.ndim == 2 and self.session.variant == "reproducible":
            tensor = tensor.clone()  # MKL's sums depend on where in memory an array begins
        arrays = (labels,) if kept is None else (labels, kept)
        batch = (tensor, *map(torch.from_numpy, arrays))
        # From pinned memory the copy to a GPU runs beside what it computes.
        return batch if self._device.type == "cpu" else tuple(part.pin_memory() for part in batch)

    def train_step(self, batch: Batch) -> None:
        self.run_stages(batch, "update")

    def take_metrics(self) -> Metrics:
        metrics = Metrics(
            loss=float(self._loss_sum) / max(self._images, 1), correct=int(self._correct), images=self._images
        )
        self._loss_sum.zero_()
        self._correct.zero_()
        self._images = 0
        return metrics

    # Measuring

    def run_stages(self, batch: Batch, last: Stage) -> None:
        inputs, labels, *masks = self._transferred(batch)
        if last == "transfer":
            return
        outputs, loss = self._forward_loss(inputs, labels, *masks)
        if last == "forward":
            return
        self._optimizer.zero_grad()
        loss.backward()
        if last == "backward":
            return
        self._optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()
        self._loss_sum += loss.detach() * len(labels)
        self._correct += (self._answers(outputs.detach()) == labels).sum()
        self._images += len(labels)

    def matrix_product(self, size: int) -> Callable[[int], torch.Tensor]:
        # The spread of a product's values is that of its factors.
        factor = torch.randn(size, size, device=self._device) / size**0.5
        factor = factor.to(torch.bfloat16 if self._mixed else self._dtype)
        if self._device.type == "cpu":
            return functools.partial(_multiply_as_layers_do, factor)
        return functools.partial(_multiply, factor)

    def decode(self, path: Path) -> Any:
        return input.decoded(str(path))

    def stopwatch(self) -> Callable[[], float]:
        if self._device.type == "cpu":
            return super().stopwatch()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self._device)
        begin.record()

        def stop() -> float:
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) / 1000  # from milliseconds

        return stop

    # Looking

    @torch.inference_mode()
    def logits(self, batch: Batch) -> torch.Tensor:
        outputs = self._outputs(self._run, batch)
        return functional.pad(outputs, (1, 0)) if self._spec.output == "sigmoid" else outputs

    @torch.inference_mode()
    def features(self, batch: Batch, block: str | None = None) -> torch.Tensor:
        found: list[torch.Tensor] = []
        if block is None:
            hook = self._head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
        else:
            module = models.block_modules(self._network, self._spec)[block]
            hook = module.register_forward_hook(lambda _, __, output: found.append(output))
        try:
            self._outputs(self._network, batch)
        finally:
            hook.remove()
        values = self._whole(found[0])
        return values.mean(dim=(2, 3)) if values.ndim == 4 else values

    def block_outputs(self, batch: Batch) -> dict[str, np.ndarray]:
        outputs: dict[str, np.ndarray] = {}
        with contextlib.ExitStack() as hooks:
            for block, module in models.block_modules(self._network, self._spec).items():
                hook = module.register_forward_hook(self._keep_output(outputs, block))
                hooks.callback(hook.remove)
            with torch.inference_mode():
                self._outputs(self._network, batch)
        return outputs

    def gradients(self, batch: Batch) -> dict[str, np.ndarray]:
        self._network.zero_grad()
        self._forward_loss(*self._transferred(batch))[1].backward()
        gradients = {
            name: self.to_numpy(tensor.grad)
            for name, tensor in self._tensors.items()
            if tensor.requires_grad and tensor.grad is not None
        }
        self._network.zero_grad()
        return gradients

    def moments(self) -> dict[str, np.ndarray]:
        found = own_optimizer.moments(self._optimizer, self._learning)
        return {name: self.to_numpy(buffer).copy() for name, buffer in found}

    def to_numpy(self, array: Any) -> np.ndarray:
        return array.detach().cpu().numpy()

    def synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def settings(self) -> dict[str, Any]:
        norms = [module for module in self._network.modules() if isinstance(module, nn.BatchNorm2d)]
        return {
            "threads": torch.get_num_threads(),
            "input_workers": self.session.input_workers,
            "tuning": sorted(self._tuning),
            "compiled": "no (eager)" if self._run is self._network else "torch.compile",
            "layout": "NCHW" if self._layout == torch.contiguous_format else "NHWC (channels_last)",
            "dtype": str(next(self._network.parameters()).dtype).removeprefix("torch."),
            "computed_in": self.session.precision,
            "tf32": self._allows_tf32() if self._device.type == "cuda" else None,
            "denormals": denormals.described(self._denormal_products()),
            "determinism": torch.are_deterministic_algorithms_enabled(),
            "batch_norm": {
                "layers": len(norms),
                "on_stored_statistics": len(self._stored_statistics),
                "epsilon": sorted({module.eps for module in norms}),
                "running_keeps": sorted({1 - (module.momentum or 0.0) for module in norms}),
                "running_variance": "unbiased" if norms else None,
            },
            "optimizer": {
                **own_optimizer.settings(self._optimizer),
                "schedule": schedule_name(self._schedule),
            },
            "loss": LOSSES[self._spec.output],
            "dropout": self._spec.dropout,
            "resize": "bilinear, antialiased (Pillow)"
            if self.session.track == "native"
            else "bilinear, antialiased (Pillow, the harness's)",
            "trained_parameters": sum(t.numel() for t in self._tensors.values() if t.requires_grad),
            "parameters": sum(t.numel() for name, t in self._tensors.items() if is_parameter(name)),
        }

    def peak_device_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else None

    # How

    def _allows_tf32(self) -> bool:
        return bool(torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)

    @torch.inference_mode()
    def _denormal_products(self) -> np.ndarray:
        normal = torch.full((denormals.COUNT,), denormals.NORMAL, device=self._device)
        return self.to_numpy(normal * denormals.FACTOR)

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._device, non_blocking=True)

    def _inputs(self, images: torch.Tensor) -> torch.Tensor:
        """Images on the device, normalised, (N, 3, H, W), in the precision of the parameters; or features
        (N, F)."""
        images = self._to_device(images)
        if images.ndim == 2:
            return images.to(self._dtype)
        if images.dtype != torch.uint8:
            return images.to(self._dtype, memory_format=self._layout)
        if self._scaling.channels == "BGR":
            images = images.flip(3)
        inputs = images.permute(0, 3, 1, 2).to(self._dtype, memory_format=self._layout)
        return inputs.div_(self._scaling.divisor).sub_(self._mean).div_(self._deviation)

    def _keep_output(self, outputs: dict[str, np.ndarray], block: str) -> Callable[..., None]:
        def keep(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            outputs[block] = np.array(self.to_numpy(self._whole(output)), order="C")

        return keep

    def _transferred(self, batch: Batch) -> Batch:
        return self._inputs(batch[0]), *map(self._to_device, batch[1:])

    def _computing(self) -> contextlib.AbstractContextManager[Any]:
        """The precision of what is computed within. Weights change at each step: casts of them are not
        kept."""
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._mixed)

    def _whole(self, values: torch.Tensor) -> torch.Tensor:
        """Itself, but in the precision of the parameters: NumPy has no bfloat16."""
        return values.to(self._dtype)

    def _outputs(self, network: Callable[..., torch.Tensor], batch: Batch) -> torch.Tensor:
        self._set_mode(training=False)
        with self._computing():
            return self._whole(network(self._inputs(batch[0])))

    def _forward_loss(
        self, inputs: torch.Tensor, labels: torch.Tensor, *masks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The last layer's outputs and the mean loss."""
        self._set_mode(training=True)
        if self._last is not None and self.session.track == "matched":
            self._last.kept = masks[0].to(self._dtype)
        with self._computing():
            outputs = self._whole(self._run(inputs))
        if self._spec.output == "sigmoid":
            targets = labels.to(self._dtype)
            return outputs, functional.binary_cross_entropy_with_logits(outputs[:, 0], targets)
        return outputs, functional.cross_entropy(outputs, labels)

    def _answers(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs[:, 0] > 0 if self._spec.output == "sigmoid" else outputs.argmax(dim=1)

    def _set_mode(self, *, training: bool) -> None:
        if self._training == training:  # walking the modules at every step would cost more than the check
            return
        self._network.train(training)
        for module in self._stored_statistics:
            module.eval()
        self._training = training


_TUNED: Mapping[str, tuple[str, ...]] = {
    # On CPUs torch.compile was tried and does not pay, nor do flushed denormal numbers where a training does
    # not fade; see `benchmarks/test_tuning.py`.
    "cpu": ("channels-last", "keep-memory"),
    "cuda": ("channels-last", "compile", "cudnn-benchmark", "tf32"),
}
"""What the tuned variant has, by kind of device."""


@torch.inference_mode()
def _multiply(factor: torch.Tensor, times: int) -> torch.Tensor:
    product = factor
    for _ in range(times):
        product = product @ factor
    return product.float() if product.dtype == torch.bfloat16 else product


@torch.inference_mode()
def _multiply_as_layers_do(factor: torch.Tensor, times: int) -> torch.Tensor:
    """As convolutions of one pixel: oneDNN computes those, as it does a network's, and MKL, which on some
    processors is half as fast, plain products."""
    size = len(factor)
    product, kernel = factor.view(1, size, 1, size).permute(0, 3, 1, 2), factor.view(size, size, 1, 1)
    for _ in range(times):
        product = functional.conv2d(product, kernel)
    return product.float() if product.dtype == torch.bfloat16 else product


def _set_determinism(wanted: bool) -> None:
    if torch.are_deterministic_algorithms_enabled() != wanted:  # the call alone imports for two seconds
        torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.deterministic = wanted
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, when cuBLAS starts
