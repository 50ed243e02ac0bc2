"""One update of the weights: the method's losses on a batch, their gradient, and a step of SGD."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial

import torch
from torch import Tensor

from bsk.contract.method import BatchMemory, Losses, Validate
from bsk.contract.network import Network
from bsk.data.batches import Batch, Share
from bsk.data.processes import share_statistics, sum_gradients
from bsk.perturb.draws import BatchDraws, generator, own_randomness
from bsk.perturb.gradients import differentiating
from bsk.training.averaging import follow
from bsk.training.awp import worst_weights
from bsk.training.bound import Bound, UpdateContext, bind
from bsk.training.schedules import Rates
from bsk.training.settings import Settings
from bsk.training.state import State

RESCUE = "at"  # the method that takes over after a collapse


def update(
    state: State,
    settings: Settings,
    batch: Batch,
    share: Share,
    rates: Rates,
    total: int,
    epoch: int = 0,
    validate: Validate = lambda attack, turn: 1.0,
) -> None:
    """Train on one batch and add its losses to `state.sums`; `total` is the number of updates of the whole training.

    The random numbers depend only on the seed and the update, however the batch is shared.
    Source: Algorithm 1, lines 4 to 7.
    """
    method = method_in_force(state, settings)
    if state.compiled is not None:
        state.compiled.begin()
    state.noise = generator(settings.seed, "noise", state.step, device=batch.x.device, again=state.noise)
    draws = BatchDraws(state.noise, share.first(batch.total), batch.total)
    for group in state.optimiser.param_groups:
        group["lr"], group["momentum"] = rates

    def losses_of(net: Network, memory: BatchMemory, known: Validate) -> Losses:
        context = UpdateContext(memory, state.step, epoch, (state.step + 1) / total, known)
        return method(net, batch.x, batch.y, draws, context)

    key = (settings.seed, "network", state.step, share.rank)  # a user's code may draw random numbers, as dropout does
    with own_randomness(batch.x.device, *key) if settings.plugin else nullcontext():
        for replay in range(method.replays):
            known = cache(validate)  # AWP calls the method twice, and only the first time at the weights themselves
            losses = _descend(state, settings, batch, draws, share, partial(losses_of, known=known))
            if replay == 0:
                parts = (losses.total, losses.natural, losses.robust)
                state.sums += torch.stack([_sum(part, state.sums) for part in parts])
    state.step += 1


def _descend(
    state: State,
    settings: Settings,
    batch: Batch,
    draws: BatchDraws,
    share: Share,
    losses_of: Callable[[Network, BatchMemory], Losses],
) -> Losses:
    """Take one step of SGD on the mean of the method's losses."""
    precision, smoothing = settings.precision, settings.label_smoothing
    net = Network(state.model, precision, state.epoch_passes, smoothing, compiled=state.compiled)

    def run() -> tuple[Losses, BatchMemory, Tensor]:
        memory = state.memory.batch(batch.rows)
        losses = losses_of(net, memory)
        scaled: Tensor = state.scaler.scale(losses.total.sum() / batch.total)
        return losses, memory, scaled

    with net.scope, worst_weights(net, lambda: run()[2], draws, settings.awp, share):
        losses, memory, loss = run()
        state.optimiser.zero_grad(set_to_none=True)
        with differentiating(), settings.bound.guard():  # hooks of a plugin method run here
            loss.backward()
    with settings.bound.guard():
        memory.commit()
    sum_gradients(state.model, share)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    share_statistics(state.model, share)
    follow(state.average, state.model)
    return losses


def method_in_force(state: State, settings: Settings) -> Bound:
    """Return the method, or the one that takes over after a collapse."""
    if state.step >= state.collapses.rescued_until:
        return settings.bound
    logged = state.memory.logged
    state.memory.logged = {**logged, "rescued_updates": logged.get("rescued_updates", 0) + 1}
    return bind(RESCUE, settings.eps)


def _sum(part: Tensor | None, like: Tensor) -> Tensor:
    return (like.new_zeros(()) if part is None else part.detach().sum()).to(like.dtype)  # MPS has no fp64
