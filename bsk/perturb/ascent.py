"""The sign-gradient loop shared by the inner maximisation of training and by PGD."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bsk.perturb.ball import Ball
from bsk.perturb.gradients import raw_gradient

Model = Callable[[Tensor], Tensor]
Objective = Callable[[Tensor], Tensor]


def ascend(objective: Objective, model: Model, x: Tensor, ball: Ball, step: float, steps: int) -> Tensor:
    """Return the images after `steps` iterations of x <- P(x + step * sign(grad objective(f(x)))).

    Args:
        objective: from logits (N, C) to one loss per example (N,). The losses are summed, so that each example gets its
            own gradient; a mean would only scale the gradients down, in fp16 possibly to zero.
        model: from images (N, C, H, W) in [0, 1] to logits (N, classes).
        x: the starting point, (N, C, H, W).
        ball: the set to project onto.
        step: the step size in pixel units.
        steps: the number of steps; 0 returns x.

    Source: Madry et al. (2018), projected gradient ascent under Linf.
    """
    for _ in range(steps):
        x = x.detach().requires_grad_()
        x = sign_step(objective(model(x)), x, ball, step)
    return x.detach()


def sign_step(loss: Tensor, x: Tensor, ball: Ball, step: float, keep: bool = False) -> Tensor:
    """Return P(x + step * sign(grad_x loss)) for a loss (N,) computed from x (N, C, H, W).

    With `keep` the graph of the loss is retained, so that a second backward pass is possible.
    """
    return sign_move(raw_gradient(loss, x, keep=keep), x, ball, step)


def sign_move(gradient: Tensor, x: Tensor, ball: Ball, step: float) -> Tensor:
    """Return P(x + step * sign(gradient)); `gradient` is overwritten by its sign."""
    # The ball's projection, done in place because another tensor of images would slow PGD down. The sign of NaN is 0.
    moved = torch.add(x.detach(), gradient.sign_(), alpha=step)
    return torch.clamp(moved, ball.lower, ball.upper, out=moved)
