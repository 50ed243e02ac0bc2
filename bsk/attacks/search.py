"""Searching in low precision, judging in fp32: no image counts as misclassified but by the exact model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome
from bsk.attacks.targets import reached
from bsk.perturb.ascent import Model


@dataclass(frozen=True)
class Search:
    """A model for attacks: `rough` answers them, in low precision; `exact` judges each claim of a misclassification.

    Both are from images (N, C, H, W) to logits (N, classes) in fp32; those of `rough` need not be finite.
    """

    rough: Model
    exact: Model

    def __call__(self, x: Tensor) -> Tensor:
        """Return the rough logits (N, classes)."""
        return self.rough(x)


def misclassified(
    model: Model, tally: Outcome, owner: Tensor, x: Tensor, logits: Tensor, y: Tensor, target: Tensor | None = None
) -> Tensor:
    """Return which images x (R, C, H, W) are misclassified (R,), by the logits (R, classes) that the model gave.

    With a target (R,) it is those classified as that. Of a `Search` these are claims. Each is judged by the exact
    model, one more forward pass of its example in `owner`.
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
    """Judge the images that a search ended at: what the rough model missed there is found for one pass.

    x (N, C, H, W) are the images as they were; an example that ended at its own is not judged again.
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
