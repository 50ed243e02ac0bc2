"""The one sign-gradient loop: of training's inner maximisation and of PGD alike."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bsk.perturb.ball import Ball
from bsk.perturb.gradients import raw_gradient

Model = Callable[[Tensor], Tensor]
Objective = Callable[[Tensor], Tensor]


def ascend(objective: Objective, model: Model, x: Tensor, ball: Ball, step: float, steps: int) -> Tensor:
    """Return the images after some steps x <- P(x + step * sign(grad objective(f(x)))).

    Args:
        objective: from logits (N, C) to a loss an example (N,). Each example's gradient is its own, so the
            sum over the batch is differentiated; a mean would only shrink it, and under fp16 to zero.
        model: from images (N, C, H, W) in [0, 1] to logits (N, classes).
        x: where to start, (N, C, H, W).
        ball: what to project on.
        step: the step size in pixel units.
        steps: how many; 0 returns x.

    Source: Madry et al. (2018), projected gradient ascent under Linf.
    """
    for _ in range(steps):
        x = x.detach().requires_grad_()
        x = sign_step(objective(model(x)), x, ball, step)
    return x.detach()


def sign_step(loss: Tensor, x: Tensor, ball: Ball, step: float, keep: bool = False) -> Tensor:
    """Return P(x + step * sign(grad_x loss)) for a loss (N,) that was computed from x (N, C, H, W).

    With `keep` the passes that led to the loss can be gone back through once more.
    """
    return sign_move(raw_gradient(loss, x, keep=keep), x, ball, step)


def sign_move(gradient: Tensor, x: Tensor, ball: Ball, step: float) -> Tensor:
    """Return P(x + step * sign(gradient)); of the gradient the sign is left."""
    # the ball's projection, in place: at PGD's pace another tensor of images is felt; the sign of NaN is 0
    moved = torch.add(x.detach(), gradient.sign_(), alpha=step)
    return torch.clamp(moved, ball.lower, ball.upper, out=moved)
