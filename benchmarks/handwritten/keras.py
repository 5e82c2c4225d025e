"""VGG16 in Keras on TensorFlow."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # Keras reads it once, when it is first imported

import keras
import numpy as np
import tensorflow as tf
from keras.applications import vgg16

from backends import allocator
from backends.base import NORMALIZATIONS
from benchmarks.handwritten import Task


class Leanest:
    """One graph for the whole step, the update a kernel of TensorFlow's own."""

    def __init__(self, task: Task) -> None:
        _set_threads(task.threads)
        keras.utils.set_random_seed(task.seed)
        allocator.keep_freed(task.tuned)
        self._network, self._asked = _network(task, ends_in=None), task.optimizer
        self._velocities = [tf.Variable(tf.zeros_like(v.value)) for v in self._network.trainable_variables]
        scaling = NORMALIZATIONS[task.spec.normalization]
        row = (task.spec.image_size, 3)  # three at a time TensorFlow computes three times as long
        self._mean = tf.constant(np.broadcast_to(np.array(scaling.mean, np.float32), row))
        self._loss = tf.Variable(0.0)
        self._hits = tf.Variable(0, dtype=tf.int64)
        size = (None, task.spec.image_size, task.spec.image_size, 3)
        signature = [tf.TensorSpec(size, tf.uint8), tf.TensorSpec((None,), tf.int64)]
        self._step = tf.function(self._train, input_signature=signature, autograph=False)

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        for name, variable in self._named().items():
            value = weights[name]
            variable.assign(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T)

    def weights(self) -> dict[str, np.ndarray]:
        arrays = {name: variable.numpy() for name, variable in self._named().items()}
        return {n: np.array(a.transpose(3, 2, 0, 1) if a.ndim == 4 else a.T) for n, a in arrays.items()}

    def host_batch(self, images: np.ndarray, labels: np.ndarray) -> Any:
        return tf.constant(images), tf.constant(labels)

    def step(self, batch: Any) -> None:
        self._step(*batch)

    def metrics(self) -> tuple[float, int]:
        return float(self._loss), int(self._hits)

    def _train(self, images: Any, labels: Any) -> None:
        variables = self._network.trainable_variables
        with tf.GradientTape() as tape:
            inputs = tf.cast(images[..., ::-1], tf.float32) - self._mean
            logits = self._network(inputs, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, variables)
        for gradient, variable, velocity in zip(gradients, variables, self._velocities, strict=True):
            head = variable.path.startswith("head/")
            rate = self._asked.learning_rate * (self._asked.head_multiplier if head else 1.0)
            if self._asked.weight_decay:
                gradient = gradient + self._asked.weight_decay * variable.value
            tf.raw_ops.ResourceApplyMomentum(
                var=variable.value.handle,
                accum=velocity.handle,
                lr=rate,
                grad=gradient,
                momentum=self._asked.momentum,
            )
        self._loss.assign_add(tf.reduce_sum(losses))
        self._hits.assign_add(tf.math.count_nonzero(tf.argmax(logits, 1) == labels))

    def _named(self) -> dict[str, Any]:
        """Layers bear neutral names already."""
        kinds = {"kernel": "weight", "bias": "bias"}
        return {
            f"{layer.name}.{kinds[variable.name]}": variable
            for layer in self._network.layers
            for variable in layer.weights
        }


class Textbook:
    """As in Keras' own guides: a data set from a directory, augmentation mapped over it, `fit`."""

    def __init__(self, task: Task, folder: Path) -> None:
        _set_threads(task.threads)
        keras.utils.set_random_seed(task.seed)
        size = task.spec.image_size
        images = keras.utils.image_dataset_from_directory(
            str(folder), image_size=(size, size), batch_size=task.batch_size, verbose=False
        )
        augmentation = keras.Sequential([keras.layers.RandomFlip("horizontal"), keras.layers.RandomZoom(0.2)])
        batches = images.map(
            lambda images, labels: (vgg16.preprocess_input(augmentation(images, training=True)), labels),
            num_parallel_calls=tf.data.AUTOTUNE,
        ).prefetch(tf.data.AUTOTUNE)
        options = tf.data.Options()
        # tf.data's tuning thread can hold up the end of an epoch for as long as the epoch took. Guides leave
        # it on, but what the harness is held against shall not suffer from it.
        options.autotune.enabled = False
        self._batches, self._images = batches.with_options(options), len(images.file_paths)
        self._network, asked = _network(task, ends_in="softmax"), task.optimizer
        self._network.compile(
            optimizer=keras.optimizers.SGD(asked.learning_rate, momentum=asked.momentum),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )

    def epoch(self) -> int:
        self._network.fit(self._batches, epochs=1, verbose=0)
        return self._images


def _set_threads(threads: int) -> None:
    # Once TensorFlow has begun it keeps its threads; both sides of a comparison ask for the same number.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


def _network(task: Task, *, ends_in: str | None) -> Any:
    size = task.spec.image_size
    base = vgg16.VGG16(include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg")
    head = keras.layers.Dense(task.spec.classes, activation=ends_in, name="head")
    return keras.Model(base.input, head(base.output))
