"""Wide ResNets for small images: activations before the convolutions, three stages, a 3x3 first convolution.

Sources: Zagoruyko & Komodakis (2016) as in the code of TRADES and of the paper, without its dead `sub_block1`; with
SiLU, Gowal et al. (2020) as in the code of DeepMind and of RobustBench.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


class EndPadded(nn.Conv2d):
    """A 3x3 convolution of stride 2 with a row and a column of zeros after the image alone, where its sides are even.

    It is what `SAME` means to JAX and TensorFlow; an odd side has a zero at both ends. torch's own padding is on all
    four sides.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H / 2, W / 2), rounded up, of x (N, inputs, H, W)."""
        height, width = x.shape[2:]
        return super().forward(F.pad(x, (width % 2, 1, height % 2, 1)))


def convolution(inputs: int, outputs: int, kernel: int, stride: int, end_padded: bool) -> nn.Conv2d:
    """Return a convolution without bias that keeps the sides, or halves them; `end_padded` says how it does that."""
    if end_padded and (kernel, stride) == (3, 2):
        return EndPadded(inputs, outputs, kernel, stride, bias=False)
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def activation(silu: bool) -> nn.Module:
    """Return SiLU, x times its sigmoid, or ReLU."""
    return nn.SiLU() if silu else nn.ReLU(inplace=True)


class WideBlock(nn.Module):
    """The activated bn(x) through two 3x3 convolutions, added to x, or to a 1x1 convolution where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int, silu: bool) -> None:
        """The first convolution has the stride."""
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = convolution(inputs, outputs, 3, stride, end_padded=silu)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None
        self.activation = activation(silu)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output; the 1x1 shortcut starts after the first activation."""
        active = self.activation(self.norm1(x))
        branch = self.conv2(self.activation(self.norm2(self.conv1(active))))
        total: Tensor = branch + (x if self.shortcut is None else self.shortcut(active))
        return total


class WideResNet(nn.Module):
    """Three stages of (depth - 4) / 6 blocks, of 16, 32 and 64 times `width` channels, strides 1, 2, 2."""

    def __init__(self, classes: int, channels: int, depth: int, width: int, silu: bool) -> None:
        """With ReLU initialise convolutions by N(0, 2 / (k^2 outputs)), as the original does; else as torch does."""
        super().__init__()
        blocks: list[nn.Module] = []
        inputs = 16
        for outputs, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for i in range((depth - 4) // 6):
                blocks.append(WideBlock(inputs, outputs, stride if i == 0 else 1, silu))
                inputs = outputs
        self.stem = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.activation = activation(silu)
        self.linear = nn.Linear(inputs, classes)
        if not silu:
            self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # there torch loads its compiler
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, C, H, W)."""
        features = self.activation(self.norm(self.blocks(self.stem(x)))).mean(dim=(2, 3))
        logits: Tensor = self.linear(features)
        return logits


def wide_resnet(classes: int, channels: int, depth: int = 34, width: int = 10, silu: bool = False) -> nn.Module:
    """Return WRN-depth-width, with dropout 0; `silu` makes it DeepMind's, in activation, padding and first weights."""
    return WideResNet(classes, channels, depth, width, silu)
