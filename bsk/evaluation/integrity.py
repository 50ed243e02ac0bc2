"""When not to believe a robust accuracy: signs that the attacks, and not the model, are weak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bsk.attacks.outcome import Outcome
from bsk.attacks.pgd import pgd
from bsk.attacks.square import square
from bsk.data.batches import to_unit
from bsk.evaluation.verdicts import Examples, exact, steady
from bsk.perturb.ascent import Model
from bsk.perturb.draws import example_draws
from bsk.perturb.losses import cross_entropy
from bsk.perturb.radius import step_at

N = 64  # examples that are looked at
STEPS, EARLIER = 100, (10, 50)
QUERIES = 200  # of the attack that sees no gradient
SAME = 1e-4  # of two outputs for the same image. Source: AutoAttack's check for randomised defences
ZERO, FALLING, BLACK_BOX, LOSSES_APART = 0.05, 0.04, 0.04, 0.15  # shares of examples that raise a doubt
SQUARE_GAIN = 0.002  # of all examples. Source: AutoAttack's check of Square


@dataclass(frozen=True)
class Look:
    """What was seen: numbers for the record, and doubts, each a line for a person."""

    facts: dict[str, Any]
    doubts: tuple[str, ...]


def look_at(model: nn.Module, examples: Examples, *, eps: float, seed: int, device: torch.device) -> Look:
    """Examine a model on the first 64 examples, within eps: its outputs, and if attacks on it behave.

    Shares are of the examples looked at that the model gets right. Passes made here are not counted anywhere.

    Source: Carlini et al. (2019), "On evaluating adversarial robustness"; Pintor et al. (2022), "Indicators of
    attack failure"; the checks of AutoAttack's code. The thresholds leave honest models alone (see the tests).
    """
    rows = torch.arange(min(N, len(examples.labels)))
    x, y = to_unit(examples.take(rows).to(device)), examples.labels[rows].to(device)
    index = examples.index[rows].tolist()
    before = [tensor.clone() for tensor in model.state_dict().values()]
    with exact(model):
        forward = steady(model)
        facts, doubts = _outputs(forward, x)
        right = _right(forward, x, y)
        if eps > 0 and bool(right.any()):
            x, y, index = x[right], y[right], [i for i, ok in zip(index, right.tolist(), strict=True) if ok]
            for more, doubt in (_gradients(forward, x, y), _attacks(forward, x, y, eps, seed, index)):
                facts.update(more)
                doubts += doubt
    changed = any(not torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    facts["changes_at_test_time"] = changed
    if changed:
        doubts.append("its parameters or statistics change while it is evaluated; the order of images then matters")
    return Look(facts, tuple(doubts))


def _right(model: Model, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(dim=1) == y


def _outputs(model: Model, x: Tensor) -> tuple[dict[str, Any], list[str]]:
    with torch.no_grad():
        first, second = model(x), model(x)
    random = float((first - second).abs().max()) > SAME
    sums = (first.sum(dim=1) - 1).abs().max()
    softmax = bool(first.min() >= 0) and bool(first.max() <= 1) and float(sums) < 1e-3
    doubts = []
    if random:
        doubts.append("its output is random; attacks must average over it: use autoattack-rand")
    if softmax:
        doubts.append("its output looks like probabilities; attacks need logits: take the softmax out of the model")
    return {"random": random, "softmax": softmax}, doubts


def _gradients(model: Model, x: Tensor, y: Tensor) -> tuple[dict[str, Any], list[str]]:
    leaf = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(leaf), y).sum(), leaf)
    share = float((gradient.flatten(1).abs().amax(dim=1) == 0).float().mean())
    doubt = [f"the gradient is zero for {share:.0%} of images; attacks that climb it are blind there"]
    return {"zero_gradients": share}, doubt if share >= ZERO else []


def _attacks(
    model: Model, x: Tensor, y: Tensor, eps: float, seed: int, index: list[int]
) -> tuple[dict[str, Any], list[str]]:
    draws = example_draws(seed, "integrity", index, x.device)
    step = step_at(2 / 255, eps)
    by_loss = {
        loss: pgd(model, x, y, draws, eps=eps, step=step, steps=STEPS, loss=loss)
        for loss in ("cross_entropy", "margin")
    }
    standing = ~(by_loss["cross_entropy"].fooled | by_loss["margin"].fooled)
    blind = 0.0
    if bool(standing.any()):
        found = square(model, x[standing], y[standing], draws.keep(standing), eps=eps, queries=QUERIES)
        blind = int(found.fooled.sum()) / len(y)
    *earlier, last = (_accuracy_after(by_loss["cross_entropy"], k) for k in (*EARLIER, STEPS))
    margin = _accuracy_after(by_loss["margin"], STEPS)
    facts = {f"pgd_{k}": accuracy for k, accuracy in zip((*EARLIER, STEPS), (*earlier, last), strict=True)}
    facts |= {"margin_100": margin, "black_box_gain": blind, "checked": len(y)}
    doubts = []
    if earlier[-1] - last >= FALLING:
        doubts.append(f"PGD still gains after {EARLIER[-1]} steps ({earlier[-1]:.0%}, then {last:.0%}); take more")
    if blind >= BLACK_BOX:
        doubts.append(f"an attack without gradients fools {blind:.0%} that PGD leaves standing: gradients mislead")
    if abs(last - margin) >= LOSSES_APART:
        doubts.append(f"PGD leaves {last:.0%} by cross entropy and {margin:.0%} by the margin: a loss is blind")
    return facts, doubts


def _accuracy_after(outcome: Outcome, steps: int) -> float:
    """Return the accuracy that so many steps would have left: an example leaves with its steps + 1 passes."""
    return 1.0 - float((outcome.fooled & (outcome.forward <= steps + 1)).float().mean())


def late_doubts(accuracies: dict[str, float], n: int) -> list[str]:
    """Return what the stages of one evaluation say together; `accuracies` after each, in order, of n examples."""
    names = list(accuracies)
    if "square" not in names or names.index("square") < 2:
        return []
    gain = accuracies[names[names.index("square") - 1]] - accuracies["square"]
    if gain <= SQUARE_GAIN or round(gain * n) < 2:
        return []
    return [f"Square fools {gain:.1%} that the attacks before it, with gradients, left standing: gradients mislead"]
