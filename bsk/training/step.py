"""One update of the weights: a perturbation, an outer loss, a step of SGD."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.data.batches import Batch, Share
from bsk.data.processes import sum_gradients
from bsk.models.modes import eval_mode
from bsk.perturb.ascent import Model
from bsk.perturb.draws import BatchDraws, generator
from bsk.perturb.passes import counting
from bsk.training.methods import METHODS, OUTER, Method, perturb
from bsk.training.schedules import Rates
from bsk.training.settings import PRECISIONS, Settings
from bsk.training.state import State


def update(state: State, settings: Settings, batch: Batch, share: Share, rates: Rates) -> None:
    """Train on one batch and add its losses to `state.sums`.

    Source: Algorithm 1, lines 4 to 7.
    """
    forward = counting(in_precision(state.model, settings.precision), state.epoch_passes)
    method = row_in_force(state, settings)
    noise = generator(settings.seed, "noise", state.step, device=batch.x.device)
    draws = BatchDraws(noise, share.first(batch.total), batch.total)
    with eval_mode(state.model):
        x_adv = perturb(method, forward, batch.x, batch.y, settings.eps, draws)
    losses = OUTER[method.outer](forward, batch.x, x_adv, batch.y, method.beta)
    state.optimiser.zero_grad(set_to_none=True)
    state.scaler.scale(losses.total.sum() / batch.total).backward()
    sum_gradients(state.model, share)
    for group in state.optimiser.param_groups:
        group["lr"], group["momentum"] = rates
    state.scaler.step(state.optimiser)
    state.scaler.update()
    parts = (losses.total, losses.natural, losses.robust)
    state.sums += torch.stack([_sum(part, losses.total) for part in parts])
    state.step += 1


def row_in_force(state: State, settings: Settings) -> Method:
    """Return the method's row, or the one that rescues it."""
    if settings.row.rescue is None or not state.rescue.active:
        return settings.row
    state.rescued_updates += 1
    return METHODS[settings.row.rescue].at(settings.eps)


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
