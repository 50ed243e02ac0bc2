"""ResNets for small images, plain and wide: no max-pooling, a 3x3 first convolution of stride 1.

Sources: He et al. (2016) in the CIFAR form of the paper's code (methods: torch's default initialisation); Zagoruyko &
Komodakis (2016), pre-activation, as in the code of TRADES and of the paper, without its dead `sub_block1`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block: a branch of convolutions with batch norm, added to its input."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        """Two 3x3 convolutions; the first has the stride."""
        super().__init__()
        self.branch = nn.Sequential(
            *_convolution(inputs, width, 3, stride), nn.ReLU(inplace=True), *_convolution(width, width, 3, 1)
        )
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(branch(x) + shortcut(x))."""
        return F.relu(self.branch(x) + self.shortcut(x), inplace=True)


class Bottleneck(nn.Module):
    """A residual block of 1x1, 3x3 and 1x1 convolutions, four times as wide at its end."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        """The 3x3 convolution has the stride."""
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
    """Four stages of residual blocks, a mean over the image, a linear layer."""

    def __init__(
        self,
        block: type[Block] | type[Bottleneck],
        depths: Sequence[int],
        strides: Sequence[int],
        classes: int,
        channels: int = 3,
        width: int = 64,
    ) -> None:
        """Stages have `width` times 1, 2, 4, 8 channels; `strides` are those of their first blocks."""
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
    """Return the ResNet-18 for 32x32 images: stages of 1, 2, 4, 8 times `width`, strides 1, 2, 2, 2."""
    return ResNet(Block, (2, 2, 2, 2), (1, 2, 2, 2), classes, channels, width)


def resnet50(classes: int, channels: int, width: int = 64) -> nn.Module:
    """Return the ResNet-50 for 64x64 images: bottlenecks [3, 4, 6, 3], strides 2, 2, 2, 2."""
    return ResNet(Bottleneck, (3, 4, 6, 3), (2, 2, 2, 2), classes, channels, width)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)]


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(*_convolution(inputs, outputs, 1, stride))


class WideBlock(nn.Module):
    """relu(bn(x)) through two 3x3 convolutions, added to x, or to a 1x1 convolution where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """The first convolution has the stride."""
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output; the 1x1 shortcut starts after the first activation."""
        active = F.relu(self.norm1(x), inplace=True)
        branch = self.conv2(F.relu(self.norm2(self.conv1(active)), inplace=True))
        total: Tensor = branch + (x if self.shortcut is None else self.shortcut(active))
        return total


class WideResNet(nn.Module):
    """Three stages of (depth - 4) / 6 blocks, of 16, 32 and 64 times `width` channels, strides 1, 2, 2."""

    def __init__(self, classes: int, channels: int, depth: int, width: int) -> None:
        """Initialise convolutions by N(0, 2 / (k^2 outputs)), as the original does."""
        super().__init__()
        blocks: list[nn.Module] = []
        inputs = 16
        for outputs, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for i in range((depth - 4) // 6):
                blocks.append(WideBlock(inputs, outputs, stride if i == 0 else 1))
                inputs = outputs
        self.stem = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.linear = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # there torch loads its compiler
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, C, H, W)."""
        features = F.relu(self.norm(self.blocks(self.stem(x))), inplace=True).mean(dim=(2, 3))
        logits: Tensor = self.linear(features)
        return logits


def wide_resnet(classes: int, channels: int, depth: int = 34, width: int = 10) -> nn.Module:
    """Return WRN-depth-width, with dropout 0."""
    return WideResNet(classes, channels, depth, width)
