"""Models by name: the paper's, and the same ones at any width."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import nn

from bsk.errors import UsageError, nearest
from bsk.models.normalised import Normalised
from bsk.models.resnet import resnet18, resnet50
from bsk.models.size import Size
from bsk.models.small import cnn
from bsk.models.wide_resnet import wide_resnet

MODELS = ["resnet18", "resnet50", "wrn-34-10", "cnn", "resnet18-16"]
_WIDTHS: dict[str, Callable[..., nn.Module]] = {"resnet18": resnet18, "resnet50": resnet50, "cnn": cnn}
_DEPTH = 130  # of a wide ResNet, at most: a name out of a file is not to make modules without end


def network(name: str, classes: int, channels: int, size: Size) -> nn.Module:
    """Return a new network by its name, with torch's global random state deciding its weights.

    `resnet18-W`, `resnet50-W` and `cnn-W` have width W instead of 64, 64 and 16; `wrn-D-W` is of any depth
    and width.

    Args:
        name: for example resnet18, resnet18-16, wrn-34-10.
        classes: the number of logits.
        channels: of the images.
        size: the side of the images in pixels, or their height and width.

    Raises:
        UsageError: there is no such model.
    """
    if match := re.fullmatch(r"wrn-(\d{1,4})-(\d{1,4})", name):
        depth, width = int(match[1]), int(match[2])
        if 10 <= depth <= _DEPTH and (depth - 4) % 6 == 0 and width >= 1:
            return wide_resnet(classes, channels, size, depth, width)
        expected = f"depth 6n + 4 up to {_DEPTH} and width >= 1, as wrn-34-10 has"
        raise UsageError(f"--model {name}: a wide ResNet has {expected}")
    base, dash, width_text = name.partition("-")
    if base not in _WIDTHS or (dash and not re.fullmatch(r"[1-9]\d{0,3}", width_text)):
        raise UsageError(f"--model {name}: no such model; {nearest(name, MODELS)}")
    return _WIDTHS[base](classes, channels, size, **({"width": int(width_text)} if dash else {}))


def build(
    name: str,
    *,
    classes: int,
    channels: int,
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int = 0,
    device: torch.device | None = None,
) -> Normalised:
    """Return a new model with its normalisation, channels last, on the device.

    Its weights are drawn from `seed` on the CPU, the same for every device; the global random state is kept.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Normalised(network(name, classes, channels, size), mean, std)
    return model.to(device).to(memory_format=torch.channels_last)
