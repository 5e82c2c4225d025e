"""MXNet Gluon with gluoncv's networks and Gluon's transforms."""

from backends.base import BackendInfo

INFO = BackendInfo(
    name="gluon",
    title="MXNet Gluon",
    aliases=("mxnet",),
    module="mxnet",
    extra="mxnet",
    distributions=("mxnet", "mxnet-cu117", "mxnet-cu112"),
)
