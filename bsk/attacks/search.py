"""Search in low precision, judge in fp32: an image counts as misclassified only if the exact model says so."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome
from bsk.attacks.targets import reached
from bsk.perturb.ascent import Model


@dataclass(frozen=True)
class Search:
    """A model for attacks: `rough` answers them in low precision, and `exact` verifies each claimed misclassification.

    Both map images (N, C, H, W) to logits (N, classes) in fp32; those of `rough` need not be finite.
    """

    rough: Model
    exact: Model

    def __call__(self, x: Tensor) -> Tensor:
        """Return the rough logits (N, classes)."""
        return self.rough(x)


def misclassified(
    model: Model, tally: Outcome, owner: Tensor, x: Tensor, logits: Tensor, y: Tensor, target: Tensor | None = None
) -> Tensor:
    """Return which images x (R, C, H, W) are misclassified (R,), given their logits (R, classes).

    With a target (R,) these are the images classified as the target. For a `Search` the logits are only claims; each
    claim is verified by the exact model with one more forward pass, counted for its example in `owner`.
    """
    wrong = reached(logits, y, target)
    if not isinstance(model, Search):
        return wrong
    claims = (wrong | ~logits.detach().isfinite().all(dim=1)).nonzero().squeeze(1)
    wrong = torch.zeros_like(wrong)
    if len(claims):
        with torch.no_grad():
            wrong[claims] = reached(model.exact(x[claims]), y[claims], None if target is None else target[claims])
        tally.count(owner[claims])
    return wrong


def ended(model: Search, x: Tensor, y: Tensor, outcome: Outcome) -> Outcome:
    """Judge the final images of a search with the exact model, which may find misclassifications the rough one missed.

    x (N, C, H, W) are the clean images; examples whose image did not change are not judged again.
    """
    moved = (outcome.x_adv != x).flatten(1).any(dim=1)
    rows = (moved & ~outcome.fooled).nonzero().squeeze(1)
    fooled = outcome.fooled.clone()
    if len(rows):
        with torch.no_grad():
            target = None if outcome.target is None else outcome.target[rows]
            fooled[rows] = reached(model.exact(outcome.x_adv[rows]), y[rows], target)
        outcome.count(rows)
    return replace(outcome, fooled=fooled)
