"""A naive implementation of every method, the reference for the correctness and speed of bsk's updates.

Nothing of bsk is used here. Losses are means over the batch, gradients come from `torch.autograd.grad`, the model is
in train or eval mode as in each paper's code, and no pass is shared. It was written independently, from the papers and
descriptions of their published code. Where a method's docstring says that it differs from them, so does this one: what
is tested is that the method does what its docstring says.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Of = Callable[[Tensor], Tensor]


@dataclass
class Plain:
    """A model with SGD and the state that methods keep between batches; `eps` in pixel units of [0, 1]."""

    model: nn.Module
    eps: float
    seed: int = 1
    weight_decay: float = 5e-4
    kept: dict[Any, Any] = field(default_factory=dict)
    velocity: list[Tensor] = field(default_factory=list)
    updates: int = 0
    random: torch.Generator = field(default_factory=torch.Generator)

    def update(self, method: str, x: Tensor, y: Tensor, lr: float, momentum: float, total: int, **more: Any) -> float:
        """Make one update of a method and return its loss; the random numbers depend on (seed, update)."""
        self.random = noise(self.seed, self.updates)
        replays = 8 if method == "free-at" else 1
        for _ in range(replays):
            self.model.train()
            loss = PLAIN[method](self, x, y, share=(self.updates + 1) / total, **more)
            weights = list(self.model.parameters())
            gradients = torch.autograd.grad(loss, weights)
            self.velocity = self.velocity or [torch.zeros_like(w) for w in weights]
            with torch.no_grad():
                for w, v, g in zip(weights, self.velocity, gradients, strict=True):
                    v.mul_(momentum).add_(g + self.weight_decay * w)
                    w.sub_(lr * v)
        self.updates += 1
        return float(loss.detach())

    def uniform(self, like: Tensor) -> Tensor:
        """Return numbers from U(-1, 1)."""
        return torch.empty_like(like).uniform_(-1, 1, generator=self.random)

    def gaussian(self, like: Tensor) -> Tensor:
        """Return numbers from N(0, 1)."""
        return torch.empty_like(like).normal_(generator=self.random)

    def climb(
        self, x_adv: Tensor, x: Tensor, step: float, loss: Callable[[Tensor], Tensor], reach: float = 1.0
    ) -> Tensor:
        """Take one sign-gradient step in eval mode, projected onto the ball and [0, 1]."""
        self.model.eval()
        x_adv = x_adv.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(self.model(x_adv)), x_adv)
        self.model.train()
        return self.clip(x_adv.detach() + step * gradient.sign(), x, reach)

    def clip(self, x_adv: Tensor, x: Tensor, reach: float = 1.0) -> Tensor:
        """Project onto the ball and [0, 1]."""
        moved = torch.min(torch.max(x_adv, x - reach * self.eps), x + reach * self.eps)
        return moved.clamp(0, 1)

    def clean(self, x: Tensor) -> Tensor:
        """Return f(x) in eval mode, without gradient."""
        self.model.eval()
        z: Tensor = self.model(x).detach()
        self.model.train()
        return z


def noise(seed: int, update: int) -> torch.Generator:
    """Return the generator of one update, seeded by a hash of (seed, "noise", update)."""
    digest = hashlib.sha256(f"{seed}\x1fnoise\x1f{update}".encode()).digest()
    number = int.from_bytes(digest[:8], "little", signed=True)
    return torch.Generator().manual_seed(number % (1 << 64) >> 1)


def kl(z: Tensor, out: Tensor) -> Tensor:
    """Return KL(s(z) || s(out)), by its definition, averaged over the batch."""
    p, q = z.softmax(dim=1), out.softmax(dim=1)
    return (p * (p.log() - q.log())).sum(dim=1).mean()


def trades_loss(it: Plain, x: Tensor, y: Tensor, x_adv: Tensor, beta: float) -> Tensor:
    """Return CE(f(x), y) + beta KL(s(f(x)) || s(f(x_adv)))."""
    z = it.model(x)
    return F.cross_entropy(z, y) + beta * kl(z, it.model(x_adv))


def natural(it: Plain, x: Tensor, y: Tensor, share: float) -> Tensor:
    """Cross entropy."""
    return F.cross_entropy(it.model(x), y)


def pgd(it: Plain, x: Tensor, y: Tensor, share: float, steps: int, step: float) -> Tensor:
    """PGD training from a uniform start; one step is Fast AT."""
    x_adv = x + it.eps * it.uniform(x)
    for _ in range(steps):
        x_adv = it.climb(x_adv, x, step, lambda out: F.cross_entropy(out, y))
    return F.cross_entropy(it.model(x_adv), y)


def trades(it: Plain, x: Tensor, y: Tensor, share: float, steps: int, step: float, gaussian: bool = False) -> Tensor:
    """TRADES from a Gaussian start, Fast TRADES from a uniform one; beta 6."""
    x_adv = x + (0.001 * it.gaussian(x) if gaussian else it.eps * it.uniform(x))
    z = it.clean(x)
    for _ in range(steps):
        x_adv = it.climb(x_adv, x, step, lambda out: kl(z, out))
    return trades_loss(it, x, y, x_adv, 6.0)


def start_backward(it: Plain, x: Tensor, gamma: float = 1.0) -> Tensor:
    """One step down the KL divergence from the random point f(x) + gamma psi."""
    z = it.clean(x)
    target = z + gamma * it.uniform(z)
    return it.climb(x, x, it.eps, lambda out: -kl(target, out))


def bs(it: Plain, x: Tensor, y: Tensor, share: float, steps: int = 1) -> Tensor:
    """Algorithm 1 of the paper, with f(x) recomputed wherever it appears."""
    x_adv = start_backward(it, x)
    for _ in range(steps):
        x_adv = it.climb(x_adv, x, it.eps, lambda out: kl(it.clean(x), out))
    return trades_loss(it, x, y, x_adv, 10.0)


def bs_at(it: Plain, x: Tensor, y: Tensor, share: float) -> Tensor:
    """Fast AT from the backward start."""
    x_adv = it.climb(start_backward(it, x), x, it.eps, lambda out: F.cross_entropy(out, y))
    return F.cross_entropy(it.model(x_adv), y)


def fast_at_plus(it: Plain, x: Tensor, y: Tensor, share: float, accuracies: list[float], every: int = 20) -> Tensor:
    """Fast AT, or PGD after the accuracy fell by more than 0.1 since the check before; the accuracies are given."""
    if it.updates % every == 0:
        now = accuracies[it.updates // every]
        it.kept["fell"] = it.kept.get("accuracy", 0.0) - now > 0.1
        it.kept["accuracy"] = now
    steps, step = (10, 2 / 255) if it.kept["fell"] else (1, 10 / 255)
    return pgd(it, x, y, share, steps, step * it.eps / (8 / 255))


def n_fgsm(it: Plain, x: Tensor, y: Tensor, share: float) -> Tensor:
    """Noise of twice the radius and one step, clipped to [0, 1] only."""
    x_start = (x + 2 * it.eps * it.uniform(x)).clamp(0, 1)
    x_adv = it.climb(x_start, x, it.eps, lambda out: F.cross_entropy(out, y), reach=math.inf)
    return F.cross_entropy(it.model(x_adv), y)


def free_at(it: Plain, x: Tensor, y: Tensor, share: float) -> Tensor:
    """The perturbation continues from the previous batch, by the gradient of the training loss itself."""
    before = it.kept.get("delta", torch.zeros_like(x))
    x_adv = it.clip(x + before[: len(x)], x).requires_grad_()
    loss = F.cross_entropy(it.model(x_adv), y)
    (gradient,) = torch.autograd.grad(loss, x_adv, retain_graph=True)
    it.kept["delta"] = before.clone()
    it.kept["delta"][: len(x)] = it.clip(x_adv.detach() + it.eps * gradient.sign(), x) - x
    return loss


def mart(it: Plain, x: Tensor, y: Tensor, share: float) -> Tensor:
    """Boosted cross entropy plus the KL divergence weighted by 1 - p(label)."""
    x_adv = x + 0.001 * it.gaussian(x)
    for _ in range(10):
        x_adv = it.climb(x_adv, x, it.eps / 4, lambda out: F.cross_entropy(out, y))
    z, z_adv = it.model(x), it.model(x_adv)
    p, q = z.softmax(dim=1), z_adv.softmax(dim=1)
    total = x.new_zeros(())
    for i, label in enumerate(y.tolist()):
        wrong = max(q[i, j] for j in range(q.shape[1]) if j != label)
        divergence = (p[i] * (p[i].log() - q[i].log())).sum()
        boosted = -q[i, label].log() - torch.log(1.0001 - wrong + 1e-12)
        total = total + boosted + 5 * divergence * (1.0000001 - p[i, label])
    return total / len(x)


def guided(it: Plain, x: Tensor, y: Tensor, share: float, nuclear: bool) -> Tensor:
    """GAT and NuAT: Bernoulli noise and one step, in every second update on a loss that includes the distance term."""
    weight = 4.5 * min(1.0, share / 0.9) if nuclear else 10.0 * (4.0 if share > 0.86 else 1.0)

    def distance(z: Tensor, out: Tensor) -> Tensor:
        if nuclear:
            singular: Tensor = torch.linalg.svdvals(z - out)
            return singular.sum() / len(z)
        return ((z.softmax(dim=1) - out.softmax(dim=1)) ** 2).sum(dim=1).mean()

    coins = torch.where(it.uniform(x) < 0, -1.0, 1.0).to(x)
    x_start = (x + it.eps / 2 * coins).clamp(0, 1)
    z = it.model(x)
    moved = it.climb(x_start, x, it.eps, _guide(z.detach(), y, weight * (it.updates % 2), distance))
    return F.cross_entropy(z, y) + weight * distance(z, it.model(moved))


def _guide(
    z: Tensor, y: Tensor, weight: float, distance: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    return lambda out: F.cross_entropy(out, y) + (weight * distance(z, out) if weight else 0.0)


def gradalign(it: Plain, x: Tensor, y: Tensor, share: float) -> Tensor:
    """FGSM plus 1 - cosine of the gradients at x and at a random point nearby, both in train mode."""
    weight = 0.02 * math.exp(min(255 * it.eps, 16) * math.log(10) / 8)
    near = (x + it.eps * it.uniform(x)).requires_grad_()
    at = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(it.model(at), y), at)
    x_adv = it.clip(x + it.eps * g.sign(), x)
    loss = F.cross_entropy(it.model(x_adv), y)
    (h,) = torch.autograd.grad(F.cross_entropy(it.model(near), y), near, create_graph=True)
    cosines = [(a * b).sum() / (a.norm() * b.norm()) for a, b in zip(g, h, strict=True)]
    return loss + weight * (1 - torch.stack(cosines)).mean()


def liet(it: Plain, x: Tensor, y: Tensor, share: float, classes: int) -> Tensor:
    """A start from the label's pattern mixed with noise, one step, and a consistency loss between the two outputs."""
    if it.updates % 10 == 0:
        grey = torch.full((classes, *x.shape[1:]), 0.5, dtype=x.dtype, requires_grad=True)
        it.model.eval()
        (g,) = torch.autograd.grad(F.cross_entropy(it.model(grey), torch.arange(classes)), grey)
        it.model.train()
        it.kept["pattern"] = g.sign()
    mask = (it.uniform(x) + 1) / 2
    part, way = torch.empty(2, 1, dtype=x.dtype).uniform_(-1, 1, generator=it.random).flatten().tolist()
    noisy = mask < 0.1 + 0.4 * (part + 1) / 2
    delta = it.eps * torch.where(noisy, it.uniform(x), it.kept["pattern"][y])
    x_start = (x + delta if way >= 0 else x - delta).clamp(0, 1).requires_grad_()
    z = it.model(x_start)
    (g,) = torch.autograd.grad(F.cross_entropy(z, y), x_start, retain_graph=True)
    z_adv = it.model(it.clip(x_start.detach() + it.eps * g.sign(), x))
    p, q = z.softmax(dim=1), z_adv.softmax(dim=1)
    m = ((p + q) / 2).log()
    distance: Tensor = ((p * (p.log() - m)).sum(dim=1) + (q * (q.log() - m)).sum(dim=1)).mean() / 2
    loss: Tensor = F.cross_entropy(z_adv, y) + 100 * share * distance
    return loss


