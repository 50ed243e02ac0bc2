"""Schedules of the learning rate and momentum per iteration."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple


class Rates(NamedTuple):
    """The learning rate and momentum of one iteration."""

    lr: float
    momentum: float


def piecewise(step: int, total: int, lr: float, momentum: float) -> Rates:
    """Return lr, a tenth of it from half of the iterations on, and a hundredth from three quarters on.

    The milestones are rounded down to whole iterations.
    Source: section 5.1, "decaying point at 50-th and 75-th epochs" of 100.
    Differs from the paper: in the authors' code a milestone that is not a whole number is never reached.
    """
    return Rates(lr * 0.1 ** ((step >= total // 2) + (step >= total * 3 // 4)), momentum)


def cyclic(step: int, total: int, lr: float, momentum: float) -> Rates:
    """Return one triangle: lr rises from 0 to its peak in the middle and falls to 0; momentum falls and rises by 0.1.

    Momentum does not fall below 0.

    Source: Smith (2017); Wong et al. (2020), whose scheduler cycles momentum inversely, as the authors' does.
    Differs from the paper: the authors' TRADES scripts reach the peak within one iteration; here all methods share this
    shape, so that they can be compared.
    """
    height = 1.0 - abs(2.0 * (step + 0.5) / total - 1.0)
    return Rates(lr * height, max(0.0, momentum - 0.1 * height))


def cosine(step: int, total: int, lr: float, momentum: float) -> Rates:
    """Return lr (1 + cos(pi step / total)) / 2. Source: Loshchilov & Hutter (2017), without restarts."""
    return Rates(lr * 0.5 * (1.0 + math.cos(math.pi * step / total)), momentum)


def constant(step: int, total: int, lr: float, momentum: float) -> Rates:
    """Return lr unchanged."""
    return Rates(lr, momentum)


def warmed(step: int, updates: float, rates: Rates) -> Rates:
    """Return the rates with lr * min(1, (step + 1) / updates): a linear warm-up. Source: Goyal et al. (2017)."""
    return Rates(rates.lr * min(1.0, (step + 1) / updates), rates.momentum) if updates > 0 else rates


Schedule = Callable[[int, int, float, float], Rates]
SCHEDULES: dict[str, Schedule] = {"piecewise": piecewise, "cyclic": cyclic, "cosine": cosine, "constant": constant}
DEFAULT_LR = {"piecewise": 0.1, "cyclic": 0.2, "cosine": 0.1, "constant": 0.1}  # the authors' scripts: max_lr = 2 lr
