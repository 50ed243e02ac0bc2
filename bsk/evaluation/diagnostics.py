"""When not to believe a robust accuracy: signs that the attacks, and not the model, are weak."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from bsk.attacks.outcome import Outcome
from bsk.attacks.pgd import pgd
from bsk.attacks.square import square
from bsk.data.batches import WHOLE, Share, to_unit
from bsk.data.processes import sum_over_processes
from bsk.evaluation.verdicts import Examples, exact, steady
from bsk.perturb.ascent import Model
from bsk.perturb.draws import ExampleDraws, example_draws, own_randomness
from bsk.perturb.losses import cross_entropy, margin
from bsk.perturb.radius import step_at

N = 64  # examples that are looked at
FEW = 3  # so many of them may behave in any way
STEPS = (10, 50, 100)
MARGIN_STEPS = 50  # on honest models neither loss gains anything after them
NEVER = 10**6  # steps
QUERIES = 250  # of the attack that sees no gradient
PROBE = 1 / 1024  # a quarter of a pixel level: there networks are still straight, and fp32 still exact
SAME = 1e-4  # of two outputs for one image, to the largest. Source: AutoAttack's check for randomised defences
SQUARE_GAIN = 0.002  # of all examples. Source: AutoAttack's check of Square

_BLIND = "trust attacks that need none, square and rays"
SIGNS = (  # a fact; from which share on it raises a doubt, of the images looked at or of those PGD fools; the doubt
    ("zero_gradients", 0.05, None, f"the gradient is zero for {{:.0%}} of images: {_BLIND}"),
    ("wrong_gradients", 0.15, None, f"the gradient is wrong for {{:.0%}} of images: {_BLIND}"),
    ("black_box_gain", 0.04, None, f"Square fools {{:.0%}} that PGD leaves standing, so gradients mislead: {_BLIND}"),
    ("gain_after_10", 0.15, None, "PGD gains {:.0%} after its first 10 steps: use pgd-100 or autoattack"),
    ("gain_after_50", 0.04, None, "PGD still gains {:.0%} after 50 steps: take more steps, or autoattack"),
    ("cross_entropy_misses", 0.14, 0.60, "PGD on cross entropy misses {:.0%} that the margin finds: use cw-100 too"),
    ("margin_misses", 0.30, 0.60, "PGD on the margin misses {:.0%} that cross entropy finds: use pgd-100, not cw"),
)


@dataclass(frozen=True)
class Diagnostics:
    """What was seen: numbers for the record, and doubts, each a line for a person."""

    facts: dict[str, Any]
    doubts: tuple[str, ...]


def look_at(
    model: nn.Module, examples: Examples, *, eps: float, seed: int, device: torch.device, share: Share = WHOLE
) -> Diagnostics:
    """Examine a model on the first 64 examples, within eps: its outputs, and if attacks on it behave.

    Rates are of the examples looked at that the model gets right. Passes made here are not counted anywhere. Several
    processes see the same: each attacks its share, unless the model's answer depends on more than the image.

    Source: Carlini et al. (2019), "On evaluating adversarial robustness"; Pintor et al. (2022), "Indicators of
    attack failure"; the checks of AutoAttack's code. The thresholds leave honest models alone (see the tests).
    """
    rows = torch.arange(min(N, len(examples.labels)))
    x, y = to_unit(examples.take(rows).to(device)), examples.labels[rows].to(device)
    before = [tensor.clone() for tensor in _state(model)]
    with exact(model), own_randomness(device, seed, "integrity"):
        forward = steady(model)
        facts = _outputs(forward, x)
        with torch.no_grad():
            right = forward(x).argmax(dim=1) == y
        facts["checked"] = int(right.sum())
        if eps > 0 and facts["checked"]:
            index = examples.index[rows][right.cpu()].tolist()
            facts |= _gradients(forward, x[right], y[right])
            each = WHOLE if facts["random"] or facts["depends_on_batch"] else share
            facts |= _attacks(forward, x[right], y[right], eps, seed, index, each)
    facts["changes_at_test_time"] = not all(map(torch.equal, before, _state(model)))
    return Diagnostics(facts, tuple(_doubts(facts)))


def _state(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _outputs(model: Model, x: Tensor) -> dict[str, Any]:
    """Ask twice, then for the first image without the others."""
    with torch.no_grad():
        first, second, alone = model(x), model(x), model(x[:1])
    same = SAME * max(1.0, float(first.abs().max()))
    sums = float((first.sum(dim=1) - 1).abs().max())
    random = float((first - second).abs().max()) > same
    return {
        "random": random,
        "depends_on_batch": not random and float((first[:1] - alone).abs().max()) > same,
        "softmax": float(first.min()) >= 0 and float(first.max()) <= 1 and sums < 1e-3,
    }


def _gradients(model: Model, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Say for how many images cross entropy has no gradient, and where the margin does not rise as its gradient says.

    It is wrong where a small step along its sign, within the pixels' range, does less than half of what it promises.
    """
    leaf = x.detach().requires_grad_()
    logits = model(leaf)
    (steep,) = torch.autograd.grad(cross_entropy(logits, y).sum(), leaf, retain_graph=True)
    (gradient,) = torch.autograd.grad(margin(logits, y).sum(), leaf)
    up, down = ((x + way * PROBE * gradient.sign()).clamp(0, 1) for way in (1, -1))
    promised = ((up - down) * gradient).flatten(1).sum(dim=1)
    with torch.no_grad():
        rise = margin(model(up), y) - margin(model(down), y)
    visible = promised > 1e-5 * logits.detach().abs().amax(dim=1)  # above the rounding of fp32
    zero = steep.flatten(1).abs().amax(dim=1) == 0
    return {"zero_gradients": _share(zero), "wrong_gradients": _share(visible & (rise < promised / 2))}


