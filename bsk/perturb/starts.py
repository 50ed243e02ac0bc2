"""Starting points of the inner maximisation: the image, a random point in input space, or the backward start.

The backward start is the paper's idea. A random start in the eps-ball smooths the inner objective, but the ball is so
small that the network's output hardly moves (Figure 3). So the random point is chosen in OUTPUT space, where nothing
bounds it, and one step in input space is taken towards it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bsk.errors import UsageError, nearest
from bsk.perturb.ascent import Model, sign_step
from bsk.perturb.ball import Ball
from bsk.perturb.draws import Draws
from bsk.perturb.losses import kl

GAUSSIAN_SCALE = 0.001  # Source: Zhang et al. (2019), the authors' trades.py
BACKWARD = "backward"


def uniform(x: Tensor, eps: float, draws: Draws) -> Tensor:
    """Return x + eps * xi with xi ~ U(-1, 1).

    As in the authors' scripts, it is not clipped to [0, 1] before the first gradient; the following steps project.
    Source: eq. (3.2) and (4.2); Wong et al. (2020).
    """
    return x + eps * draws.uniform(x)


def gaussian(x: Tensor, eps: float, draws: Draws) -> Tensor:
    """Return x + 0.001 * N(0, 1).

    The noise is needed because the KL divergence to f(x) has zero gradient at x itself.

    Source: Zhang et al. (2019).
    """
    return x + GAUSSIAN_SCALE * draws.gaussian(x)


def noisy(x: Tensor, eps: float, draws: Draws, noise: float = 2.0) -> Tensor:
    """Return x + noise * eps * xi with xi ~ U(-1, 1), clipped to [0, 1].

    Source: de Jorge et al. (2022), "Make some noise", N-FGSM with noise 2; clipped as in their code.
    """
    return (x + noise * eps * draws.uniform(x)).clamp_(0.0, 1.0)


def bernoulli(x: Tensor, eps: float, draws: Draws, noise: float = 0.5) -> Tensor:
    """Return x + noise * eps * s with random signs s, clipped to [0, 1].

    Source: Sriramanan et al. (2020, 2021), GAT and NuAT: 4/255 at 8/255; clipped as in their code.
    """
    return (x + noise * eps * coins(draws.uniform(x))).clamp_(0.0, 1.0)


def coins(unit: Tensor) -> Tensor:
    """Return -1 where the U(-1, 1) numbers are below 0, and 1 elsewhere."""
    return torch.where(unit < 0, -1.0, 1.0).to(unit)


def random_output(z: Tensor, draws: Draws, gamma: float) -> Tensor:
    """Return f(x) + gamma * psi with psi ~ U(-1, 1), the right side of eq. (4.3), for logits z = f(x) (N, classes)."""
    return z + gamma * draws.uniform(z)


def backward(leaf: Tensor, z: Tensor, ball: Ball, draws: Draws, *, step: float, gamma: float) -> Tensor:
    """Return x + xi*, one step towards the input whose output is the random point f(x) + gamma * psi.

    `leaf` is x (N, C, H, W) with `requires_grad`, and the logits z = f(x) (N, classes) must have been computed from it.

    Source: section 4.3, eq. (4.3) and (4.4), solved by one step of PGD from xi = 0.
    Differs from the paper: the step size is the attack's, as in the authors' code. Their code computes f(x) twice in
    the same mode; here the gradient uses the one clean forward pass, which is equal and cheaper.
    """
    target = random_output(z.detach(), draws, gamma)  # (4.3)
    return sign_step(-kl(target, z), leaf, ball, step)  # (4.4): argmin over the ball by one projected step


Random = Callable[[Tensor, float, Draws], Tensor]  # from images (N, C, H, W), eps and draws
RANDOM: dict[str, Random] = {
    "zero": lambda x, eps, draws: x,
    "uniform": uniform,
    "gaussian": gaussian,
    "noise": noisy,
    "bernoulli": bernoulli,
}
STARTS = [*RANDOM, BACKWARD]


def begin(
    start: str, f: Model, x: Tensor, ball: Ball, draws: Draws, *, eps: float, step: float, gamma: float
) -> tuple[Tensor, Tensor | None]:
    """Return the start named in STARTS, and the logits f(x) if they were computed for it, as for the backward start.

    Raises:
        UsageError: there is no such start.
    """
    if start == BACKWARD:
        leaf = x.detach().requires_grad_()
        z = f(leaf)
        return backward(leaf, z, ball, draws, step=step, gamma=gamma), z.detach()
    if start not in RANDOM:
        raise UsageError(f"--start {start}: no such start; {nearest(start, STARTS)}")
    return RANDOM[start](x, eps, draws), None
