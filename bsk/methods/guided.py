"""GAT and NuAT: adversarial training guided by the change of the outputs (Sriramanan et al. 2020, 2021)."""

from __future__ import annotations

from torch import Tensor

from bsk.contract.method import Losses
from bsk.contract.network import Network
from bsk.perturb.ascent import ascend
from bsk.perturb.ball import ball_around
from bsk.perturb.draws import Draws
from bsk.perturb.losses import cross_entropy, nuclear, softmax, squared_distance
from bsk.perturb.radius import EPS
from bsk.perturb.starts import bernoulli


def gat(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    update: int,
    progress: float,
    noise: float = 0.5,
    step: float = EPS,
    beta: float = 10.0,
    growth: float = 4.0,
    late: float = 0.86,
) -> Losses:
    """Cross entropy plus beta |s(f(x)) - s(f(x'))|^2; every second perturbation also maximises this distance.

    Args:
        noise: amplitude of the initial Bernoulli noise, in units of eps.
        step: size of the single step, in pixels.
        beta: weight of the squared distance.
        growth: factor by which the weight is multiplied late in training.
        late: fraction of the training after which the weight is multiplied.

    Source: Sriramanan et al. (2020), "Guided adversarial attack for evaluating and enhancing adversarial defenses": the
    authors' code for CIFAR-10.
    Differs: they compute f(x) twice, so that running statistics of batch norms follow x twice; they count per epoch.
    """
    ball, weight = ball_around(x, eps), beta * (growth if progress > late else 1.0)
    z = net(x)
    p, guided = softmax(z), weight * (update % 2)

    def objective(out: Tensor) -> Tensor:
        return cross_entropy(out, y) + guided * squared_distance(softmax(out), p.detach())

    with net.frozen() as f:
        x_start = bernoulli(x, eps, draws, noise)
        x_adv = ascend(objective, f, x_start, ball, step, steps=1)
    natural, robust = net.cross_entropy(z, y), squared_distance(p, softmax(net(x_adv)))
    return Losses(natural + weight * robust, natural, robust, x_start, x_adv)


def nuat(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    update: int,
    progress: float,
    noise: float = 0.5,
    step: float = EPS,
    beta: float = 4.5,
    ramp: float = 0.9,
) -> Losses:
    """Cross entropy plus beta |f(x') - f(x)|_* / N; every second perturbation also maximises this nuclear norm.

    Args:
        noise: amplitude of the initial Bernoulli noise, in units of eps.
        step: size of the single step, in pixels.
        beta: weight of the nuclear norm.
        ramp: fraction of the training over which the weight grows from 0 to beta.

    Source: Sriramanan et al. (2021), NuAT: the authors' code for CIFAR-10, with batches of 64. The norm of a batch over
    its size N falls as 1 / sqrt(N), so that beta 6.4 at N = 128 is as strong as 4.5 at N = 64.
    Differs: the weight grows with every update, in their code with every epoch; f(x) and the count are as in `gat`.
    """
    ball, weight = ball_around(x, eps), beta * (min(progress / ramp, 1.0) if ramp else 1.0)
    z, guided = net(x), weight * (update % 2)

    def objective(out: Tensor) -> Tensor:
        return cross_entropy(out, y) + (guided * nuclear(out - z.detach()) if guided else 0.0)

    with net.frozen() as f:
        x_start = bernoulli(x, eps, draws, noise)
        x_adv = ascend(objective, f, x_start, ball, step, steps=1)
    natural = net.cross_entropy(z, y)
    robust = nuclear(net(x_adv) - z).expand_as(natural)  # one norm, shared by the batch
    return Losses(natural + weight * robust, natural, robust, x_start, x_adv)
