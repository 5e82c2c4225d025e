"""ResNet-18 v2 in MXNet Gluon."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from gluoncv import model_zoo
from mxnet import autograd, gluon
from mxnet.gluon.data.vision import ImageFolderDataset, transforms

from backends import allocator
from backends.architectures import is_parameter, shapes
from backends.base import NORMALIZATIONS
from benchmarks.handwritten import Task


class Leanest:
    """Hybridised; threads are those of OMP_NUM_THREADS, which MXNet reads when it is imported."""

    def __init__(self, task: Task) -> None:
        mx.random.seed(task.seed)
        allocator.keep_freed(task.tuned)
        self._network = _network(task)
        self._network.hybridize(**({"static_alloc": True} if task.tuned else {}))
        self._trainer = _trainer(task, self._network)
        self._cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()
        self._neutral = list(shapes(task.spec))
        scaling = NORMALIZATIONS[task.spec.normalization]
        self._mean = mx.nd.array(scaling.mean) * scaling.divisor
        self._deviation = mx.nd.array(scaling.deviation) * scaling.divisor
        self._loss = mx.nd.zeros(1)
        self._hits = mx.nd.zeros(1)

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        for name, tensor in self._named().items():
            tensor.set_data(mx.nd.array(weights[name]))

    def weights(self) -> dict[str, np.ndarray]:
        return {
            name: tensor.data().asnumpy()
            for name, tensor in self._named().items()
            if is_parameter(name) and tensor.grad_req != "null"
        }

    def host_batch(self, images: np.ndarray, labels: np.ndarray) -> Any:
        return mx.nd.array(images, dtype="uint8"), mx.nd.array(labels, dtype="int64")

    def step(self, batch: Any) -> None:
        images, labels = batch
        inputs = images.astype("float32")
        inputs -= self._mean
        inputs /= self._deviation
        with autograd.record():
            logits = self._network(inputs.transpose((0, 3, 1, 2)))
            loss = self._cross_entropy(logits, labels)
        loss.backward()
        self._trainer.step(len(labels))
        self._loss += loss.sum()
        self._hits += (logits.argmax(axis=1) == labels.astype("float32")).sum()

    def metrics(self) -> tuple[float, int]:
        return float(self._loss.asscalar()), int(self._hits.asscalar())

    def _named(self) -> dict[str, Any]:
        own = self._network._collect_params_with_prefix()
        return dict(zip(self._neutral, own.values(), strict=True))  # both from the input up


class Textbook:
    """As in Dive into Deep Learning, 14.2: folder, transforms, loader, loop."""

    def __init__(self, task: Task, folder: Path) -> None:
        mx.random.seed(task.seed)
        scaling = NORMALIZATIONS[task.spec.normalization]
        augmentation = transforms.Compose(
            [
                transforms.RandomResizedCrop(task.spec.image_size),
                transforms.RandomFlipLeftRight(),
                transforms.ToTensor(),
                transforms.Normalize(scaling.mean, scaling.deviation),
            ]
        )
        images = ImageFolderDataset(str(folder)).transform_first(augmentation)
        self._batches = gluon.data.DataLoader(images, task.batch_size, shuffle=True)
        self._network = _network(task)
        self._network.hybridize()
        self._trainer = _trainer(task, self._network)
        self._cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()

    def epoch(self) -> int:
        total_loss, hits, count = 0.0, 0, 0
        for images, labels in self._batches:
            with autograd.record():
                logits = self._network(images)
                loss = self._cross_entropy(logits, labels)
            loss.backward()
            self._trainer.step(len(labels))
            total_loss += float(loss.sum().asscalar())
            hits += int((logits.argmax(axis=1) == labels.astype("float32")).sum().asscalar())
            count += len(labels)
        mx.nd.waitall()
        return count


def _network(task: Task) -> Any:
    network = model_zoo.get_model("resnet18_v2", classes=task.spec.classes)
    network.initialize(mx.init.Xavier())
    network(mx.nd.zeros((1, 3, task.spec.image_size, task.spec.image_size)))  # draws what waited for a shape
    return network


def _trainer(task: Task, network: Any) -> Any:
    asked = task.optimizer
    network.output.collect_params().setattr("lr_mult", asked.head_multiplier)
    own = {"learning_rate": asked.learning_rate, "momentum": asked.momentum, "wd": asked.weight_decay}
    return gluon.Trainer(network.collect_params(), "sgd", own)
