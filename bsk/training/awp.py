"""Adversarial weight perturbation: the loss is descended at weights where it is higher."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bsk.contract.network import Network
from bsk.data.batches import Share
from bsk.data.processes import sum_over_processes
from bsk.perturb.ascent import Model
from bsk.perturb.draws import BatchDraws

_TINY = 1e-20  # keeps 0 / 0 from being NaN. Source: the authors' code


@contextlib.contextmanager
def worst_weights(
    net: Network, loss: Callable[[], Tensor], draws: BatchDraws, gamma: float, share: Share
) -> Iterator[None]:
    """Within the block each weight tensor w of two dimensions or more is w + gamma |w| g / |g|, g the loss's gradient.

    Afterwards the weights are the same again, to the bit; the gradient that was taken in the block is left. `loss()` is
    run once, with batch norm as in training, whose running statistics it leaves alone. Run again in the block, it draws
    the same numbers and meets the same perturbation: what the network said then in eval mode, it says again, without a
    pass. gamma 0 does nothing.

    Source: Wu, Xia & Wang (2020), "Adversarial weight perturbation helps robust generalization", gamma 0.005. In their
    code the weights go back after the optimiser's step, here before, so that weight decay sees the real ones.
    """
    if gamma == 0:
        yield
        return
    weights = [each for each in net.module.parameters() if each.dim() > 1 and each.requires_grad]
    tape, random = _Tape(), draws.generator.get_state()
    net.through = tape.recording
    with still_statistics(net.module):
        gradients = torch.autograd.grad(loss(), weights)
    net.through = tape.playing
    draws.generator.set_state(random)
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            g = sum_over_processes(gradient, share)
            away = gamma * weight.norm() / (g.norm() + _TINY) * g
            weight.add_(away if bool(away.isfinite().all()) else torch.zeros_like(away))
    try:
        yield
    finally:
        net.through = None
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)


@dataclass
class _Pass:
    """A pass to perturb: the logits (N, classes), and the gradient (N, C, H, W) that came back to the images."""

    logits: Tensor | None = None
    gradient: Tensor | None = None


@dataclass
class _Tape:
    """The passes to perturb of one run of a method, in their order."""

    passes: list[_Pass] = field(default_factory=list)

    def recording(self, model: Model) -> Model:
        """Return the model with its passes recorded."""

        def forward(x: Tensor) -> Tensor:
            self.passes.append(_Pass())
            logits = model(_Record.apply(x, self.passes[-1]))
            self.passes[-1].logits = logits.detach()
            return logits

        return forward

    def playing(self, model: Model) -> Model:
        """Return a model that says what was recorded."""
        return lambda x: _Play.apply(x, self.passes.pop(0))


class _Record(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, made: _Pass) -> Tensor:
        ctx.made = made
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.made.gradient = gradient
        return gradient, None


class _Play(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, made: _Pass) -> Tensor:
        assert made.logits is not None
        ctx.made = made
        return made.logits.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        return ctx.made.gradient, None


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
