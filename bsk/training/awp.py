"""Adversarial weight perturbation: the loss is descended at weights where it is higher."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from bsk.data.batches import Share
from bsk.data.processes import sum_over_processes

_TINY = 1e-20  # keeps 0 / 0 from being NaN. Source: the authors' code


@contextlib.contextmanager
def worst_weights(model: nn.Module, loss: Callable[[], Tensor], gamma: float, share: Share) -> Iterator[None]:
    """Within the block each weight tensor w of two dimensions or more is w + gamma |w| g / |g|, g the loss's gradient.

    Afterwards the weights are the same again, to the bit; the gradient that was taken in the block is left. `loss()` is
    run once, with batch norm as in training, whose running statistics it leaves alone. gamma 0 does nothing.

    Source: Wu, Xia & Wang (2020), "Adversarial weight perturbation helps robust generalization", gamma 0.005. In their
    code the weights go back after the optimiser's step, here before, so that weight decay sees the real ones.
    """
    if gamma == 0:
        yield
        return
    weights = [each for each in model.parameters() if each.dim() > 1 and each.requires_grad]
    with still_statistics(model):
        gradients = torch.autograd.grad(loss(), weights)
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            g = sum_over_processes(gradient, share)
            away = gamma * weight.norm() / (g.norm() + _TINY) * g
            weight.add_(away if bool(away.isfinite().all()) else torch.zeros_like(away))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)


@contextlib.contextmanager
def still_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch norms normalise by the batch within the block, and leave their running statistics as they are."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    tracking = [each for each in model.modules() if isinstance(each, kinds) and each.track_running_stats]
    for each in tracking:
        each.track_running_stats = False
    try:
        yield
    finally:
        for each in tracking:
            each.track_running_stats = True
