"""The eps-balls: every x' within eps of x, by Linf or L2, that is an image, that is, in [0, 1]."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bsk.perturb.draws import Draws

_TINY = 1e-12  # keeps 0 / 0 from being NaN. Source: the reference of AutoAttack


class Region(Protocol):
    """Where the perturbed images of a batch may be, and how one moves there."""

    def project(self, x: Tensor) -> Tensor:
        """Return points of the region for points x (N, C, H, W)."""

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction of length 1 in which the loss rises most."""

    def sample(self, draws: Draws) -> Tensor:
        """Return a random point on the ball's surface, clipped to [0, 1], an image."""

    def keep(self, rows: Tensor) -> Region:
        """Return the regions of some images."""


class Ball(NamedTuple):
    """The intersection of the Linf ball around an image with the box of images: a box itself.

    Both bounds have the images' shape (N, C, H, W) and values in [0, 1].
    """

    lower: Tensor
    upper: Tensor

    def project(self, x: Tensor) -> Tensor:
        """Return the point of the ball nearest to x; for a box that is a clamp, coordinate by coordinate."""
        return torch.clamp(x, self.lower, self.upper)

    def keep(self, rows: Tensor) -> Ball:
        """Return the balls of some images."""
        return Ball(self.lower[rows], self.upper[rows])


class Linf(NamedTuple):
    """The Linf ball of radius eps around images x (N, C, H, W)."""

    x: Tensor
    eps: float
    ball: Ball

    def project(self, x: Tensor) -> Tensor:
        """Return the nearest point of the ball and the box."""
        return self.ball.project(x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the gradient's sign."""
        return gradient.sign()

    def sample(self, draws: Draws) -> Tensor:
        """Return x + eps t / max|t| with t ~ U(-1, 1), clipped to [0, 1]."""
        t = draws.uniform(self.x)
        return torch.addcmul(self.x, t, self.eps / (per_image(length(t, "linf"), t) + _TINY)).clamp_(0.0, 1.0)

    def keep(self, rows: Tensor) -> Linf:
        """Return the balls of some images."""
        return Linf(self.x[rows], self.eps, self.ball.keep(rows))


class L2(NamedTuple):
    """The L2 ball of radius eps around images x (N, C, H, W)."""

    x: Tensor
    eps: float

    def project(self, x: Tensor) -> Tensor:
        """Return x drawn back to the ball and then clipped to [0, 1], as the reference of AutoAttack does."""
        away = x - self.x
        far = length(away, "l2")
        return torch.addcmul(self.x, away, per_image(far.clamp(max=self.eps) / (far + _TINY), away)).clamp_(0.0, 1.0)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the gradient divided by its length."""
        return gradient / (per_image(length(gradient, "l2"), gradient) + _TINY)

    def sample(self, draws: Draws) -> Tensor:
        """Return x + eps t / |t| with t ~ N(0, 1), clipped to [0, 1]."""
        return torch.add(self.x, self.steepest(draws.gaussian(self.x)), alpha=self.eps).clamp_(0.0, 1.0)

    def keep(self, rows: Tensor) -> L2:
        """Return the balls of some images."""
        return L2(self.x[rows], self.eps)


def ball_around(x: Tensor, eps: float) -> Ball:
    """Return the ball of radius eps (in pixel units, images in [0, 1]) around the images x.

    Source: B_eps(x) below eq. (1.1), intersected with the valid images as in every published attack.
    """
    return Ball((x - eps).clamp_(min=0.0), (x + eps).clamp_(max=1.0))


def region(x: Tensor, eps: float, norm: str) -> Region:
    """Return the ball of a norm, "linf" or "l2", around the images x."""
    return L2(x, eps) if norm == "l2" else Linf(x, eps, ball_around(x, eps))


def length(d: Tensor, norm: str) -> Tensor:
    """Return the norm of each image or row of d, (N, ...): shape (N,)."""
    if norm == "linf":
        return d.abs().amax(dim=tuple(range(1, d.dim())))
    euclidean: Tensor = torch.linalg.vector_norm(d.flatten(1), dim=1)
    return euclidean


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Return (N,) values shaped to be broadcast over images (N, C, H, W)."""
    return values.view(-1, *[1] * (like.dim() - 1))
