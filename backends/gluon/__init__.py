"""MXNet Gluon with gluoncv's networks and Gluon's transforms."""

import numpy

from backends.base import BackendInfo

if "bool" not in vars(
    numpy
):  # numpy 1.24 removed the alias and MXNet 1.9.1, the last release, needs it to be imported
    numpy.bool = bool  # type: ignore[attr-defined]

INFO = BackendInfo(
    name="gluon",
    title="MXNet Gluon",
    aliases=("mxnet",),
    module="mxnet",
    extra="mxnet",
    distributions=("mxnet", "mxnet-cu117", "mxnet-cu112"),
)
