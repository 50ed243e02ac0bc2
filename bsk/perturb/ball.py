"""The eps-balls: all images x' in [0, 1] within distance eps of x in the Linf, L2 or L1 norm."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bsk.perturb.draws import Draws
from bsk.perturb.gradients import magnified

_TINY = 1e-12  # keeps 0 / 0 from being NaN. Source: the reference of AutoAttack
_PRECISION = 10  # tolerance in machine epsilons relative to the radius; smaller differences are rounding noise
_HALVINGS = 64  # maximum number of iterations; a dozen are enough in practice


class Region(Protocol):
    """The set in which the perturbed images of a batch must stay, with its projection and steepest direction."""

    def project(self, x: Tensor) -> Tensor:
        """Return the projection of points x (N, C, H, W) onto the region."""

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the unit-length direction in which the loss rises fastest."""

    def sample(self, draws: Draws) -> Tensor:
        """Return a random point on the surface of the ball, clipped to [0, 1]."""

    def keep(self, rows: Tensor) -> Region:
        """Return the regions of the selected images."""


class Ball(NamedTuple):
    """The intersection of the Linf ball around each image with [0, 1], which is itself a box.

    Both bounds have the shape of the images (N, C, H, W) and values in [0, 1].
    """

    lower: Tensor
    upper: Tensor

    def project(self, x: Tensor) -> Tensor:
        """Return the point of the ball nearest to x: for a box, an elementwise clamp."""
        return torch.clamp(x, self.lower, self.upper)

    def keep(self, rows: Tensor) -> Ball:
        """Return the balls of the selected images."""
        return Ball(self.lower[rows], self.upper[rows])


