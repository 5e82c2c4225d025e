"""ResNet-18 v2 as Gluon's model zoo has it; torchvision and timm have no such network.

He et al., Identity Mappings in Deep Residual Networks (2016): batch norm and relu come before a convolution,
not after it. Gluon's version begins with one more batch norm, on the image. Modules bear their neutral names.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

_WIDTHS = (64, 128, 256, 512)
"""Channels of each stage's output."""


class ResNet18V2(nn.Module):
    """Images (N, 3, H, W) to logits (N, classes)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.bn0 = LeadingBatchNorm(3)
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        before = 64
        for stage, width in enumerate(_WIDTHS, start=1):
            units = (_Unit(before, width, stride=1 if stage == 1 else 2), _Unit(width, width, stride=1))
            self.add_module(f"layer{stage}", nn.Sequential(*units))
            before = width
        self.bn2 = nn.BatchNorm2d(before)
        self.final_relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # as torchvision's ResNets
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.maxpool(self.relu(self.bn1(self.conv1(self.bn0(images)))))
        values = self.layer4(self.layer3(self.layer2(self.layer1(values))))
        values = self.final_relu(self.bn2(values))
        return self.fc(values.mean(dim=(2, 3)))


class LeadingBatchNorm(nn.BatchNorm2d):
    """Batch norm on the image, with nothing to learn. As in Gluon it adds the stored shift, and keeps a scale
    in the place of which it uses 1."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)
        del self.weight, self.bias
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scale = torch.ones_like(self.weight)
        return functional.batch_norm(
            images,
            self.running_mean,
            self.running_var,
            scale,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )


class _Unit(nn.Module):
    """Two 3x3 convolutions, each after its batch norm and relu, added to the unit's input. Where the width
    changes a 1x1 convolution fits the activated input to the sum."""

    def __init__(self, before: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if before != width:
            self.downsample = nn.Conv2d(before, width, kernel_size=1, stride=stride, bias=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        activated = self.relu(self.bn1(inputs))
        residual = inputs if self.downsample is None else self.downsample(activated)
        values = self.conv2(self.relu(self.bn2(self.conv1(activated))))
        values += residual
        return values