def _attacks(
    model: Model, x: Tensor, y: Tensor, eps: float, seed: int, index: list[int], share: Share
) -> dict[str, Any]:
    """Run the attacks below on this process's part of N images, and say what they found of all of them."""
    mine = share.of(torch.arange(len(y), device=y.device))
    seen = torch.zeros(3, len(y), dtype=torch.int64, device=y.device)
    if len(mine):
        draws = example_draws(seed, "integrity", [index[row] for row in mine.tolist()], x.device)
        seen[:, mine] = _seen(model, x[mine], y[mine], draws, eps)
    by_entropy, by_margin, blindly = sum_over_processes(seen, share)
    standing = (by_entropy == NEVER) & (by_margin == NEVER)
    accuracies = [_share(by_entropy > steps) for steps in STEPS]
    margin_accuracy = _share(by_margin > MARGIN_STEPS)
    return {
        **{f"pgd_{steps}": accuracy for steps, accuracy in zip(STEPS, accuracies, strict=True)},
        f"margin_{MARGIN_STEPS}": margin_accuracy,
        **{f"gain_after_{k}": now - later for k, (now, later) in zip(STEPS, pairwise(accuracies), strict=False)},
        "fooled": 1 - _share(standing),
        "cross_entropy_misses": max(0.0, accuracies[-1] - margin_accuracy),
        "margin_misses": max(0.0, margin_accuracy - _share(by_entropy > MARGIN_STEPS)),
        "black_box_gain": _share(blindly),
    }


def _seen(model: Model, x: Tensor, y: Tensor, draws: ExampleDraws, eps: float) -> Tensor:
    """Return (3, N): steps until PGD on either loss fools an image, and if, where both fail, blind Square does."""
    step = step_at(2 / 255, eps)
    first = pgd(model, x, y, draws, eps=eps, step=step, steps=STEPS[-1])
    second = pgd(model, x, y, draws, eps=eps, step=step, steps=MARGIN_STEPS, loss="margin")
    standing = ~(first.fooled | second.fooled)
    blindly = torch.zeros_like(standing)
    if bool(standing.any()):
        blindly[standing] = square(
            model, x[standing], y[standing], draws.keep(standing), eps=eps, queries=QUERIES
        ).fooled
    return torch.stack([_steps(first), _steps(second), blindly.long()])


def _steps(outcome: Outcome) -> Tensor:
    """Return the steps after which each example left, with one forward pass more than steps, or never."""
    return torch.where(outcome.fooled, outcome.forward - 1, NEVER)


def _share(mask: Tensor) -> float:
    return int(mask.sum()) / len(mask)


def _doubts(facts: dict[str, Any]) -> list[str]:
    """Return what the facts are signs of; where the output is not of the image alone, that explains the others."""
    doubts = []
    if facts["changes_at_test_time"]:
        doubts.append("its parameters or statistics change while it is evaluated: freeze them, the order matters now")
    if facts["random"]:
        return [*doubts, "its output is random; attacks must average over it: use autoattack-rand"]
    if facts["depends_on_batch"]:
        return [*doubts, "its output for an image depends on the batch: let it normalise by stored statistics"]
    if facts["softmax"]:
        doubts.append("its output looks like probabilities; attacks need logits: take the softmax out of the model")
    for name, share, of_fooled, doubt in SIGNS:
        seen, least = facts.get(name, 0.0), share
        if of_fooled is not None:
            least = min(share, of_fooled * facts.get("fooled", 1.0))
        if seen >= least and round(seen * facts["checked"]) >= FEW:
            doubts.append(doubt.format(seen))
    return doubts


def late_doubts(accuracies: dict[str, float], n: int) -> list[str]:
    """Return what the stages of one evaluation say together; `accuracies` after each, in order, of n examples."""
    names = list(accuracies)
    if "square" not in names or names.index("square") < 2:
        return []
    gain = accuracies[names[names.index("square") - 1]] - accuracies["square"]
    if round(gain * n) <= max(1, SQUARE_GAIN * n):  # counted, for 0.48 - 0.478 is above 0.002
        return []
    return [f"Square fools {gain:.1%} that the attacks before it leave standing, so gradients mislead: run rays too"]
