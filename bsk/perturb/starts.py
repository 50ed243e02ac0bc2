"""Where an inner maximisation starts: at the image, at random in input space, or BACKWARD from output space.

The backward start is the paper's idea. A random start in the eps-ball smooths the inner objective, but the
ball is so small that the network's output hardly moves (Figure 3). So the random point is chosen in OUTPUT
space, where nothing bounds it, and one step in input space goes towards it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from bsk.perturb.ascent import Model, sign_step
from bsk.perturb.ball import Ball
from bsk.perturb.draws import Draws
from bsk.perturb.losses import kl
from bsk.perturb.memory import Memory

GAUSSIAN_SCALE = 0.001  # Source: Zhang et al. (2019), the authors' trades.py


@dataclass(frozen=True)
class Clean:
    """The clean images of a batch with their one clean forward pass, shared by all who need it.

    `x` (N, C, H, W) requires its gradient and `logits` (N, classes) = f(x) hang on it by their graph if the
    start is backward; otherwise both are plain.
    """

    x: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Given:
    """What a start is told beside the images: radius and step size in pixel units, and what only some of them use.

    Attributes:
        gamma: size of the random point in output space.
        noise: how far `noise` goes, in eps.
        y: the labels (N,).
        model: the network, in eval mode.
        memory: what outlives the batch.
    """

    eps: float
    step: float
    y: Tensor
    model: Model
    gamma: float = 1.0
    noise: float = 2.0
    memory: Memory = field(default_factory=Memory)


def zero(clean: Clean, ball: Ball, draws: Draws, given: Given) -> Tensor:
    """Return the images themselves."""
    return clean.x.detach()


def uniform(clean: Clean, ball: Ball, draws: Draws, given: Given) -> Tensor:
    """Return x + eps * xi with xi ~ U(-1, 1).

    Not clipped to [0, 1] before the first gradient, as in the authors' scripts; the steps project.
    Source: eq. (3.2) and (4.2); Wong et al. (2020).
    """
    x = clean.x.detach()
    return x + given.eps * draws.uniform(x)


def gaussian(clean: Clean, ball: Ball, draws: Draws, given: Given) -> Tensor:
    """Return x + 0.001 * N(0, 1): at x itself the KL divergence to f(x) has no gradient.

    Source: Zhang et al. (2019).
    """
    x = clean.x.detach()
    return x + GAUSSIAN_SCALE * draws.gaussian(x)


def backward(clean: Clean, ball: Ball, draws: Draws, given: Given) -> Tensor:
    """Return x + xi*, one step towards the input whose output is the random point f(x) + gamma * psi.

    Source: section 4.3, eq. (4.3) and (4.4), solved by one step of PGD from xi = 0.
    Differs from the paper: as in the authors' code, the step size is the attack's. The authors' code runs
    f(x) twice in the same mode; here the gradient is taken through the one clean forward: equal, and cheaper.
    """
    target = random_output(clean.logits.detach(), draws, given.gamma)
    distance = kl(target, clean.logits)  # KL(s(f(x) + gamma psi), s(f(x + xi))) at xi = 0, (4.4)
    return sign_step(-distance, clean.x, ball, given.step)  # argmin over the ball by one projected step, (4.4)


def random_output(z: Tensor, draws: Draws, gamma: float) -> Tensor:
    """Return f(x) + gamma * psi with psi ~ U(-1, 1), for logits z = f(x) (N, classes): the right side of eq. (4.3)."""
    return z + gamma * draws.uniform(z)


Start = Callable[[Clean, Ball, Draws, Given], Tensor]
