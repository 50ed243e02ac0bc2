"""The eps-ball: every x' with max|x' - x| <= eps that is an image, that is, in [0, 1]."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Ball(NamedTuple):
    """The intersection of the Linf ball around an image with the box of images: a box itself.

    Both bounds have the images' shape (N, C, H, W) and values in [0, 1].
    """

    lower: Tensor
    upper: Tensor

    def project(self, x: Tensor) -> Tensor:
        """Return the point of the ball nearest to x; for a box that is a clamp, coordinate by coordinate."""
        return torch.clamp(x, self.lower, self.upper)


def ball_around(x: Tensor, eps: float) -> Ball:
    """Return the ball of radius eps (in pixel units, images in [0, 1]) around the images x.

    Source: B_eps(x) below eq. (1.1), intersected with the valid images as in every published attack.
    """
    return Ball((x - eps).clamp_(min=0.0), (x + eps).clamp_(max=1.0))
