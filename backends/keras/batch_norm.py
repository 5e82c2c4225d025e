"""Keras' batch norm, with what the contract asks for and Keras has no argument for."""

from __future__ import annotations

from typing import Any

import keras

RUNNING_KEEPS = 0.9
"""What a running statistic keeps of itself at each step, in the contract; Keras' own default is 0.99."""


class BatchNormalization(keras.layers.BatchNormalization):
    """Batch norm over the channels of (N, H, W, C).

    As in Keras, a layer whose `trainable` is false normalises by its stored statistics and leaves them alone.

    Attributes:
        stored: do so while scale and shift train. Read when a step is traced, and no later.
        unbiased: the running variance is updated with the batch's unbiased variance (its sum of squares
            divided by n - 1, n = N*H*W), as torch does; else with the biased one, as Keras does. What the
            batch is normalised by is biased in both.
        learns: if not, the layer stores a scale and a shift but trains neither, and uses 1 for the scale: the
            first layer of Gluon's resnet18_v2. Its variables' `trainable` is for the caller to switch off.
    """

    def __init__(self, *, unbiased: bool, learns: bool = True, **arguments: Any) -> None:
        super().__init__(momentum=RUNNING_KEEPS, **arguments)
        self.unbiased = unbiased
        self.learns = learns
        self.stored = False

    @property
    def on_stored_statistics(self) -> bool:
        """Whether a training step leaves this layer's statistics alone."""
        return self.stored or not self.trainable

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise; in training, on the batch's statistics, move the running ones."""
        by_batch = bool(training) and not self.on_stored_statistics
        if self.learns and not (by_batch and self.unbiased):
            return super().call(inputs, training=by_batch, mask=mask)
        # Statistics of a low precision would be worth nothing; Keras' own layer does the same.
        inputs = keras.ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        if by_batch:
            mean, variance = keras.ops.moments(inputs, axes=(0, 1, 2))
            _move(self.moving_mean, mean)
            _move(self.moving_variance, variance * _correction(inputs) if self.unbiased else variance)
        else:
            mean, variance = self.moving_mean.value, self.moving_variance.value
        outputs = keras.ops.batch_normalization(
            inputs,
            mean,
            variance,
            axis=-1,
            offset=self.beta.value,
            scale=self.gamma.value if self.learns else None,
            epsilon=self.epsilon,
        )
        return keras.ops.cast(outputs, self.compute_dtype)


def _move(running: Any, batch: Any) -> None:
    running.assign(running.value * RUNNING_KEEPS + batch * (1 - RUNNING_KEEPS))


def _correction(inputs: Any) -> Any:
    """n / (n - 1); of a single value there is no unbiased variance, and 1 is returned."""
    batch, height, width, _ = keras.ops.shape(inputs)
    values = keras.ops.cast(batch * height * width, inputs.dtype)
    return values / keras.ops.maximum(values - 1, 1)
