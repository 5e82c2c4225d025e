"""PyTorch with torchvision's and timm's networks and transforms."""

from backends.base import BackendInfo

INFO = BackendInfo(
    name="pytorch",
    title="PyTorch",
    aliases=("torch",),
    module="torch",
    extra="pytorch",
    distributions=("torch",),
    packages=("torchvision", "timm"),
    architectures=("resnet18", "resnet18_v2", "vgg16", "efficientnet_lite0"),
    checkpoint_suffixes=(".pth", ".pt"),
)
