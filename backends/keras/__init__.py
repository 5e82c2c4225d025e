"""Keras 3 on TensorFlow with keras.applications' networks and a tf.data pipeline."""

from backends.base import BackendInfo

INFO = BackendInfo(
    name="keras",
    title="Keras (TensorFlow)",
    aliases=("tensorflow", "tf"),
    module="keras",
    extra="keras",
    distributions=("keras",),
    packages=("tensorflow", "tensorflow-cpu"),
)
