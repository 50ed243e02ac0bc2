"""Networks published by others with CIFAR-10 weights; their parts keep the published names.

Source: the code of alpha-beta-CROWN (`cnn-a`, `resnet2b`) and of akamaster/pytorch_resnet_cifar10 (`resnet20`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

SHAPE = (3, 32, 32)  # the image shape of all of them


@dataclass(frozen=True)
class Published:
    """A constructor that takes the number of classes, and the normalisation the network was trained with."""

    build: Callable[[int], nn.Module]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class PlainBlock(nn.Module):
    """Two 3x3 convolutions with biases and without batch norm, added to x or to a 1x1 convolution of x."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """The first convolution has the stride."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential(*[nn.Conv2d(inputs, outputs, 1, stride)] * changes)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(branch(x) + shortcut(x))."""
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class ResNet2b(nn.Module):
    """One convolution, two residual blocks of 16 channels, two linear layers."""

    def __init__(self, classes: int) -> None:
        """Build the network for the given number of classes."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer1 = nn.Sequential(PlainBlock(8, 16, 2), PlainBlock(16, 16, 1))
        self.linear1 = nn.Linear(16 * 8 * 8, 100)
        self.linear2 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, 3, 32, 32)."""
        features = self.layer1(F.relu(self.conv1(x))).flatten(1)
        logits: Tensor = self.linear2(F.relu(self.linear1(features)))
        return logits


class PaddedBlock(nn.Module):
    """Two 3x3 convolutions with batch norm; where the shape changes, x is subsampled and padded with zero channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Use stride 2 if the number of channels grows (option A of He et al.)."""
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.padding = (outputs - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(branch(x) + shortcut(x))."""
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        thinned = x[:, :, :: self.stride, :: self.stride]
        return F.relu(branch + F.pad(thinned, (0, 0, 0, 0, self.padding, self.padding)))


class ResNet20(nn.Module):
    """The ResNet-20 of He et al. (2016) for CIFAR: three stages of three blocks, 16, 32 and 64 channels."""

    def __init__(self, classes: int) -> None:
        """Build the network for the given number of classes."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16)
        self.layer2 = _stage(16, 32)
        self.layer3 = _stage(32, 64)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, 3, 32, 32)."""
        features = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        logits: Tensor = self.linear(features.mean(dim=(2, 3)))
        return logits


def cnn_a(classes: int) -> nn.Module:
    """Return a network of two 4x4 convolutions with stride 2 and 16 and 32 channels, and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(PaddedBlock(inputs, outputs), PaddedBlock(outputs, outputs), PaddedBlock(outputs, outputs))


# The means differ in the fourth digit, as they do in the authors' code.
PUBLISHED = {
    "cnn-a": Published(cnn_a, (0.4914, 0.4824, 0.4467), (0.2471, 0.2435, 0.2616)),
    "resnet2b": Published(ResNet2b, (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "resnet20": Published(ResNet20, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
