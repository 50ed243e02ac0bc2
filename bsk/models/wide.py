"""Wide ResNets for small images: pre-activation blocks, three stages, a 3x3 first convolution.

Sources: Zagoruyko & Komodakis (2016) as in the code of TRADES and of the paper, without its dead `sub_block1`; with
SiLU, Gowal et al. (2020) as in the code of DeepMind and of RobustBench.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


class EndPadded(nn.Conv2d):
    """A 3x3 convolution with stride 2 that pads even sides with zeros at the end only.

    This is what `SAME` means in JAX and TensorFlow; odd sides are padded at both ends. torch's own padding always has
    zeros on all four sides.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (N, outputs, H / 2, W / 2), rounded up, for x (N, inputs, H, W)."""
        height, width = x.shape[2:]
        return super().forward(F.pad(x, (width % 2, 1, height % 2, 1)))


def convolution(inputs: int, outputs: int, kernel: int, stride: int, end_padded: bool) -> nn.Conv2d:
    """Return a convolution without bias that keeps or halves the sides, with padding at the end if `end_padded`."""
    if end_padded and (kernel, stride) == (3, 2):
        return EndPadded(inputs, outputs, kernel, stride, bias=False)
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def activation(silu: bool) -> nn.Module:
    """Return SiLU (x times sigmoid(x)) or ReLU."""
    return nn.SiLU() if silu else nn.ReLU(inplace=True)


class WideBlock(nn.Module):
    """Activated bn(x) through two 3x3 convolutions, added to x, or to its 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, silu: bool) -> None:
        """Build the block; the first convolution has the stride."""
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = convolution(inputs, outputs, 3, stride, end_padded=silu)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None
        self.activation = activation(silu)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the block; the 1x1 shortcut takes the input after the first activation."""
        active = self.activation(self.norm1(x))
        branch = self.conv2(self.activation(self.norm2(self.conv1(active))))
        total: Tensor = branch + (x if self.shortcut is None else self.shortcut(active))
        return total


class WideResNet(nn.Module):
    """Three stages of (depth - 4) / 6 blocks with 16, 32 and 64 times `width` channels and strides 1, 2, 2."""

    def __init__(self, classes: int, channels: int, depth: int, width: int, silu: bool) -> None:
        """Build the network; with ReLU convolutions are drawn from N(0, 2 / (k^2 outputs)), as in the original."""
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
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # on meta torch would load its compiler
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, C, H, W)."""
        features = self.activation(self.norm(self.blocks(self.stem(x)))).mean(dim=(2, 3))
        logits: Tensor = self.linear(features)
        return logits


def wide_resnet(classes: int, channels: int, depth: int = 34, width: int = 10, silu: bool = False) -> nn.Module:
    """Return WRN-depth-width without dropout; `silu` gives DeepMind's activation, padding and initialisation."""
    return WideResNet(classes, channels, depth, width, silu)
