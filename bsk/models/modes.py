"""Context managers and wrappers for eval mode, folded batch norms and precision."""

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
HALF = {torch.float16, torch.bfloat16}


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode within the block; afterwards each module gets its mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Fold the batch norms of bsk's ResNets in a model that is in eval mode, within the block.

    In these networks nothing comes between the two layers and nobody else uses them; networks of others stay unchanged,
    and so do layers with hooks. The logits differ in the last bits. Afterwards the original layers, with their
    parameters and statistics, are restored.
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
def folded_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode with folded batch norms within the block: for perturbations and evaluation.

    Folding saves memory traffic in every pass, at the cost of one copy of the weights.
    """
    with eval_mode(model), folded(model):
        yield


def foldable(model: nn.Module) -> list[tuple[nn.Sequential, int, nn.Conv2d, nn.BatchNorm2d]]:
    """Return each convolution of bsk's ResNets that is followed by a batch norm: both layers and their position."""
    parts = [each for each in model.modules() if type(each) in (ResNet, PreActResNet)]
    places = [each for part in parts for each in part.modules() if type(each) is nn.Sequential]
    return [
        (layers, i, first, second)
        for layers in places
        for i, (first, second) in enumerate(pairwise(list(layers)))
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d) and _plain(first, second)
    ]


def _plain(*layers: nn.Module) -> bool:
    """Return whether the layers are torch's own and have no hooks."""
    return all(type(each) in (nn.Conv2d, nn.BatchNorm2d) and not has_hooks(each) for each in layers)


def in_precision(model: Model, precision: str) -> Model:
    """Return the model with its passes in a precision of PRECISIONS; its logits are fp32, or fp64 if its own are.

    Losses of half-precision logits lose their small terms, and autocast would hide it: on a CPU its `log_softmax` stays
    in half precision and its `kl_div` returns fp32 (`findings/torch_cpu_autocast_log_softmax.sh`).

    Weights are cast in each pass: autocast's cache would give those from before an update to a pass after it, if the
    caller has an autocast region of its own around both.
    """

    def forward(x: Tensor) -> Tensor:
        if precision == "fp32":
            logits = model(x)
        else:
            with torch.autocast(x.device.type, dtype=PRECISIONS[precision], cache_enabled=False):
                logits = model(x)
        half = isinstance(logits, Tensor) and logits.dtype in HALF  # what is no tensor is refused later
        return logits.float() if half else logits

    return forward