def fgsm_pgi(it: Plain, x: Tensor, y: Tensor, share: float, rows: list[int], epoch: int) -> Tensor:
    """One step from each image's perturbation of the previous epoch, updated with momentum."""
    if epoch % 40 == 0:
        prior, momentum = it.eps * it.uniform(x).sign(), torch.zeros_like(x)
    else:
        prior, momentum = (torch.stack([it.kept[row][i] for row in rows]) for i in (0, 1))
    x_start = (x + prior).requires_grad_()
    z = it.model(x_start)
    (g,) = torch.autograd.grad(F.cross_entropy(z, y), x_start, retain_graph=True)
    momentum = g / g.abs().sum() + 0.3 * momentum
    x_adv = it.clip(x_start.detach() + it.eps * g.sign(), x)
    after = it.clip(x_start.detach() + it.eps * momentum.sign(), x) - x
    it.kept |= {row: (after[i], momentum[i]) for i, row in enumerate(rows)}
    z_adv = it.model(x_adv)
    return F.cross_entropy(z_adv, y) + 10 * F.mse_loss(z_adv, z)


def start_within(it: Plain, x: Tensor, reach: float = 1.0) -> Tensor:
    """Return x with uniform noise, clipped to [0, 1]."""
    return (x + reach * it.eps * it.uniform(x)).clamp(0, 1)


