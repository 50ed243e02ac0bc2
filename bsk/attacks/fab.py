"""FAB-T: find the nearest image of each likely wrong class by steps onto the linearised decision boundary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome, Rows, ranked_targets
from bsk.attacks.search import misclassified
from bsk.perturb.ascent import Model
from bsk.perturb.ball import length, per_image
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.gradients import gradient_of
from bsk.perturb.losses import margin_to
from bsk.perturb.pixels import to_images, to_rows

ALPHA_MAX, ETA, BETA = 0.1, 1.05, 0.9  # bias towards the image, overshoot, backward step after success
SHORTEST = 1e-8  # minimum step length, so that the bias is defined
NEWTON_STEPS = 64  # maximum; each step passes a kink, and a handful are enough in practice
PRECISION = 1e-6  # relative tolerance of the radius; smaller differences are fp32 rounding noise
LIGHTEST = 1e-30  # minimum divisor; a weight of 0 has sign 0 anyway
FAR = 1e30  # a radius that no coordinate reaches; infinity times a speed of 0 would be NaN


@dataclass
class _Search(Rows):
    """The state of the search in rows: owner (R,), ascending; y, target (R,); clean and current images (R, C, H, W)."""

    owner: Tensor
    y: Tensor
    target: Tensor
    x_clean: Tensor
    x: Tensor


def fab_t(
    model: Model,
    x: Tensor,
    y: Tensor,
    draws: ExampleDraws,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 100,
    targets: int = 9,
) -> Outcome:
    """Attack images x (N, C, H, W) in [0, 1] with labels y (N,): fooled if the nearest image found is within eps.

    Each example is attacked towards its `targets` most likely wrong classes in parallel, and leaves as soon as one of
    them gives a misclassified image within eps. The attack is deterministic: the one search per target starts at the
    image.

    Source: Croce & Hein (2020), FAB, algorithm 1; the constants of AutoAttack's standard version.
    Differs from the reference: all targets run in parallel. The verdict is the same.
    """
    tally = Outcome.begin(x)
    with torch.no_grad():
        logits = model(x)
    owner = torch.arange(len(x), device=x.device)
    tally.count(owner)
    wrong = misclassified(model, tally, owner, x, logits, y)
    stays = tally.leave(owner, x, wrong)  # some are misclassified without any perturbation
    owner = owner if stays is None else owner[stays]
    target = ranked_targets(logits[owner], y[owner], targets)
    owner = owner.repeat_interleave(target.shape[1])
    search = _Search(owner, y[owner], target.reshape(-1), x[owner], x[owner])
    for _ in range(steps):
        if len(search.owner) == 0:
            break
        gap, normal = _linearise(model, search)
        search.x = _step(search, gap, normal, norm)
        with torch.no_grad():
            logits = model(search.x)
        tally.count(search.owner, 2, 1)
        _finish_step(model, search, logits, tally, eps, norm)
    return tally


def _linearise(model: Model, search: _Search) -> tuple[Tensor, Tensor]:
    """Return g = z_t - z_y at the current points (R,), and its gradient (R, C, H, W)."""
    leaf = search.x.detach().requires_grad_()
    gap = margin_to(model(leaf), search.y, search.target)
    return gap.detach(), gradient_of(gap, leaf)


def _step(search: _Search, gap: Tensor, normal: Tensor, norm: str) -> Tensor:
    """Return the next point: a step beyond the plane g = 0 from x, averaged with one from the clean image.

    The weight of the latter is alpha.
    Source: eq. (8) to (10).
    """
    x, x_clean, w = (to_rows(each) for each in (search.x, search.x_clean, normal))
    gap_clean = gap + torch.linalg.vecdot(x_clean - x, w)  # the linearised g at the clean image
    d, far = onto_plane(x, w, gap, norm)
    d_clean, far_clean = onto_plane(x_clean, w, gap_clean, norm)
    far, far_clean = far.clamp(min=SHORTEST), far_clean.clamp(min=SHORTEST)
    alpha = (far / (far + far_clean)).clamp_(max=ALPHA_MAX)[:, None]
    moved = torch.lerp(torch.add(x, d, alpha=ETA), torch.add(x_clean, d_clean, alpha=ETA), alpha).clamp_(0.0, 1.0)
    return to_images(moved, search.x.shape)


def _finish_step(model: Model, search: _Search, logits: Tensor, tally: Outcome, eps: float, norm: str) -> None:
    """Remove the examples that are fooled within eps, and move the other rows beyond the boundary back.

    Source: algorithm 1, the last step: x + beta (x' - x).
    """
    beyond = logits.argmax(dim=1) != search.y
    near = length(search.x - search.x_clean, norm) <= eps
    if bool((beyond & near).any()):
        rows = near.nonzero().squeeze(1)
        near[rows] = misclassified(model, tally, search.owner[rows], search.x[rows], logits[rows], search.y[rows])
        stays = tally.leave(search.owner, search.x, near)
        if stays is not None:
            search.keep(stays)
            beyond = beyond[stays]
    back = per_image(torch.where(beyond, BETA, 1.0).to(search.x), search.x)
    search.x = torch.lerp(search.x_clean, search.x, back)


def onto_plane(t: Tensor, w: Tensor, c: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """Return the shortest d with w.(t + d) = b and 0 <= t + d <= 1, and its length, for rows (R, D) and c = w.t - b.

    c is (R,). Where the plane does not meet the box, d leads to the corner of the box nearest to the plane.

    Every coordinate moves in its own useful direction, d_i = s_i min(r u_i, room_i), until the box stops it, with speed
    u_i = 1 for Linf and u_i = |w_i| for L2. The gain f(r) = sum |w_i| min(r u_i, room_i) is concave, increasing and
    piecewise linear in r, so Newton's method started from the left solves f(r) = |c| exactly in finitely many steps,
    without sorting.

    In L1 the coordinates with the largest |w_i| move first, each until the box stops it; this does require sorting.

    Source: Hein & Andriushchenko (2017) for the problem; Croce & Hein (2020), FAB, solve it by sorting.
    """
    sign = w.sign().mul_(-c.sign()[:, None])
    room = (sign.clamp(min=0.0) - t).abs_()  # distance to 1 or to 0; torch.where is ten times slower on a CPU
    weight = w.abs()
    if norm == "l1":
        d = _by_weight(weight, room, c.abs()).mul_(sign)
        return d, length(d, norm)
    speed = None if norm == "linf" else weight
    r = _radius(weight, room, speed, c.abs())
    d = torch.minimum(r[:, None] if speed is None else r[:, None] * speed, room).mul_(sign)
    return d, length(d, norm)


def _by_weight(weight: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """Return the displacement of each coordinate (R, D), largest weights first, so that `need` (R,) is gained."""
    heaviest = weight.argsort(dim=1, descending=True, stable=True)
    weight, room = weight.gather(1, heaviest), room.gather(1, heaviest)
    gain = weight * room
    left = need[:, None] - (gain.cumsum(dim=1) - gain)
    taken = torch.minimum((left / weight.clamp(min=LIGHTEST)).clamp_(min=0.0), room)
    return torch.zeros_like(taken).scatter_(1, heaviest, taken)


def _radius(weight: Tensor, room: Tensor, speed: Tensor | None, need: Tensor) -> Tensor:
    """Return r (R,) with f(r) = need, or FAR if the box is too small for that."""
    slope = weight if speed is None else weight * speed
    gain = weight * room
    steepest = slope.sum(dim=1)
    r = torch.where(steepest > 0, need / steepest, FAR).clamp_(max=FAR)
    rows = torch.arange(len(r), device=r.device)
    for _ in range(NEWTON_STEPS):
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
        if 2 * len(left) < len(rows):  # most rows finish after two steps
            rows, room, slope, gain, need = (each.index_select(0, left) for each in (rows, room, slope, gain, need))
            speed = None if speed is None else speed.index_select(0, left)
    return r
