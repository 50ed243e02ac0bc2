"""One update of the weights: a perturbation, an outer loss, a step of SGD."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.data.batches import Batch, Share
from bsk.data.processes import sum_gradients
from bsk.models.folding import standing_still
from bsk.perturb.ascent import Model
from bsk.perturb.draws import BatchDraws, generator
from bsk.perturb.later_starts import keep
from bsk.perturb.passes import counting
from bsk.training.averaging import follow
from bsk.training.awp import worst_weights
from bsk.training.methods import METHODS, Method, perturb
from bsk.training.outer import OUTER, Case, Losses
from bsk.training.schedules import Rates
from bsk.training.settings import PRECISIONS, Settings
from bsk.training.state import State


def update(state: State, settings: Settings, batch: Batch, share: Share, rates: Rates, total: int) -> None:
    """Train on one batch and add its losses to `state.sums`; `total` is of all updates that there will be.

    Source: Algorithm 1, lines 4 to 7.
    """
    method = row_in_force(state, settings).after(state.step, total)
    noise = generator(settings.seed, "noise", state.step, device=batch.x.device)
    draws = BatchDraws(noise, share.first(batch.total), batch.total)
    state.memory.updates = state.step
    for group in state.optimiser.param_groups:
        group["lr"], group["momentum"] = rates
    for replay in range(method.replays):
        losses = _replay(state, settings, method, batch, draws, share)
        if replay == 0:
            parts = (losses.total, losses.natural, losses.robust)
            state.sums += torch.stack([_sum(part, losses.total) for part in parts])
    state.step += 1


def _replay(state: State, settings: Settings, method: Method, batch: Batch, draws: BatchDraws, share: Share) -> Losses:
    """Perturb the batch, and take one step of SGD on the outer loss."""
    forward, exact = (
        counting(in_precision(state.model, precision), state.epoch_passes) for precision in (settings.precision, "fp32")
    )
    with standing_still(state.model):
        moved = perturb(method, forward, batch.x, batch.y, settings.eps, draws, state.memory)
    if method.start == "kept":
        moved.x_adv.requires_grad_()
    assert not isinstance(method.beta, str)
    case = Case(
        forward,
        exact,
        batch.x,
        batch.y,
        moved.start,
        moved.x_adv,
        method.beta,
        settings.eps,
        draws,
        settings.label_smoothing,
    )
    outer = OUTER[method.outer].loss

    def mean() -> Tensor:
        scaled: Tensor = state.scaler.scale(outer(case).total.sum() / batch.total)
        return scaled

    with worst_weights(state.model, mean, settings.awp, share):
        losses = outer(case)
        state.optimiser.zero_grad(set_to_none=True)
        state.scaler.scale(losses.total.sum() / batch.total).backward()
    if method.start == "kept":
        assert not isinstance(method.step, str)
        keep(state.memory, batch.x, moved.x_adv, method.step, moved.ball)
    sum_gradients(state.model, share)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    follow(state.average, state.model)
    return losses


RESCUE = "at"  # the row that takes over after a collapse


def row_in_force(state: State, settings: Settings) -> Method:
    """Return the method's row, or the one that rescues it."""
    if state.step < state.collapses.rescued_until:
        rescue = RESCUE
    elif settings.row.rescue is not None and state.rescue.active:
        rescue = settings.row.rescue
    else:
        return settings.row
    state.rescued_updates += 1
    return METHODS[rescue].at(settings.eps)


def in_precision(model: Model, precision: str) -> Model:
    """Return the model with its passes in that precision; logits come back as they are."""
    if precision == "fp32":
        return model

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=PRECISIONS[precision]):
            return model(x)

    return forward


def _sum(part: Tensor | None, like: Tensor) -> Tensor:
    return (like.new_zeros(()) if part is None else part.detach().sum()).double()
