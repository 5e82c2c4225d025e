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
    architectures=("vgg16", "resnet18", "resnet18_v2", "efficientnet_lite0"),
    checkpoint_suffixes=(".h5", ".keras"),
)
