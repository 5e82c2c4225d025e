"""PyTorch with torchvision's networks and transforms."""

from backends.base import BackendInfo

INFO = BackendInfo(
    name="pytorch",
    title="PyTorch",
    aliases=("torch",),
    module="torch",
    extra="pytorch",
    distributions=("torch",),
    packages=("torchvision",),
)
