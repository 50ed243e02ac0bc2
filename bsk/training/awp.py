"""Adversarial weight perturbation: the gradient is taken at perturbed weights with a higher loss."""

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
from bsk.perturb.draws import BatchDraws, kept_randomness
from bsk.perturb.gradients import differentiating

_TINY = 1e-20  # keeps 0 / 0 from being NaN. Source: the authors' code


@contextlib.contextmanager
def worst_weights(
    net: Network, loss: Callable[[], Tensor], draws: BatchDraws, gamma: float, share: Share
) -> Iterator[None]:
    """Replace each weight tensor w with at least two dimensions by w + gamma |w| g / |g| within the block.

    g is the gradient of the loss. Afterwards the weights are restored exactly; gradients computed in the block remain.
    `loss()` is called once, with batch norm as in training but without updating its running statistics. When it is
    called again in the block, it draws the same random numbers and obtains the same perturbation: the passes in eval
    mode are replayed instead of computed. With gamma 0 nothing is changed.

    Source: Wu, Xia & Wang (2020), "Adversarial weight perturbation helps robust generalization", gamma 0.005 in their
    script of TRADES, and 0.01 in that of AT. The former begins after 10 of 200 epochs, here from the first update. In
    their code the weights are restored after the optimiser's step, here before it, so that weight decay applies to the
    real weights.
    """
    if gamma == 0:
        yield
        return
    weights = [each for each in net.module.parameters() if each.dim() > 1 and each.requires_grad]
    tape, own = _Tape(), draws.generator.get_state()
    net.through = tape.recording
    with still_statistics(net.module), kept_randomness(draws.generator.device):
        found = loss()
        with differentiating():
            gradients = torch.autograd.grad(found, weights, materialize_grads=True)  # 0 for weights without influence
    net.through = tape.playing
    draws.generator.set_state(own)
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            g = sum_over_processes(gradient, share)
            away = gamma * weight.norm() / (g.norm() + _TINY) * g
            weight.add_(torch.where(away.isfinite().all(), away, 0))  # decided on the device, which nobody waits for
    try:
        yield
    finally:
        net.through = None
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)


@dataclass
class _Pass:
    """A pass in eval mode: the logits (N, classes), and the gradient (N, C, H, W) with respect to the images."""

    logits: Tensor | None = None
    gradient: Tensor | None = None


@dataclass
class _Tape:
    """The passes in eval mode of one call of a method, in order."""

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
        """Return a model that replays the recorded passes."""
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
    """Normalise by batch statistics within the block without updating the running statistics of batch norm."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    tracking = [each for each in model.modules() if isinstance(each, kinds) and each.track_running_stats]
    for each in tracking:
        each.track_running_stats = False
    try:
        yield
    finally:
        for each in tracking:
            each.track_running_stats = True