def gradient_at(it: Plain, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the summed cross entropy, in eval mode."""
    it.model.eval()
    at = x.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(it.model(at), y, reduction="sum"), at)
    it.model.train()
    return g


def zero_grad(it: Plain, x: Tensor, y: Tensor, share: float) -> Tensor:
    """FGSM, with the step set to 0 where |gradient| is below the image's 0.4 quantile."""
    x_start = start_within(it, x)
    moved = torch.zeros_like(x)
    for i, g in enumerate(gradient_at(it, x_start, y)):
        moved[i] = torch.where(g.abs() < torch.quantile(g.abs(), 0.4), 0.0, g.sign())
    return F.cross_entropy(it.model(it.clip(x_start + 2 * it.eps * moved, x)), y)


def multi_grad(it: Plain, x: Tensor, y: Tensor, share: float) -> Tensor:
    """FGSM, with the step set to 0 unless the gradients at three random points have the same sign."""
    one, two, three = (gradient_at(it, start_within(it, x), y).sign() for _ in range(3))
    agreed = torch.where((one == two) & (two == three), one, torch.zeros_like(one))
    return F.cross_entropy(it.model(it.clip(x + 2 * it.eps * agreed, x)), y)


def ssat(it: Plain, x: Tensor, y: Tensor, share: float) -> Tensor:
    """Each image at 1/3, 2/3 or all of its perturbation, the smallest of these that fools the network."""
    x_start = start_within(it, x)
    whole = it.climb(x_start, x, 1.25 * it.eps, lambda out: F.cross_entropy(out, y))
    x_adv = whole.clone()
    for i, label in enumerate(y):
        if it.clean(x_start[i : i + 1]).argmax() != label:
            x_adv[i] = x[i]
            continue
        for k in (1, 2):
            point = x[i] + k * (whole[i] - x[i]) / 3
            if it.clean(point[None]).argmax() != label:
                x_adv[i] = point
                break
    return F.cross_entropy(it.model(x_adv), y)


def rs_cs(it: Plain, x: Tensor, y: Tensor, share: float, epoch: int) -> Tensor:
    """Fast AT, plus or minus the loss at the start if that is far from its mean in the previous epoch."""
    x_start = start_within(it, x).requires_grad_()
    z = it.model(x_start)
    (g,) = torch.autograd.grad(F.cross_entropy(z, y), x_start, retain_graph=True)
    near = F.cross_entropy(z, y)
    loss = F.cross_entropy(it.model((x_start.detach() + it.eps * g.sign()).clamp(0, 1)), y)
    it.kept.setdefault(epoch, []).extend([near.item()] * len(y))
    if epoch >= 2:
        away = near.item() - sum(it.kept[epoch - 1]) / len(it.kept[epoch - 1])
        loss = loss + near if away > 0.03 else loss - near if away < -0.03 else loss
    return loss


def elle(it: Plain, x: Tensor, y: Tensor, share: float, beta: float = 10000.0) -> Tensor:
    """FGSM plus the deviation of the loss from linearity between two random points; beta for eps 22/255 to 26/255."""
    loss = F.cross_entropy(it.model(it.climb(x, x, it.eps, lambda out: F.cross_entropy(out, y))), y)
    a, b = x + it.eps * it.uniform(x), x + it.eps * it.uniform(x)
    t = (it.uniform(x[:, :1, :1, :1]) + 1) / 2
    losses = F.cross_entropy(it.model(torch.cat([a, b, (1 - t) * a + t * b])), torch.cat([y, y, y]), reduction="none")
    n, t = len(y), t.flatten()
    return loss + beta * F.mse_loss(losses[2 * n :], (1 - t) * losses[:n] + t * losses[n : 2 * n])


def aaer(it: Plain, x: Tensor, y: Tensor, share: float, noise: float, step: float, beta: float, reach: float) -> Tensor:
    """FGSM plus a penalty if outputs move further on abnormal examples (the step lowers their loss) than on others."""
    x_start = start_within(it, x, noise).requires_grad_()
    z = it.model(x_start)
    before = F.cross_entropy(z, y, reduction="none")
    (g,) = torch.autograd.grad(before.mean(), x_start)
    z_adv = it.model(it.clip(x_start.detach() + step * it.eps * g.sign(), x, reach))
    after = F.cross_entropy(z_adv, y, reduction="none")
    loss, abnormal = after.mean(), [i for i in range(len(y)) if before[i] > after[i]]
    normal = [i for i in range(len(y)) if i not in abnormal]
    if abnormal and normal:
        moved = ((z_adv - z.detach()) ** 2).sum(dim=1)
        apart = moved[abnormal].mean() - moved[normal].mean().item()
        loss = loss + beta * len(abnormal) / len(y) * max(apart, torch.zeros_like(apart))
    return loss


def uap(it: Plain, x: Tensor, y: Tensor, share: float, classes: int) -> Tensor:
    """One step from a universal perturbation, one for all images or one per class."""
    labels, reach = (y if classes > 1 else torch.zeros_like(y)).tolist(), 1.25 * it.eps
    if "u" not in it.kept:
        unit = x.new_empty(classes * x[0].numel(), 1).uniform_(-1, 1, generator=it.random)
        it.kept["u"] = [reach * torch.where(row < 0, -1.0, 1.0).to(x) for row in unit.view(classes, *x.shape[1:])]
        it.kept["momentum"] = [torch.zeros_like(x[0]) for _ in range(classes)]
    x_start = it.clip(x + torch.stack([it.kept["u"][label] for label in labels]), x).requires_grad_()
    z = it.model(x_start)
    (g,) = torch.autograd.grad(F.cross_entropy(z, y), x_start, retain_graph=True)
    z_adv = it.model(it.clip(x_start.detach() + it.eps * g.sign(), x))
    g = g / g.abs().sum()
    for label in set(labels):
        mean = g[[i for i, other in enumerate(labels) if other == label]].mean(dim=0)
        it.kept["momentum"][label] = mean + 0.3 * it.kept["momentum"][label]
        it.kept["u"][label] = (it.kept["u"][label] + reach * it.kept["momentum"][label].sign()).clamp(-reach, reach)
    return F.cross_entropy(z_adv, y) + 10 * F.mse_loss(z_adv, z)


def pco(it: Plain, x: Tensor, y: Tensor, share: float, rows: list[int], epoch: int) -> Tensor:
    """Mixtures of the start and the perturbed image, weighted by the probability of the label."""
    coins = torch.where(it.uniform(x) < 0, -1.0, 1.0).to(x) if epoch == 0 else None
    prior = it.eps * coins if coins is not None else torch.stack([it.kept[row] for row in rows])
    x_start = (x + prior).requires_grad_()
    z = it.model(x_start)
    (g,) = torch.autograd.grad(F.cross_entropy(z, y), x_start, retain_graph=True)
    x_adv = it.clip(x_start.detach() + it.eps * g.sign(), x)
    it.kept |= {row: x_adv[i] - x[i] for i, row in enumerate(rows)}
    p = z.softmax(dim=1)[torch.arange(len(y)), y][:, None, None, None]
    z_mid = it.model((1 - p) * x_start.detach() + p * (x + 1.5 * (x_adv - x)))
    z_adv = it.model(x_adv)
    return F.cross_entropy(z_mid, y) + 10 * (F.mse_loss(z_adv, z) - F.mse_loss(z_adv, z_mid)).abs()


def atas(it: Plain, x: Tensor, y: Tensor, share: float, rows: list[int], epoch: int, warmup: int) -> Tensor:
    """One step from each image's previous perturbation, with a step size per image."""
    delta = it.eps * it.uniform(x) if epoch == 0 else torch.stack([it.kept["delta", row] for row in rows])
    x_start = (x + delta).clamp(0, 1)
    moved = torch.zeros_like(x)
    for i, g in enumerate(gradient_at(it, x_start, y)):
        size = it.eps
        if epoch >= warmup:
            v = 0.5 * it.kept.get(("v", rows[i]), 0.0) + 0.5 * float(g.norm()) ** 2
            it.kept["v", rows[i]] = v
            size = min(max(2 * it.eps / (1 + math.sqrt(v) / 1.28), it.eps / 2), 1.75 * it.eps)
        moved[i] = size * g.sign()
    x_adv = it.clip(x_start + moved, x)
    it.kept |= {("delta", row): x_adv[i] - x[i] for i, row in enumerate(rows)}
    return F.cross_entropy(it.model(x_adv), y)


def llr(it: Plain, x: Tensor, y: Tensor, share: float, growing: float = 0.005) -> Tensor:
    """The largest deviation from the tangent of the loss within the ball, which grows at first, and the slope there."""
    reach = min(share / growing, 1.0)
    still, g = F.cross_entropy(it.clean(x), y, reduction="none"), gradient_at(it, x, y)
    x_adv = it.clip(x + reach * it.eps * it.uniform(x), x, reach)
    for _ in range(10):
        tangent = still + ((x_adv - x) * g).flatten(1).sum(dim=1)
        x_adv = it.climb(x_adv, x, it.eps, _off(tangent, y), reach)
    at = x.clone().requires_grad_()
    natural = F.cross_entropy(it.model(at), y, reduction="none")
    (g,) = torch.autograd.grad(natural.sum(), at, create_graph=True)
    rise = ((x_adv - x) * g).flatten(1).sum(dim=1)
    off = (F.cross_entropy(it.model(x_adv), y, reduction="none") - natural - rise).abs()
    return (2 * natural + 4 * off + 1.2 * rise.abs()).mean()


def _off(tangent: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda out: (F.cross_entropy(out, y, reduction="none") - tangent).abs().sum()


def dynamic_at(it: Plain, x: Tensor, y: Tensor, share: float) -> Tensor:
    """PGD that stops for each image once its FOSC is below a limit, which decreases during training."""
    limit, x_adv = max(0.5 - 0.5 * share * 6 / 5, 0.0), x + it.eps * it.uniform(x)
    for i in range(len(y)):
        own, label = x[i : i + 1], y[i : i + 1]
        for k in range(10):
            at = x_adv[i : i + 1].clone()
            g = gradient_at(it, at, label)
            if k and it.eps * g.abs().sum() - ((at - own) * g).sum() <= limit:
                break
            x_adv[i : i + 1] = it.clip(at + it.eps / 4 * g.sign(), own)
    return F.cross_entropy(it.model(x_adv), y)


def _steps(function: Callable[..., Tensor], steps: int, of_eps: float, **more: Any) -> Callable[..., Tensor]:
    return lambda it, x, y, share: function(it, x, y, share, steps=steps, step=of_eps * it.eps, **more)


PLAIN: dict[str, Callable[..., Tensor]] = {
    "natural": natural,
    "at": _steps(pgd, 10, 1 / 4),
    "fast-at": _steps(pgd, 1, 10 / 8),
    "fast-at-plus": fast_at_plus,
    "trades": _steps(trades, 10, 1 / 4, gaussian=True),
    "fast-trades": _steps(trades, 1, 1.0),
    "fast-trades-2": _steps(trades, 2, 1.0),
    "bs": bs,
    "bs-alone": lambda it, x, y, share: bs(it, x, y, share, steps=0),
    "bs-at": bs_at,
    "n-fgsm": n_fgsm,
    "liet": liet,
    "gradalign": gradalign,
    "free-at": free_at,
    "mart": mart,
    "nuat": lambda it, x, y, share: guided(it, x, y, share, nuclear=True),
    "fgsm-pgi": fgsm_pgi,
    "gat": lambda it, x, y, share: guided(it, x, y, share, nuclear=False),
    "fgsm-mep": fgsm_pgi,
    "zero-grad": zero_grad,
    "multi-grad": multi_grad,
    "ssat": ssat,
    "rs-cs": rs_cs,
    "elle": elle,
    "rs-aaer": lambda it, x, y, share: aaer(it, x, y, share, noise=1.0, step=1.25, beta=3.25, reach=1.0),
    "n-aaer": lambda it, x, y, share: aaer(it, x, y, share, noise=2.0, step=1.0, beta=1.5, reach=math.inf),
    "uap": lambda it, x, y, share: uap(it, x, y, share, classes=1),
    "cuap": uap,
    "pco": pco,
    "atas": atas,
    "llr": llr,
    "dynamic-at": dynamic_at,
    "rst": _steps(trades, 10, 1 / 4, gaussian=True),
}
