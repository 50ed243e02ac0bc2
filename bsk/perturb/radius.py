"""The paper's radius, and step sizes that follow the radius."""

from __future__ import annotations

PAPER_EPS = 0.031  # section 5.1; the paper's step sizes are written as if it were 8/255
_ORDINARY = (PAPER_EPS, 8 / 255)


def step_at(step: float, eps: float) -> float:
    """Return a step size that the paper states for its radius, carried over to the radius eps.

    At 0.031 and at 8/255 the step is as written, for example 2/255; elsewhere it keeps its ratio to 8/255.
    """
    return step if eps in _ORDINARY else step * eps / (8 / 255)
