"""MXNet Gluon with gluoncv's networks and Gluon's transforms."""

import numpy

from backends.base import BackendInfo

# NumPy 1.24 took away an alias without which MXNet 1.9.1, its last release, cannot be imported.
vars(numpy).setdefault("bool", bool)

INFO = BackendInfo(
    name="gluon",
    title="MXNet Gluon",
    aliases=("mxnet",),
    module="mxnet",
    extra="mxnet",
    distributions=("mxnet", "mxnet-cu117", "mxnet-cu112"),
    packages=("gluoncv", "opencv-python"),
    architectures=("resnet18_v2", "resnet18", "vgg16", "efficientnet_lite0"),
    checkpoint_suffixes=(".params",),
)
