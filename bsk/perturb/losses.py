"""The losses that attacks maximise and training minimises: one value per example, always in fp32 or fp64."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bsk.perturb.gradients import raw_gradient

Model = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]  # from logits and labels


def cross_entropy(logits: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return L(f(x), y) = -log s(f(x))_y for logits (N, C) and labels (N,): shape (N,).

    With label smoothing the target distribution is (1 - smoothing) * onehot(y) + smoothing / C.
    Source: eq. (1.1); Szegedy et al. (2016).
    """
    return F.cross_entropy(_full(logits), y, reduction="none", label_smoothing=smoothing)


def kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Return KL(s(p) || s(q)) = sum_c s(p)_c (log s(p)_c - log s(q)_c) for logits (N, C): shape (N,).

    It is differentiable in both arguments, as the TRADES loss requires.
    Source: eq. (1.2).
    """
    log_p, log_q = F.log_softmax(_full(logits_p), dim=1), F.log_softmax(_full(logits_q), dim=1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)


def jensen_shannon(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Return (KL(s(p) || m) + KL(s(q) || m)) / 2 with m = (s(p) + s(q)) / 2, at most log 2: shape (N,).

    Source: Lin (1991), "Divergence measures based on the Shannon entropy".
    """
    log_p, log_q = F.log_softmax(_full(logits_p), dim=1), F.log_softmax(_full(logits_q), dim=1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    both = (F.kl_div(log_m, each, reduction="none", log_target=True).sum(dim=1) for each in (log_p, log_q))
    return sum(both, torch.zeros_like(log_p[:, 0])) / 2


def nuclear(differences: Tensor) -> Tensor:
    """Return the nuclear norm (sum of singular values) of differences (N, C), divided by N.

    Source: Sriramanan et al. (2021), NuAT.
    """
    values: Tensor = torch.linalg.svdvals(_full(differences))
    return values.sum() / len(differences)


def squared_distance(p: Tensor, q: Tensor) -> Tensor:
    """Return sum_c (p_c - q_c)^2 for two tensors (N, C): shape (N,)."""
    return (_full(p) - _full(q)).square().sum(dim=1)


def softmax(logits: Tensor) -> Tensor:
    """Return the probabilities s(z) of logits (N, C)."""
    return F.softmax(_full(logits), dim=1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return max_{j != y} z_j - z_y, which is positive exactly if the example is misclassified: shape (N,).

    The label's logit is masked by -infinity rather than 0, so that logits of any sign are handled correctly.
    Source: Carlini & Wagner (2017), without the clamp at zero: fooled examples leave the batch instead.
    """
    logits = _full(logits)
    others = logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    return others - logits.gather(1, y[:, None]).squeeze(1)


def margin_to(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return z_t - z_y for logits (N, C), labels y (N,) and targets t (N,): shape (N,)."""
    logits = _full(logits)
    return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio, -(z_y - max_{j != y} z_j) / (z_(1) - z_(3) + 1e-12): shape (N,).

    z_(k) is the k-th largest logit; at least 3 classes are required.
    Source: Croce & Hein (2020), eq. (5), with the constant of their code.
    """
    first, _, third = _full(logits).topk(3, dim=1).values.unbind(1)
    return margin(logits, y) / (first - third + 1e-12)


def dlr_to(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return the targeted ratio -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12): shape (N,).

    At least 4 classes are required.
    Source: Croce & Hein (2020), eq. (6), with the constant of their code.
    """
    first, _, third, fourth = _full(logits).topk(4, dim=1).values.unbind(1)
    return margin_to(logits, y, target) / (first - 0.5 * (third + fourth) + 1e-12)


def fosc(d: Tensor, g: Tensor, eps: float) -> Tensor:
    """Return the first-order stationary condition eps |g|_1 - <d, g> of perturbations d, |d|_inf <= eps: shape (N,).

    It is at least 0. It measures how much the linearised loss with gradient g (N, C, H, W) can still increase within
    the ball; the bounds [0, 1] are ignored.
    Source: Wang et al. (2019), eq. (4).
    """
    return (eps * g.abs() - d * g).flatten(1).sum(dim=1)


def input_gradient(
    model: Model, x: Tensor, y: Tensor, *, loss: Loss = cross_entropy, create_graph: bool = False
) -> Tensor:
    """Return the gradient of loss(f(x), y) with respect to the images x (N, C, H, W), one per example."""
    leaf = x.detach().requires_grad_()
    return raw_gradient(loss(model(leaf), y), leaf, create=create_graph)


def _full(logits: Tensor) -> Tensor:
    """Return the logits in fp32 or, unchanged, in fp64: in half precision softmax and KL lose their small terms."""
    return logits if logits.dtype == torch.float64 else logits.float()
