"""MXNet Gluon with gluoncv's networks and Gluon's transforms."""

import numpy

from backends.base import BackendInfo
from backends.sources import Source

# NumPy 1.24 took away an alias without which MXNet 1.9.1, its last release, cannot be imported.
vars(numpy).setdefault("bool", bool)


def _gluoncv(architecture: str, name: str, sha1: str) -> Source:
    """A mirror may be named by $MXNET_GLUON_REPO, as gluoncv has it."""
    repositories = ("$MXNET_GLUON_REPO", "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com")
    file = f"{name}-{sha1[:8]}"
    return Source(
        architecture=architecture,
        urls=tuple(f"{repository}/gluon/models/{file}.zip" for repository in repositories),
        files=tuple(f"{home}/models/{file}.params" for home in ("$MXNET_HOME", "~/.mxnet")),
        digest=f"sha1:{sha1}",
    )


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
    tuning=("keep-memory", "separate-updates", "static-memory"),
    sources=(
        _gluoncv("resnet18_v2", "resnet18_v2", "a81db45fd7b7a2d12ab97cd88ef0a5ac48b8f657"),
        _gluoncv("resnet18", "resnet18_v1", "a0666292f0a30ff61f857b0b66efc0228eb6a54b"),
        _gluoncv("vgg16", "vgg16", "e660d4569ccb679ec68f1fd3cce07a387252a90a"),
    ),
)
