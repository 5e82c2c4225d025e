"""The contract in PyTorch: eager mode, contiguous tensors, `torch.optim.SGD`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional

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
    WeightsError,
    one_line,
    require_device,
)
from backends.pytorch import INFO, input, models


class FrameworkBackend(Backend):
    """PyTorch behind the contract."""

    info = INFO

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        require_device(session, self.devices())
        torch.manual_seed(session.seed)
        torch.set_num_threads(session.threads)
        self._device = torch.device(session.device)
        self._loss_sum = torch.zeros((), device=self._device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self._device)
        self._images = 0

    @staticmethod
    def devices() -> tuple[str, ...]:
        return ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())))

    # Building

    def architectures(self) -> tuple[str, ...]:
        return tuple(models.ARCHITECTURES)

    def build(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._network = models.build(spec).to(self._device)
        self._head = models.head_of(self._network, spec.architecture)
        self._tensors = models.neutral_tensors(self._network, spec.architecture)
        self.set_trainable(Trainable())

    def load_official(self) -> str:
        checkpoint = torchvision.models.get_model_weights(self._spec.architecture).IMAGENET1K_V1
        try:
            state = checkpoint.get_state_dict(progress=False, check_hash=True)
        except (URLError, OSError, RuntimeError) as error:
            raise WeightsError(
                f"pytorch {self._spec.architecture}: {checkpoint.url} could not be fetched and verified"
                f" ({one_line(error)}); put the file into {torch.hub.get_dir()}/checkpoints, or choose"
                " --weights source or --weights PATH"
            ) from error
        head = models.HEAD_MODULES[self._spec.architecture] + "."
        self.load_weights(
            {name: tensor.numpy() for name, tensor in state.items() if not name.startswith(head)}, head=False
        )
        return checkpoint.url.rsplit("/", 1)[1]

    def load_weights(self, tensors: Mapping[str, np.ndarray], *, head: bool) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}
        with torch.no_grad():
            for name, value in weights.select(tensors, shapes, head=head).items():
                self._tensors[name].copy_(torch.from_numpy(value))

    def export_weights(self) -> dict[str, np.ndarray]:
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self._tensors.items()}

    # Training

    def set_trainable(self, trainable: Trainable) -> None:
        trained = weights.trained_from(self._spec.architecture, trainable.first)
        for name, tensor in self._tensors.items():
            if isinstance(tensor, nn.Parameter):
                tensor.requires_grad_(name.startswith(trained))
        # Not training a batch norm's scale does not stop torch from using and moving batch statistics: its
        # mode does.
        self._stored_statistics = [
            module
            for module in self._network.modules()
            if isinstance(module, nn.BatchNorm2d)
            and (trainable.batch_norm == "stored" or not module.weight.requires_grad)
        ]
        self._training: bool | None = None

    def configure_optimizer(self, optimizer: Optimizer) -> None:
        body: list[torch.Tensor] = []
        head: list[torch.Tensor] = []
        for name, tensor in self._tensors.items():
            if tensor.requires_grad:
                (head if weights.is_head(name) else body).append(tensor)
        groups = [
            {"params": body, "lr": optimizer.learning_rate},
            {"params": head, "lr": optimizer.learning_rate * optimizer.head_multiplier},
        ]
        self._optimizer = torch.optim.SGD(
            [group for group in groups if group["params"]],
            lr=optimizer.learning_rate,
            momentum=optimizer.momentum,
            nesterov=optimizer.nesterov,
            weight_decay=optimizer.weight_decay,
        )
        self._scheduler = None
        if isinstance(optimizer.schedule, InverseTime):
            decay = optimizer.schedule.decay
            self._scheduler = torch.optim.lr_scheduler.LambdaLR(
                self._optimizer, lambda step: 1 / (1 + decay * step)
            )

    def input_pipeline(
        self, images: ImageList, transform: Transform, *, batch_size: int, training: bool
    ) -> Pipeline:
        return input.pipeline(
            images, transform, batch_size=batch_size, training=training, session=self.session
        )

    def to_host_batch(self, images: np.ndarray, labels: np.ndarray) -> Batch:
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)

    def train_step(self, batch: Batch) -> None:
        logits, loss, labels = self._forward_loss(batch)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()
        self._loss_sum += loss.detach() * len(labels)
        self._correct += (logits.detach().argmax(dim=1) == labels).sum()
        self._images += len(labels)

    def take_metrics(self) -> Metrics:
        metrics = Metrics(
            loss=float(self._loss_sum) / max(self._images, 1), correct=int(self._correct), images=self._images
        )
        self._loss_sum.zero_()
        self._correct.zero_()
        self._images = 0
        return metrics

    # Looking

    @torch.inference_mode()
    def logits(self, batch: Batch) -> torch.Tensor:
        self._set_mode(training=False)
        return self._network(self._to_device(batch[0]))

    @torch.inference_mode()
    def features(self, batch: Batch) -> torch.Tensor:
        entered: list[torch.Tensor] = []
        hook = self._head.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
        try:
            self.logits(batch)
        finally:
            hook.remove()
        return entered[0]

    def gradients(self, batch: Batch) -> dict[str, np.ndarray]:
        self._network.zero_grad()
        self._forward_loss(batch)[1].backward()
        gradients = {
            name: self.to_numpy(tensor.grad)
            for name, tensor in self._tensors.items()
            if tensor.requires_grad and tensor.grad is not None
        }
        self._network.zero_grad()
        return gradients

    def to_numpy(self, array: Any) -> np.ndarray:
        return array.detach().float().cpu().numpy()

    def synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def settings(self) -> dict[str, Any]:
        norms = [module for module in self._network.modules() if isinstance(module, nn.BatchNorm2d)]
        groups = self._optimizer.param_groups
        return {
            "threads": torch.get_num_threads(),
            "input_workers": self.session.input_workers,
            "compiled": "no (eager)",
            "layout": "NCHW",
            "dtype": str(next(self._network.parameters()).dtype).removeprefix("torch."),
            "tf32": torch.backends.cuda.matmul.allow_tf32 if self._device.type == "cuda" else None,
            "determinism": torch.are_deterministic_algorithms_enabled(),
            "batch_norm": {
                "layers": len(norms),
                "on_stored_statistics": len(self._stored_statistics),
                "epsilon": sorted({module.eps for module in norms}),
                "running_keeps": sorted({1 - (module.momentum or 0.0) for module in norms}),
                "running_variance": "unbiased" if norms else None,
            },
            "optimizer": {
                "class": f"torch.optim.{type(self._optimizer).__name__}",
                "learning_rates": sorted({group.get("initial_lr", group["lr"]) for group in groups}),
                "momentum": groups[0]["momentum"],
                "nesterov": groups[0]["nesterov"],
                "weight_decay": groups[0]["weight_decay"],
                "decay_form": "coupled",
                "schedule": type(self._scheduler).__name__ if self._scheduler else "constant",
            },
            "loss": "mean cross-entropy on logits",
            "resize": "bilinear, antialiased (Pillow)",
            "trained_parameters": sum(p.numel() for p in self._network.parameters() if p.requires_grad),
            "parameters": sum(p.numel() for p in self._network.parameters()),
        }

    def peak_device_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else None

    # How

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._device, non_blocking=True)

    def _forward_loss(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        self._set_mode(training=True)
        images, labels = self._to_device(batch[0]), self._to_device(batch[1])
        logits = self._network(images)
        return logits, functional.cross_entropy(logits, labels), labels

    def _set_mode(self, *, training: bool) -> None:
        if self._training == training:  # walking the modules at every step would cost more than the check
            return
        self._network.train(training)
        for module in self._stored_statistics:
            module.eval()
        self._training = training
