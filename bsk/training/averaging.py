"""The moving average of the weights: a second network, evaluated and saved beside the trained one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bsk.plugins import outside


def average_of(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return the moving average of a model's weights and batch-norm statistics, or None if the decay is 0.

    Integers and booleans are copied: torch would average and truncate them, which moves a network's indices. The first
    update copies the weights. After t updates average <- tau average + (1 - tau) weights with tau =
    min(decay, (1 + t) / (10 + t)), so that the first weights are soon forgotten.

    Source: Polyak & Juditsky (1992); the warm-up as in Gowal et al. (2020), whose models are listed by RobustBench.
    """
    if decay == 0:
        return None

    def approach(averages: Sequence[Tensor], weights: Sequence[Tensor], updates: Tensor | int) -> None:
        if not (averages[0].is_floating_point() or averages[0].is_complex()):  # all of a call have the same type
            for own, current in zip(averages, weights, strict=True):
                own.copy_(current)
            return
        t = int(average.n_averaged)  # on the CPU, where `updates` may be on the device
        get_ema_multi_avg_fn(min(decay, (1 + t) / (10 + t)))(averages, weights, updates)

    with outside("--ema", "the network cannot be copied; leave --ema out"):
        average = AveragedModel(model, multi_avg_fn=approach, use_buffers=True)
    return average


def follow(average: AveragedModel | None, model: nn.Module) -> None:
    """Update the average with the current weights."""
    if average is not None:
        with torch.no_grad():
            average.update_parameters(model)
