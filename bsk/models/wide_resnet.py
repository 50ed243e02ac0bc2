"""Wide ResNets, pre-activation, for 32x32 images.

Source: Zagoruyko & Komodakis (2016) as in the code of TRADES and of the paper, without its dead `sub_block1`.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from bsk.models.size import Size


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
            if (
                isinstance(module, nn.Conv2d) and not module.weight.is_meta
            ):  # there torch loads its compiler to draw them
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, C, H, W)."""
        features = F.relu(self.norm(self.blocks(self.stem(x))), inplace=True).mean(dim=(2, 3))
        logits: Tensor = self.linear(features)
        return logits


def wide_resnet(classes: int, channels: int, size: Size, depth: int = 34, width: int = 10) -> nn.Module:
    """Return WRN-depth-width, with dropout 0."""
    return WideResNet(classes, channels, depth, width)
