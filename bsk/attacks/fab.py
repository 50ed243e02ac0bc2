"""FAB-T: towards each likely class, to the nearest image of that class, by steps onto the linearised boundary."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome, Tally, ranked_targets
from bsk.attacks.projections import onto_plane
from bsk.perturb.ascent import Model
from bsk.perturb.ball import length, per_image
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.losses import margin_to

ALPHA_MAX, ETA, BETA = 0.1, 1.05, 0.9  # bias to the image, overshoot, way back after success
SHORTEST = 1e-8  # of a step, so that the bias is defined


@dataclass
class Search:
    """Rows that search, an example and a target class each.

    owner (R,): the example of each row, ascending; y, target (R,); x: where it is, x_clean: where it began,
    (R, C, H, W); behind (R,): its last step ended beyond the boundary.
    """

    owner: Tensor
    y: Tensor
    target: Tensor
    x_clean: Tensor
    x: Tensor
    behind: Tensor

    def keep(self, rows: Tensor) -> Search:
        """Return some of the rows."""
        return Search(*(getattr(self, each.name)[rows] for each in fields(self)))


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

    Each example goes towards its `targets` likeliest wrong classes at once, and leaves as soon as one of them gives
    a misclassified image within eps. Nothing is drawn: the one search of each target starts at the image.

    Source: Croce & Hein (2020), FAB, algorithm 1; the constants of AutoAttack's standard version.
    Differs from the reference: all targets at once, and a point that is not beyond the boundary goes through the
    model once, for verdict and gradient alike. The verdict is the same.
    """
    tally = Tally(x)
    with torch.no_grad():
        logits = model(x)
    owner = torch.arange(len(x), device=x.device)
    tally.count(owner)
    stays = tally.leave(owner, x, logits.argmax(dim=1) != y)  # the nearest image of some is the image itself
    owner = owner if stays is None else owner[stays]
    target = ranked_targets(logits[owner], y[owner], targets)
    owner = owner.repeat_interleave(target.shape[1])
    never = torch.zeros_like(owner, dtype=torch.bool)
    search = Search(owner, y[owner], target.reshape(-1), x[owner], x[owner], never)
    if len(owner) == 0:
        return tally.outcome()
    gap, normal = _linearise(model, search, tally, torch.arange(len(owner), device=x.device))
    for _ in range(steps):
        search.x = _step(search, gap, normal, norm)
        found = _look(model, search, tally, eps, norm)
        if found is None:
            break
        search, gap, normal = found
    return tally.outcome()


def _linearise(model: Model, search: Search, tally: Tally, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return g = z_t - z_y at some rows' points and its gradient there: (K,) and (K, C, H, W)."""
    _, gap, normal = _with_logits(model, search, tally, rows)
    return gap, normal


def _with_logits(model: Model, search: Search, tally: Tally, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    leaf = search.x[rows].requires_grad_()
    logits = model(leaf)
    gap = margin_to(logits, search.y[rows], search.target[rows])
    (normal,) = torch.autograd.grad(gap.sum(), leaf)
    tally.count(search.owner[rows], 1, 1)
    return logits.detach(), gap.detach(), normal


def _step(search: Search, gap: Tensor, normal: Tensor, norm: str) -> Tensor:
    """Return the next point: overshoot the plane g = 0 from x and, with the weight alpha, from the clean image.

    Source: eq. (8) to (10).
    """
    x, x_clean, w = (each.flatten(1) for each in (search.x, search.x_clean, normal))
    gap_clean = gap + ((x_clean - x) * w).sum(dim=1)  # of the linearised g at the clean image
    d, far = onto_plane(torch.cat([x, x_clean]), torch.cat([w, w]), torch.cat([gap, gap_clean]), norm)
    (d, d_clean), (far, far_clean) = (each.tensor_split(2) for each in (d, far.clamp(min=SHORTEST)))
    alpha = (far / (far + far_clean)).clamp_(max=ALPHA_MAX)[:, None]
    moved = torch.lerp(torch.add(x, d, alpha=ETA), torch.add(x_clean, d_clean, alpha=ETA), alpha).clamp_(0.0, 1.0)
    return moved.view_as(search.x)


def _look(model: Model, search: Search, tally: Tally, eps: float, norm: str) -> tuple[Search, Tensor, Tensor] | None:
    """Judge the rows' points, let the fooled examples leave, draw back the rows beyond the boundary, linearise.

    A row that was beyond the boundary after the last step is expected there again: its point is only judged,
    and linearised after it was drawn back. The others are judged and linearised in one pass, and those that turn
    out to be beyond it once more.
    """
    expected = search.behind
    wrong = torch.zeros_like(expected)
    gap, normal = search.x.new_zeros(len(expected)), torch.zeros_like(search.x)
    judged, both = expected.nonzero().squeeze(1), (~expected).nonzero().squeeze(1)
    if len(judged):
        with torch.no_grad():
            logits = model(search.x[judged])
        tally.count(search.owner[judged])
        wrong[judged] = logits.argmax(dim=1) != search.y[judged]
    if len(both):
        logits, gap[both], normal[both] = _with_logits(model, search, tally, both)
        wrong[both] = logits.argmax(dim=1) != search.y[both]
    near = wrong & (length(search.x - search.x_clean, norm) <= eps)
    stays = tally.leave(search.owner, search.x, near)
    if stays is not None:
        search, wrong, gap, normal, expected = (
            search.keep(stays),
            wrong[stays],
            gap[stays],
            normal[stays],
            expected[stays],
        )
        if len(wrong) == 0:
            return None
    back = per_image(torch.where(wrong, BETA, 1.0).to(search.x), search.x)
    search.x, search.behind = torch.lerp(search.x_clean, search.x, back), wrong
    again = (wrong | expected).nonzero().squeeze(1)
    if len(again):
        gap[again], normal[again] = _linearise(model, search, tally, again)
    return search, gap, normal
