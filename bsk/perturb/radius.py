"""The paper's radius, and defaults that depend on the radius."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PAPER_EPS = 0.031  # section 5.1; the paper's step sizes are written as if it were 8/255
_ORDINARY = (PAPER_EPS, 8 / 255)


def step_at(step: float, eps: float) -> float:
    """Return a step size that the paper states for its own radius, scaled to the radius eps.

    At 0.031 and at 8/255 the step is as written, for example 2/255; elsewhere it keeps its ratio to 8/255.
    """
    return step if eps in _ORDINARY else step * eps / (8 / 255)


@dataclass(frozen=True)
class AtRadius:
    """A default that depends on the radius: `words` describes it, and `at(eps)` is its value.

    It is deliberately not a number, so that calling a method with an unresolved default fails at once.
    """

    words: str
    at: Callable[[float], float]

    def __repr__(self) -> str:
        """Return the description."""
        return self.words


EPS: Any = AtRadius("eps", lambda eps: eps)


def paper_step(step: float) -> Any:
    """Return a default for any radius from the step size that the paper states for 8/255; see `step_at`."""
    return AtRadius(f"{step * 255:g}/255 at 8/255", lambda eps: step_at(step, eps))


def _align(eps: float) -> float:
    return 0.02 * math.exp(min(255 * eps, 16) * math.log(10) / 8)


# GradAlign's weight, 0.02 exp(255 eps ln(10) / 8), is 0.2 at 8/255, and 2 at 16/255 and beyond.
# Source: Andriushchenko & Flammarion (2020); the authors' experiments end at 16/255.
ALIGN: Any = AtRadius("0.2 at 8/255, 2 from 16/255", _align)


def _straight(eps: float) -> float:
    levels = 255 * eps
    return 1000.0 if levels < 9 else 5000.0 if levels < 21 else 10000.0 if levels < 27 else 100.0


# ELLE's weight. Source: Abad Rocamora et al. (2024), the authors' scripts for CIFAR-10 at 2/255, 4/255, ..., 26/255.
# Beyond, the value is our choice: at eps 0.2 on the digits 10000 diverges, and 100 is as robust as 10.
STRAIGHT: Any = AtRadius("1000 at 8/255, 5000 from 10/255, 10000 from 22/255, 100 beyond 26/255", _straight)


def _from(values: dict[int, float]) -> Any:
    """Return a step function of eps: `values` maps a radius in 255ths to the value from there on.

    Below the smallest radius the value is that of the smallest.
    """
    words = ", ".join(f"{value:g} from {levels}/255" for levels, value in values.items())
    return AtRadius(words, lambda eps: [values[k] for k in values if k <= 255 * eps + 0.2 or k == min(values)][-1])


# AAER's weights. Source: Lin et al. (2023), the authors' commands for CIFAR-10.
ABNORMAL_RS = _from({8: 1.5, 12: 2.5, 16: 3.25, 32: 1.5})
ABNORMAL_N = _from({8: 0.15, 12: 0.55, 16: 1.5, 32: 0.7})
