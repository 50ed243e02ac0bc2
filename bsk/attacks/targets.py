"""The target class of a targeted attack."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome
from bsk.errors import UsageError, nearest
from bsk.perturb.ascent import Model
from bsk.perturb.draws import ExampleDraws

RANDOM, LEAST_LIKELY = "random", "least-likely"


def named_target(target: str | int, classes: Sequence[str]) -> str | int:
    """Return RANDOM, LEAST_LIKELY or the number of a class given by name or number.

    Raises:
        UsageError: there is no such class.
    """
    if target in (RANDOM, LEAST_LIKELY):
        return target
    if target in classes:
        return list(classes).index(str(target))
    if str(target).isdecimal() and int(target) < len(classes):
        return int(target)
    said = nearest(str(target), [RANDOM, LEAST_LIKELY, *classes])
    raise UsageError(f"--target {target}: no such class; {said}")


def targets_of(
    target: str | int, classes: int, model: Model, x: Tensor, y: Tensor, draws: ExampleDraws, tally: Outcome
) -> Tensor:
    """Return the target class of each image x (N, C, H, W) with label y (N,): shape (N,).

    RANDOM draws one of the other classes from the example's own random numbers; LEAST_LIKELY takes the other class with
    the smallest logit for the clean image, which costs one forward pass; a number is the same class for all.
    """
    if target == RANDOM:
        drawn = (draws.unit(1).squeeze(1) * (classes - 1)).long()
        return drawn + (drawn >= y)
    if target == LEAST_LIKELY:
        with torch.no_grad():
            logits = model(x)
        tally.count(torch.arange(len(x), device=x.device))
        return logits.scatter(1, y[:, None], torch.inf).argmin(dim=1)
    return torch.full_like(y, int(target))


def reached(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """Return a mask (R,) of the logits (R, classes) that meet the attack's goal.

    The goal is any class but the label y (R,) or, with a target (R,), that class.
    """
    predicted = logits.detach().argmax(dim=1)
    return predicted != y if target is None else predicted == target