class Linf(NamedTuple):
    """The Linf ball of radius eps around images x (N, C, H, W)."""

    x: Tensor
    eps: float
    ball: Ball

    def project(self, x: Tensor) -> Tensor:
        """Return the nearest point in both the ball and [0, 1]."""
        return self.ball.project(x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the sign of the gradient."""
        return gradient.sign()

    def sample(self, draws: Draws) -> Tensor:
        """Return x + eps t / max|t| with t ~ U(-1, 1), clipped to [0, 1]."""
        t = draws.uniform(self.x)
        return torch.addcmul(self.x, t, self.eps / (per_image(length(t, "linf"), t) + _TINY)).clamp_(0.0, 1.0)

    def keep(self, rows: Tensor) -> Linf:
        """Return the balls of the selected images."""
        return Linf(self.x[rows], self.eps, self.ball.keep(rows))


class L2(NamedTuple):
    """The L2 ball of radius eps around images x (N, C, H, W)."""

    x: Tensor
    eps: float

    def project(self, x: Tensor) -> Tensor:
        """Return x scaled back into the ball and then clipped to [0, 1], as the reference of AutoAttack does."""
        away = x - self.x
        far = length(away, "l2")
        return torch.addcmul(self.x, away, per_image(far.clamp(max=self.eps) / (far + _TINY), away)).clamp_(0.0, 1.0)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the gradient divided by its L2 norm, however small that is."""
        gradient = magnified(gradient)
        return gradient / (per_image(length(gradient, "l2"), gradient) + _TINY)

    def sample(self, draws: Draws) -> Tensor:
        """Return x + eps t / |t| with t ~ N(0, 1), clipped to [0, 1]."""
        return torch.add(self.x, self.steepest(draws.gaussian(self.x)), alpha=self.eps).clamp_(0.0, 1.0)

    def keep(self, rows: Tensor) -> L2:
        """Return the balls of the selected images."""
        return L2(self.x[rows], self.eps)


class L1(NamedTuple):
    """The L1 ball of radius eps around images x (N, C, H, W)."""

    x: Tensor
    eps: float

    def project(self, x: Tensor) -> Tensor:
        """Return the nearest point in both the ball and [0, 1].

        Every coordinate of the perturbation shrinks by the same amount, but not past zero.

        Source: Croce & Hein (2021), "Mind the box", who solve the problem by sorting.
        """
        away = x - self.x
        room = torch.where(away > 0, 1 - self.x, self.x)
        back = _threshold(away.abs().flatten(1), room.flatten(1), self.eps)
        moved = torch.minimum((away.abs() - per_image(back, away)).clamp_(min=0.0), room)
        return torch.addcmul(self.x, moved, away.sign()).clamp_(0.0, 1.0)

    def steepest(self, gradient: Tensor, share: Tensor | None = None) -> Tensor:
        """Return the signs of the largest gradient entries, at least one, divided by their number.

        `share` (N,) is the fraction of entries that each image uses; without it only the largest is used.
        """
        size = gradient.abs().flatten(1)
        share = torch.zeros_like(size[:, 0]) if share is None else share
        place = ((1 - share) * size.shape[1]).clamp_(0, size.shape[1] - 1).long()
        least = size.sort(dim=1).values.gather(1, place[:, None])
        signs = torch.where(size >= least, gradient.flatten(1).sign(), 0.0)
        return (signs / (length(signs, "l1")[:, None] + _TINY)).view_as(gradient)

    def sample(self, draws: Draws) -> Tensor:
        """Return the projection of x + t with t ~ N(0, 1)."""
        return self.project(self.x + draws.gaussian(self.x))

    def keep(self, rows: Tensor) -> L1:
        """Return the balls of the selected images."""
        return L1(self.x[rows], self.eps)


def _threshold(size: Tensor, room: Tensor, eps: float) -> Tensor:
    """Return t >= 0 (N,) such that sum min(max(size - t, 0), room) = eps.

    `size` and `room` are (N, D). If the sum is already below eps at t = 0, t is 0. The sum decreases with t and is
    piecewise linear, so Newton's method is used, with bisection where it leaves the bracket. A finished row no longer
    changes, so that its result does not depend on its neighbours.
    """
    near = _PRECISION * torch.finfo(size.dtype).eps * eps
    t, low, high = torch.zeros_like(size[:, 0]), torch.zeros_like(size[:, 0]), size.amax(dim=1)
    for _ in range(_HALVINGS):
        left = size - t[:, None]
        over = torch.minimum(left.clamp(min=0.0), room).sum(dim=1) - eps
        done = (over.abs() <= near) | ((t == 0) & (over < 0)) | (high - low <= _TINY)
        if bool(done.all()):
            break
        low, high = torch.where(over > 0, t, low), torch.where(over > 0, high, t)
        newton = t + over / ((left > 0) & (left < room)).sum(dim=1)
        inside = (newton > low) & (newton < high)
        t = torch.where(done, t, torch.where(inside, newton, (low + high) / 2))
    return t


def ball_around(x: Tensor, eps: float) -> Ball:
    """Return the Linf ball of radius eps (in pixel units) around the images x in [0, 1].

    Source: B_eps(x) below eq. (1.1), intersected with the valid images as in every published attack.
    """
    return Ball((x - eps).clamp_(min=0.0), (x + eps).clamp_(max=1.0))


def region(x: Tensor, eps: float, norm: str) -> Region:
    """Return the ball of radius eps around the images x in the norm "linf", "l2" or "l1"."""
    if norm == "linf":
        return Linf(x, eps, ball_around(x, eps))
    return L2(x, eps) if norm == "l2" else L1(x, eps)


def length(d: Tensor, norm: str) -> Tensor:
    """Return the norm of each image or row of d (N, ...): shape (N,)."""
    if norm == "linf":
        return d.abs().amax(dim=tuple(range(1, d.dim())))
    found: Tensor = torch.linalg.vector_norm(d.flatten(1), ord=1 if norm == "l1" else 2, dim=1)
    return found


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Return values (N,) reshaped to broadcast over `like` (N, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))
