"""ResNets for small images: no max-pooling, a 3x3 first convolution with stride 1, activations after the sums.

Sources: He et al. (2016) in the CIFAR form of the paper's code, with torch's default initialisation; the strides of
`resnet50_kuangliu` are those of kuangliu/pytorch-cifar and of RobustBench's `Engstrom2019Robustness`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}  # number of blocks in the four stages


class Block(nn.Module):
    """A residual block: a branch of convolutions with batch norm, added to its input."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        """Build two 3x3 convolutions; the first has the stride."""
        super().__init__()
        self.branch = nn.Sequential(
            *_convolution(inputs, width, 3, stride), nn.ReLU(inplace=True), *_convolution(width, width, 3, 1)
        )
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(branch(x) + shortcut(x))."""
        return F.relu(self.branch(x) + self.shortcut(x), inplace=True)


class Bottleneck(nn.Module):
    """A residual block of 1x1, 3x3 and 1x1 convolutions, the last one four times as wide."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        """Build the block; the 3x3 convolution has the stride."""
        super().__init__()
        outputs = self.expansion * width
        self.branch = nn.Sequential(
            *_convolution(inputs, width, 1, 1),
            nn.ReLU(inplace=True),
            *_convolution(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *_convolution(width, outputs, 1, 1),
        )
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(branch(x) + shortcut(x))."""
        return F.relu(self.branch(x) + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """Four stages of residual blocks, global average pooling, and a linear layer."""

    def __init__(
        self,
        block: type[Block] | type[Bottleneck],
        depths: Sequence[int],
        strides: Sequence[int],
        classes: int,
        channels: int = 3,
        width: int = 64,
    ) -> None:
        """Build stages with `width` times 1, 2, 4, 8 channels; `strides` are those of their first blocks."""
        super().__init__()
        self.stem = nn.Sequential(*_convolution(channels, width, 3, 1), nn.ReLU(inplace=True))
        blocks: list[nn.Module] = []
        inputs = width
        for stage, (depth, stride) in enumerate(zip(depths, strides, strict=True)):
            for i in range(depth):
                blocks.append(block(inputs, width << stage, stride if i == 0 else 1))
                inputs = (width << stage) * block.expansion
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, C, H, W)."""
        features = self.blocks(self.stem(x)).mean(dim=(2, 3))
        logits: Tensor = self.linear(features)
        return logits


def resnet18(classes: int, channels: int, width: int = 64) -> nn.Module:
    """Return the ResNet-18 for 32x32 images: stages with 1, 2, 4, 8 times `width` channels, strides 1, 2, 2, 2."""
    return ResNet(Block, DEPTHS[18], (1, 2, 2, 2), classes, channels, width)


def resnet50(classes: int, channels: int, width: int = 64) -> nn.Module:
    """Return the ResNet-50 for 64x64 images: bottlenecks [3, 4, 6, 3], strides 2, 2, 2, 2."""
    return ResNet(Bottleneck, DEPTHS[50], (2, 2, 2, 2), classes, channels, width)


def resnet50_kuangliu(classes: int, channels: int, width: int = 64) -> nn.Module:
    """Return the ResNet-50 for 32x32 images: bottlenecks [3, 4, 6, 3], strides 1, 2, 2, 2."""
    return ResNet(Bottleneck, DEPTHS[50], (1, 2, 2, 2), classes, channels, width)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)]


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(*_convolution(inputs, outputs, 1, stride))
