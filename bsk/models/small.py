"""A small network for 8x8 digits, which trains in seconds on a CPU."""

from __future__ import annotations

import math

from torch import nn

Size = int | tuple[int, int]  # the side of square images in pixels, or height and width


def sides(size: Size) -> tuple[int, int]:
    """Return the height and width in pixels."""
    return (size, size) if isinstance(size, int) else size


def cnn(classes: int, channels: int, size: Size, width: int = 16) -> nn.Module:
    """Return a network of three 3x3 convolutions with width, 2 width and 4 width channels, and a linear layer.

    The strides are 1, 2, 2.

    Args:
        classes: the number of logits.
        channels: the number of channels of the images.
        size: the side of the images in pixels, or their height and width.
        width: the number of channels after the first convolution.
    """
    places = math.prod(-(-side // 4) for side in sides(size))
    return nn.Sequential(
        *_layer(channels, width, stride=1),
        *_layer(width, 2 * width, stride=2),
        *_layer(2 * width, 4 * width, stride=2),
        nn.Flatten(),
        nn.Linear(4 * width * places, classes),
    )


def _layer(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]
