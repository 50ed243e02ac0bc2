"""How a network computes within a block: in eval mode, with its batch norms folded, in a precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bsk.compat import has_hooks
from bsk.models.preact import PreActResNet
from bsk.models.resnet import ResNet
from bsk.perturb.ascent import Model

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode within the block; each module gets back the mode it had."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Fold the batch norms of bsk's ResNets within the model, in eval mode, for the time of the block.

    Of these networks it is known that nothing comes between the two layers and that nobody else looks at them; other
    people's networks stay as they are, and so do layers that have hooks. Logits differ in their last bits. In the end
    the layers are back, with their parameters and statistics.
    """
    before: list[tuple[nn.Sequential, int, nn.Module]] = []
    try:
        for layers, i, conv, norm in foldable(model):
            before += [(layers, i, conv), (layers, i + 1, norm)]
            layers[i], layers[i + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity().eval()
        yield
    finally:
        for layers, i, layer in before:
            layers[i] = layer


@contextlib.contextmanager
def standing_still(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in eval mode, its batch norms folded: for perturbations, and to look at it.

    It saves passes over memory, for a copy of the weights each time.
    """
    with eval_mode(model), folded(model):
        yield


def foldable(model: nn.Module) -> list[tuple[nn.Sequential, int, nn.Conv2d, nn.BatchNorm2d]]:
    """Return each convolution of bsk's ResNets that a batch norm comes after: both, and where they are."""
    parts = [each for each in model.modules() if type(each) in (ResNet, PreActResNet)]
    places = [each for part in parts for each in part.modules() if type(each) is nn.Sequential]
    return [
        (layers, i, first, second)
        for layers in places
        for i, (first, second) in enumerate(pairwise(list(layers)))
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d) and _plain(first, second)
    ]


def _plain(*layers: nn.Module) -> bool:
    """Say if layers are torch's own, without hooks."""
    return all(type(each) in (nn.Conv2d, nn.BatchNorm2d) and not has_hooks(each) for each in layers)


def in_precision(model: Model, precision: str) -> Model:
    """Return the model with its passes in a precision of PRECISIONS; logits come back as they are."""
    if precision == "fp32":
        return model

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=PRECISIONS[precision]):
            return model(x)

    return forward
