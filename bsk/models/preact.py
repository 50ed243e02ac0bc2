"""Pre-activation ResNets for small images, in the variants used in the literature on adversarial training.

Batch norm and activation precede each convolution, and nothing follows the sum (He et al. 2016, "Identity mappings").
The variants have the same parameters but compute different functions. Sources: the code of Rice et al. (2020),
`PreActBlockV2` with `bn_before_fc` in RobustBench; of kuangliu/pytorch-cifar; of Wong et al. (2020) and Andriushchenko
& Flammarion (2020), `PreActBlock` in RobustBench; of DeepMind, `DMPreActResNet` in RobustBench.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from bsk.models.resnet import DEPTHS
from bsk.models.wide import activation, convolution


@dataclass(frozen=True)
class Form:
    """How a variant differs.

    Attributes:
        raw: the shortcut's convolution takes the block's input directly, not after batch norm and activation.
        last_norm: batch norm and activation precede the global average pooling.
        deepmind: SiLU instead of ReLU, 3x3 shortcuts instead of 1x1, and padding at the end only for stride 2.
    """

    raw: bool = False
    last_norm: bool = True
    deepmind: bool = False


FORMS = {
    "": Form(),
    "kuangliu": Form(last_norm=False),
    "wong": Form(raw=True, last_norm=False),
    "silu": Form(raw=True, deepmind=True),
}


class PreActBlock(nn.Module):
    """A branch of convolutions, each after batch norm and activation, added to x or to a convolution of x.

    `kernels` are the kernel sizes of the branch; the first 3x3 convolution has the stride. All convolutions have
    `width` output channels, the last one `expansion` times as many.
    """

    kernels: tuple[int, ...] = (3, 3)
    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, form: Form) -> None:
        """Build the block in one of the FORMS."""
        super().__init__()
        self.raw, silu = form.raw, form.deepmind
        self.start = nn.Sequential(nn.BatchNorm2d(inputs), activation(silu))
        layers: list[nn.Module] = []
        channels, outputs = inputs, width * self.expansion
        for i, kernel in enumerate(self.kernels):
            after = outputs if i == len(self.kernels) - 1 else width
            own = stride if i == self.kernels.index(3) else 1
            layers += [nn.BatchNorm2d(channels), activation(silu)] if i else []
            layers += [convolution(channels, after, kernel, own, end_padded=silu)]
            channels = after
        self.branch = nn.Sequential(*layers)
        changes = stride != 1 or inputs != outputs
        kernel = 3 if form.deepmind else 1
        self.shortcut = convolution(inputs, outputs, kernel, stride, end_padded=silu) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Return branch(x) + shortcut(x)."""
        active = self.start(x)
        total: Tensor = self.branch(active) + (x if self.shortcut is None else self.shortcut(x if self.raw else active))
        return total


class PreActBottleneck(PreActBlock):
    """The same with 1x1, 3x3 and 1x1 convolutions, the last one four times as wide."""

    kernels = (1, 3, 1)
    expansion = 4


class PreActResNet(nn.Module):
    """A 3x3 convolution, four stages of blocks with strides 1, 2, 2, 2, global average pooling, and a linear layer."""

    def __init__(
        self, block: type[PreActBlock], depths: Sequence[int], classes: int, channels: int, width: int, form: Form
    ) -> None:
        """Build stages with `width` times 1, 2, 4, 8 channels."""
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        blocks: list[nn.Module] = []
        inputs = width
        for stage, depth in enumerate(depths):
            for i in range(depth):
                blocks.append(block(inputs, width << stage, 2 if stage and i == 0 else 1, form))
                inputs = (width << stage) * block.expansion
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs) if form.last_norm else None
        self.activation = activation(form.deepmind)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, C, H, W)."""
        features = self.blocks(self.stem(x))
        if self.norm is not None:
            features = self.activation(self.norm(features))
        logits: Tensor = self.linear(features.mean(dim=(2, 3)))
        return logits


def preact_resnet18(classes: int, channels: int, width: int = 64, form: str = "") -> nn.Module:
    """Return the pre-activation ResNet-18 in one of the FORMS."""
    return PreActResNet(PreActBlock, DEPTHS[18], classes, channels, width, FORMS[form])


def preact_resnet50(classes: int, channels: int, width: int = 64, form: str = "") -> nn.Module:
    """Return the pre-activation ResNet-50 in one of the FORMS."""
    return PreActResNet(PreActBottleneck, DEPTHS[50], classes, channels, width, FORMS[form])


# By name without width; the other two variants of ResNet-50 have not been published.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "preact-resnet18": preact_resnet18,
    "preact-resnet18-kuangliu": partial(preact_resnet18, form="kuangliu"),
    "preact-resnet18-wong": partial(preact_resnet18, form="wong"),
    "preact-resnet18-silu": partial(preact_resnet18, form="silu"),
    "preact-resnet50": preact_resnet50,
    "preact-resnet50-kuangliu": partial(preact_resnet50, form="kuangliu"),
}
