"""Starts of methods that came after the paper, or that it is not compared with; and the table of all starts."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.perturb.ball import Ball, per_image
from bsk.perturb.draws import Draws
from bsk.perturb.losses import cross_entropy
from bsk.perturb.memory import DELTA, PATTERN, Memory
from bsk.perturb.starts import Clean, Given, Start, backward, gaussian, uniform, zero


def noise(clean: Clean, ball: Ball, draws: Draws, given: Given) -> Tensor:
    """Return x + k eps * xi with xi ~ U(-1, 1), clipped to [0, 1]; k is `given.noise`.

    Source: de Jorge et al. (2022), "Make some noise", N-FGSM with k = 2; clipped as in their code.
    """
    x = clean.x.detach()
    return (x + given.noise * given.eps * draws.uniform(x)).clamp_(0.0, 1.0)


def bernoulli(clean: Clean, ball: Ball, draws: Draws, given: Given) -> Tensor:
    """Return x -+ eps / 2, a fair coin for each value, clipped to [0, 1].

    Source: Sriramanan et al. (2021), NuAT: 4/255 at 8/255; clipped as in their code.
    """
    x = clean.x.detach()
    return (x + given.eps / 2 * _coins(draws, x)).clamp_(0.0, 1.0)


def kept(clean: Clean, ball: Ball, draws: Draws, given: Given) -> Tensor:
    """Return P(x + delta), delta where the batch before left it, row by row; 0 at first. See `keep`."""
    x = clean.x.detach()
    return ball.project(x + _delta(given.memory, x)[: len(x)])


def keep(memory: Memory, x: Tensor, moved: Tensor, step: float, ball: Ball) -> None:
    """Let delta go on from where images `moved`, with their gradient, are: a step up, projected, less x.

    Source: Shafahi et al. (2019), "Adversarial training for free!": one backward pass for weights and perturbation.
    """
    assert moved.grad is not None
    delta = _delta(memory, x).clone()
    delta[: len(x)] = ball.project(moved.detach() + step * moved.grad.sign()) - x
    memory.tensors[DELTA] = delta


def _delta(memory: Memory, x: Tensor) -> Tensor:
    delta = memory.tensors.get(DELTA, x[:0])
    missing = len(x) - len(delta)
    return torch.cat([delta, torch.zeros_like(x[:missing])]) if missing > 0 else delta


PATTERN_EVERY = 10  # updates; both numbers from the authors' configuration for CIFAR-10
SHARE = (0.1, 0.5)  # of an image's values that are noise


def label_pattern(clean: Clean, ball: Ball, draws: Draws, given: Given) -> Tensor:
    """Return x -+ eps times the pattern of the image's label, with a random share of its values uniform noise.

    A label's pattern is the sign of the gradient of L(f(grey), label) at the image that is 0.5 everywhere; it is made
    anew every 10 updates. To take it away, or to add it, keeps the network from reading the label off the perturbation.

    Source: LIET, the authors' code at eps 8/255. Here share and sign are drawn for each image, there for each batch.
    """
    x, memory = clean.x.detach(), given.memory
    if PATTERN not in memory.tensors or memory.updates % PATTERN_EVERY == 0:
        memory.tensors[PATTERN] = _patterns(given, x)
    pattern = memory.tensors[PATTERN][given.y]
    share = SHARE[0] + (SHARE[1] - SHARE[0]) * _unit(draws, x[:, 0, 0, 0])
    noisy = _unit(draws, x) < per_image(share, x)
    delta = given.eps * torch.where(noisy, draws.uniform(x), pattern)
    return ball.project(x + per_image(_coins(draws, x[:, 0, 0, 0]), x) * delta)


def _patterns(given: Given, x: Tensor) -> Tensor:
    """Return the sign of the gradient at a grey image for each label, (classes, C, H, W)."""
    with torch.no_grad():
        classes = given.model(torch.full_like(x[:1], 0.5)).shape[1]
    grey = torch.full_like(x[:1].expand(classes, -1, -1, -1), 0.5).requires_grad_()
    loss = cross_entropy(given.model(grey), torch.arange(classes, device=x.device))
    return torch.autograd.grad(loss.sum(), grey)[0].sign()


def _unit(draws: Draws, like: Tensor) -> Tensor:
    return (draws.uniform(like) + 1) / 2


def _coins(draws: Draws, like: Tensor) -> Tensor:
    return torch.where(draws.uniform(like) < 0, -1.0, 1.0).to(like)


STARTS: dict[str, Start] = {
    "zero": zero,
    "uniform": uniform,
    "gaussian": gaussian,
    "backward": backward,
    "noise": noise,
    "bernoulli": bernoulli,
    "kept": kept,
    "label-pattern": label_pattern,
}
