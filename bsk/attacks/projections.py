"""The nearest point of a plane within the box of images, by Linf or L2: the inner problem of FAB."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.perturb.ball import length

MOST = 64  # Newton steps; each passes a kink, and a handful is enough in practice
PRECISION = 1e-6  # relative, of the radius: below it sums in fp32 are noise
FAR = 1e30  # a radius that no coordinate reaches; infinity times a speed of 0 would be NaN


def onto_plane(t: Tensor, w: Tensor, c: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """Return the shortest d with w.(t + d) = b and 0 <= t + d <= 1, and its length, for rows (R, D) and c = w.t - b.

    c is (R,). Where the plane does not meet the box, d goes to the box's corner nearest to the plane.

    Every coordinate moves in its own useful direction, d_i = s_i min(r u_i, room_i), until the box stops it, at
    speed u_i = 1 for Linf and |w_i| for L2. What it gains, f(r) = sum |w_i| min(r u_i, room_i), is concave, rising
    and piecewise linear in r: Newton's iteration from the left ends, exactly, at f(r) = |c|. No sorting.

    Source: Hein & Andriushchenko (2017) for the problem; Croce & Hein (2020), FAB, solve it by sorting.
    """
    sign = w.sign().mul_(-c.sign()[:, None])
    room = (sign.clamp(min=0.0) - t).abs_()  # to 1 or to 0; a CPU is ten times as slow to choose by a mask
    weight = w.abs()
    speed = None if norm == "linf" else weight
    r = _radius(weight, room, speed, c.abs())
    d = torch.minimum(r[:, None] if speed is None else r[:, None] * speed, room).mul_(sign)
    return d, length(d, norm)


def _radius(weight: Tensor, room: Tensor, speed: Tensor | None, need: Tensor) -> Tensor:
    """Return r (R,) with f(r) = need, FAR where the box is too small for that."""
    slope = weight if speed is None else weight * speed
    gain = weight * room
    steepest = slope.sum(dim=1)
    r = torch.where(steepest > 0, need / steepest, FAR).clamp_(max=FAR)
    rows = torch.arange(len(r), device=r.device)
    for _ in range(MOST):
        at = r[rows]
        free = (room - (at[:, None] if speed is None else at[:, None] * speed)).sign_().clamp_(min=0.0)  # 1 or 0
        steep = torch.linalg.vecdot(slope, free)
        stopped = torch.linalg.vecdot(gain, 1 - free)
        better = ((need - stopped) / steep).clamp_(max=FAR)  # root of the tangent at r
        rises = better > at * (1 + PRECISION)
        r[rows] = torch.where(rises, better, at)
        left = rises.nonzero().squeeze(1)
        if len(left) == 0:
            break
        if 2 * len(left) < len(rows):  # most rows are done after two steps
            rows, room, slope, gain, need = (each.index_select(0, left) for each in (rows, room, slope, gain, need))
            speed = None if speed is None else speed.index_select(0, left)
    return r
