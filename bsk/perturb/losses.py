"""The losses that attacks climb and training descends, one value an example, always in fp32 or better."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return L(f(x), y) = -log s(f(x))_y for logits (N, C) and labels (N,): shape (N,).

    Source: eq. (1.1).
    """
    return F.cross_entropy(_full(logits), y, reduction="none")


def kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Return KL(s(p) || s(q)) = sum_c s(p)_c (log s(p)_c - log s(q)_c) for logits (N, C): shape (N,).

    Differentiable in both arguments: the TRADES loss sends its gradient through both.
    Source: eq. (1.2).
    """
    log_p, log_q = F.log_softmax(_full(logits_p), dim=1), F.log_softmax(_full(logits_q), dim=1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return max_{j != y} z_j - z_y, positive exactly where an example is misclassified: shape (N,).

    The label is masked by -infinity, not by 0, so that it is right for logits of any sign.
    Source: Carlini & Wagner (2017), without the clamp at zero: fooled examples leave the batch instead.
    """
    logits = _full(logits)
    label = F.one_hot(y, logits.shape[1]).bool()
    others = logits.masked_fill(label, -torch.inf).amax(dim=1)
    return others - logits.gather(1, y[:, None]).squeeze(1)


def _full(logits: Tensor) -> Tensor:
    """Half precision is lifted to fp32 (softmax and KL lose their small terms below it), fp64 is kept."""
    return logits if logits.dtype == torch.float64 else logits.float()
