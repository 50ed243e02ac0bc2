"""What training descends: the outer losses, one value an example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bsk.perturb.ascent import Model
from bsk.perturb.ball import per_image
from bsk.perturb.draws import Draws
from bsk.perturb.losses import cross_entropy, jensen_shannon, kl, nuclear


@dataclass(frozen=True)
class Case:
    """A batch after its perturbation, and what the loss needs beside it.

    Attributes:
        model: in train mode, in the training's precision.
        exact: the same in fp32.
        x, y: clean images (N, C, H, W) and labels (N,).
        start, x_adv: the images after the start, and after the whole perturbation.
        beta: weight of the term beside cross entropy.
        smoothing: of the labels, in every cross entropy.
        eps, draws: of what is drawn around x.
    """

    model: Model
    exact: Model
    x: Tensor
    y: Tensor
    start: Tensor
    x_adv: Tensor
    beta: float
    eps: float
    draws: Draws
    smoothing: float = 0.0

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Return L(logits, y) with smoothed labels, (N,)."""
        return cross_entropy(logits, self.y, self.smoothing)


@dataclass(frozen=True)
class Losses:
    """The outer loss an example, (N,), and its parts; a part that the method has not is None."""

    total: Tensor
    natural: Tensor | None
    robust: Tensor | None


def natural_loss(case: Case) -> Losses:
    """Return L(f(x), y)."""
    loss = case.cross_entropy(case.model(case.x))
    return Losses(loss, loss, None)


def adversarial_loss(case: Case) -> Losses:
    """Return L(f(x_adv), y). Source: eq. (1.1)."""
    loss = case.cross_entropy(case.model(case.x_adv))
    return Losses(loss, None, loss)


def trades_loss(case: Case) -> Losses:
    """Return L(f(x), y) + beta KL(s(f(x)) || s(f(x_adv))), one clean forward for both terms.

    The gradient flows through both arguments of the divergence.
    Source: eq. (1.2); Algorithm 1, line 7.
    """
    z = case.model(case.x)
    natural, robust = case.cross_entropy(z), kl(z, case.model(case.x_adv))
    return Losses(natural + case.beta * robust, natural, robust)


def mart_loss(case: Case) -> Losses:
    """Return L(f(x_adv), y) - log(1.0001 - max_{j != y} p'_j) + beta KL(p || p') (1.0000001 - p_y), p = s(f(x)).

    Source: Wang et al. (2020), MART, with the constants of their code.
    """
    z, z_adv = case.model(case.x), case.model(case.x_adv)
    label = case.y[:, None]
    wrong = F.softmax(z_adv.float(), dim=1).scatter(1, label, 0.0).amax(dim=1)
    robust = case.cross_entropy(z_adv) - torch.log(1.0001 - wrong + 1e-12)
    unsure = 1.0000001 - F.softmax(z.float(), dim=1).gather(1, label).squeeze(1)
    return Losses(robust + case.beta * kl(z, z_adv) * unsure, None, robust)


def nuclear_loss(case: Case) -> Losses:
    """Return L(f(x), y) + beta |f(x_adv) - f(x)|_* / N, the norm of the batch shared by its examples.

    Source: Sriramanan et al. (2021), NuAT.
    """
    z = case.model(case.x)
    natural = case.cross_entropy(z)
    robust = nuclear(case.model(case.x_adv) - z).expand_as(natural)
    return Losses(natural + case.beta * robust, natural, robust)


def consistent_loss(case: Case) -> Losses:
    """Return L(f(x_adv), y) + beta JS(s(f(x + xi)), s(f(x_adv))), x + xi the start. Source: LIET, the authors' code."""
    z_start, z_adv = case.model(case.start), case.model(case.x_adv)
    robust = case.cross_entropy(z_adv)
    return Losses(robust + case.beta * jensen_shannon(z_start, z_adv), None, robust)


def aligned_loss(case: Case) -> Losses:
    """Return L(f(x_adv), y) + beta (1 - cos(g(x), g(x + eps xi))), g the gradient by the image, xi ~ U(-1, 1).

    The gradient at x is taken as given, the other one is descended through; where one of them is zero there is no
    angle. In fp32, because a gradient of a gradient in less is mostly rounding.

    Source: Andriushchenko & Flammarion (2020), GradAlign.
    """
    robust = case.cross_entropy(case.model(case.x_adv))
    near = case.x + case.eps * case.draws.uniform(case.x)
    at_x = input_gradient(case.exact, case.x, case.y, create_graph=False).flatten(1)
    at_near = input_gradient(case.exact, near, case.y, create_graph=True).flatten(1)
    real = (at_x != 0).any(dim=1) & (at_near.detach() != 0).any(dim=1)
    safe = torch.where(per_image(real, at_near), at_near, torch.ones_like(at_near))
    angle = torch.where(real, 1 - F.cosine_similarity(at_x, safe, dim=1), 0.0)
    return Losses(robust + case.beta * angle, None, robust)


def input_gradient(model: Model, x: Tensor, y: Tensor, *, create_graph: bool) -> Tensor:
    """Return the gradient of L(f(x), y) by the images x (N, C, H, W), each example's its own."""
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(cross_entropy(model(leaf), y).sum(), leaf, create_graph=create_graph)[0]


@dataclass(frozen=True)
class Outer:
    """An outer loss, which of its parts it has, and its passes an image: forward, back to the image, to the weights."""

    loss: Callable[[Case], Losses]
    natural: bool
    robust: bool
    forward: int = 1
    to_input: int = 0
    full: int = 1


OUTER: dict[str, Outer] = {
    "natural": Outer(natural_loss, natural=True, robust=False),
    "adversarial": Outer(adversarial_loss, natural=False, robust=True),
    "trades": Outer(trades_loss, natural=True, robust=True, forward=2, full=2),
    "mart": Outer(mart_loss, natural=False, robust=True, forward=2, full=2),
    "nuclear": Outer(nuclear_loss, natural=True, robust=True, forward=2, full=2),
    "consistent": Outer(consistent_loss, natural=False, robust=True, forward=2, full=2),
    "aligned": Outer(aligned_loss, natural=False, robust=True, forward=3, to_input=2, full=2),
}
