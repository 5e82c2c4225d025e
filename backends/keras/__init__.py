"""Keras 3 on TensorFlow with keras.applications' networks and a tf.data pipeline."""

from backends.base import BackendInfo
from backends.sources import Source

_APPLICATIONS = "https://storage.googleapis.com/tensorflow/keras-applications"


def _vgg16(file: str, md5: str, *, head: bool) -> Source:
    return Source(
        architecture="vgg16",
        head=head,
        urls=(f"{_APPLICATIONS}/vgg16/{file}",),
        files=tuple(f"{home}/models/{file}" for home in ("$KERAS_HOME", "~/.keras")),
        digest=f"md5:{md5}",
    )


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
    tuning=("keep-memory", "xla"),
    sources=(
        _vgg16("vgg16_weights_tf_dim_ordering_tf_kernels.h5", "64373286793e3c8b2b4e3219cbf3544b", head=True),
        _vgg16(
            "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "6d6bbae143d832006294945121d1f1fc",
            head=False,
        ),
    ),
)
