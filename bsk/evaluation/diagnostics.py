"""Signs that a robust accuracy is too high because the attacks fail, as with masked gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
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
from bsk.evaluation.calls import ROWS, Checked, counted, exact, rough, rows_within, steady
from bsk.evaluation.threads import shared_threads
from bsk.evaluation.verdicts import Examples
from bsk.models.modes import HALF
from bsk.perturb.ascent import Model
from bsk.perturb.draws import ExampleDraws, example_draws, own_randomness
from bsk.perturb.gradients import NoGradientError, raw_gradient
from bsk.perturb.losses import cross_entropy, margin
from bsk.perturb.radius import step_at

N = 64  # examples examined
FEW = 3  # images, at least, that must show a sign
STEPS = (10, 50, 100)
MARGIN_STEPS = 50  # on models without masked gradients neither loss gains anything after them
NEVER = 10**6  # steps
QUERIES = 250  # of the black-box attack
PARTS = {"outputs": 2, "gradients": 5, "attacks": 553}  # passes per image, forward and backward
ALONE = 16  # rows of the call that has one image alone; also the fewest images worth examining
PROBE = 1 / 1024  # step of the gradient test: small enough for local linearity, large enough for fp32
SAME = 1e-4  # relative tolerance of equal outputs. Source: AutoAttack's check of randomised defences
SQUARE_GAIN = 0.002  # fraction of all examples. Source: AutoAttack's check of Square

_BLIND = "use attacks that need no gradient, square and rays"
SIGNS = (  # fact; least share of the images examined; least share of the images that PGD fools, if any; doubt
    (
        "flat",
        0.05,
        None,
        "the outputs of {:.0%} of images are all equal, so the first class is predicted: treat abstentions as errors",
    ),
    ("nan_gradients", 0.02, None, f"the gradient is NaN for {{:.0%}} of images and treated as 0: {_BLIND}"),
    ("zero_gradients", 0.05, None, f"the gradient is zero for {{:.0%}} of images: {_BLIND}"),
    (
        "zero_at_bounds",
        0.05,
        None,
        "pixels of 0 and 1 have no gradient in {:.0%} of images: remove the clamp in the model",
    ),
    ("wrong_gradients", 0.15, None, f"the gradient is wrong for {{:.0%}} of images: {_BLIND}"),
    (
        "lost_in_search",
        0.05,
        None,
        "half precision loses the gradient of {:.0%} of images, so the search misses them: leave out --search",
    ),
    ("black_box_gain", 0.04, None, f"Square fools {{:.0%}} that PGD does not, so gradients mislead: {_BLIND}"),
    ("gain_after_10", 0.15, None, "PGD fools {:.0%} more after its first 10 steps: use pgd-100 or autoattack"),
    ("gain_after_50", 0.04, None, "PGD fools {:.0%} more after 50 steps: use more steps, or autoattack"),
    (
        "cross_entropy_misses",
        0.14,
        0.60,
        "PGD on cross-entropy misses {:.0%} that the margin loss finds: use cw-100 too",
    ),
    ("margin_misses", 0.30, 0.60, "PGD on the margin misses {:.0%} that cross-entropy finds: use pgd-100, not cw"),
)


@dataclass(frozen=True)
class Diagnostics:
    """The results of an examination: numbers for the record, and doubts, one readable line each."""

    facts: dict[str, Any]
    doubts: tuple[str, ...]


def look_at(
    model: nn.Module,
    examples: Examples,
    *,
    eps: float,
    seed: int,
    device: torch.device,
    batch_size: int = N,
    parts: Sequence[str] = tuple(PARTS),
    passes: int | None = None,
    search: str = "fp32",
    share: Share = WHOLE,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Diagnostics:
    """Examine a model on the first 64 examples: its outputs, its gradients, and whether attacks behave as they should.

    Rates are fractions of the examined examples that the model classifies correctly. The passes made here are counted
    nowhere. All processes return the same result; each attacks its share of the examples, unless the output for an
    image depends on more than that image.

    Args:
        model: from images (N, C, H, W) in [0, 1] to logits.
        examples: the examples of the evaluation.
        eps: Linf radius for pixels in [0, 1]; with 0 only outputs are examined.
        seed: of the attacks.
        device: where the model is.
        batch_size: rows of a model call, at most.
        parts: what to examine, a prefix of PARTS.
        passes: budget of forward and backward passes, None for no limit; if it is too small, fewer examples are used,
            or whole parts are skipped, which `left_out` in the facts names.
        search: the precision of the attack's search; if it is low, its gradients are compared with those in fp32.
        share: the part of the examples that this process attacks.
        watch: called with passes done and passes in total.

    Source: Carlini et al. (2019), "On evaluating adversarial robustness"; Pintor et al. (2022), "Indicators of
    attack failure"; the checks in AutoAttack's code. The thresholds raise no doubt on adversarially trained models
    (see the tests).
    """
    asked, n = parts if eps > 0 else parts[:1], min(N, len(examples.labels))
    parts, n = (asked, n) if passes is None else _within(passes, n, asked)
    if not parts:
        return Diagnostics({"left_out": [*asked]}, ())
    rows = torch.arange(n)
    x, y = to_unit(examples.take(rows).to(device)), examples.labels[rows].to(device)
    before = [tensor.clone() for tensor in _state(model)]
    total = ALONE + n * sum(PARTS[part] for part in parts)
    watch(0, total)
    with exact(model), shared_threads(device, fixed=True), own_randomness(device, seed, "integrity"):
        checked = Checked(model)
        forward = counted(steady(checked, batch_size), lambda passes: watch(min(passes, total), total))
        with _watched(model) as dtypes:
            facts, logits = _outputs(forward, x[: rows_within(batch_size)])
        facts["half_precision"] = bool(dtypes & HALF)
        with torch.no_grad():
            rest = [forward(part) for part in x[len(logits) :].split(batch_size) if len(part)]
            logits = torch.cat([logits, *rest])
            right = logits.argmax(dim=1) == y
        facts["checked"] = int(right.sum())
        facts["flat"] = _share((logits == logits[:, :1]).all(dim=1))  # as of a network that abstains by zeros
        index = examples.index[rows][right.cpu()].tolist()
        if index and "gradients" in parts:
            facts |= _gradients(forward, x[right], y[right], rows_within(batch_size))
        if search != "fp32" and "zero_gradients" in facts:
            low = steady(rough(model, search), batch_size)
            facts["lost_in_search"] = _lost(forward, low, x[right], y[right], rows_within(batch_size))
        if index and "attacks" in parts and not facts.get("no_gradients"):
            each = WHOLE if facts["random"] or facts["depends_on_batch"] else share
            facts |= _attacks(forward, x[right], y[right], eps, seed, index, each, rows_within(batch_size))
        checked.settle()
    watch(total, total)
    facts["changes_at_test_time"] = not all(map(torch.equal, before, _state(model)))
    facts |= {"left_out": [*asked[len(parts) :]]} if len(parts) < len(asked) else {}
    return Diagnostics(facts, tuple(_doubts(facts)))


def _within(passes: int, n: int, asked: Sequence[str]) -> tuple[Sequence[str], int]:
    """Return which of the requested parts fit into a budget of passes, and for how many of n images.

    Fewer than n images are a multiple of ROWS, because batches are padded to it.
    """
    for parts in (asked[:last] for last in range(len(asked), 0, -1)):
        images = (passes - ALONE) // sum(PARTS[part] for part in parts)
        images = n if images >= n else images - images % ROWS
        if images >= min(n, ALONE):
            return parts, images
    return [], 0


@contextlib.contextmanager
def _watched(model: nn.Module) -> Iterator[set[torch.dtype]]:
    """Collect the dtypes of layer outputs within the block."""
    found: set[torch.dtype] = set()

    def see(module: nn.Module, inputs: object, output: object) -> None:
        found.update([output.dtype] if isinstance(output, Tensor) else [])

    layers = [layer for layer in model.modules() if not isinstance(layer, torch.jit.ScriptModule)]
    handles = [layer.register_forward_hook(see) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _state(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _outputs(model: Model, x: Tensor) -> tuple[dict[str, Any], Tensor]:
    """Compare two calls on the same batch and a call on its first image alone; return the facts and the logits."""
    with torch.no_grad():
        first, second, alone = (model(each).detach() for each in (x, x, x[:1]))
    same = SAME * max(1.0, float(first.abs().max()))
    sums = float((first.sum(dim=1) - 1).abs().max())
    random = float((first - second).abs().max()) > same
    facts = {
        "random": random,
        "depends_on_batch": not random and float((first[:1] - alone).abs().max()) > same,
        "softmax": float(first.min()) >= 0 and float(first.max()) <= 1 and sums < 1e-3,
    }
    return facts, first


def _gradients(model: Model, x: Tensor, y: Tensor, most: int) -> dict[str, Any]:
    """Return the share of images whose gradient is zero, zero only where a value is 0 or 1, wrong, or NaN.

    A gradient is zero for the cross-entropy loss. If a model clamps its images, attacks leave pixels of 0 and 1 as they
    are, because from torch 2.14 on the gradient of `clamp` is 0 at its bounds. A gradient is wrong if a small step
    along the sign of the margin's gradient, within the pixel range, raises the margin by less than half of the
    first-order prediction.
    """
    try:
        seen = [_slopes(model, *part) for part in zip(x.split(most), y.split(most), strict=True)]
    except NoGradientError:
        return {"no_gradients": True}
    names = ("zero_gradients", "zero_at_bounds", "wrong_gradients", "nan_gradients")
    return {name: _share(torch.cat(each)) for name, each in zip(names, zip(*seen, strict=True), strict=True)}


def _slopes(model: Model, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Return for each image whether its gradient is zero, zero where x is 0 or 1, wrong, or NaN anywhere, (N,) each."""
    leaf = x.detach().requires_grad_()
    logits = model(leaf)
    steep = raw_gradient(cross_entropy(logits, y), leaf, keep=True)
    gradient = raw_gradient(margin(logits, y), leaf)
    up, down = ((x + way * PROBE * gradient.sign()).clamp(0, 1) for way in (1, -1))
    promised = ((up - down) * gradient).flatten(1).sum(dim=1)
    with torch.no_grad():
        rise = margin(model(up), y) - margin(model(down), y)
    visible = promised > 1e-5 * logits.detach().abs().amax(dim=1)  # above the rounding of fp32
    zero = steep.flatten(1).abs().amax(dim=1) == 0
    edge = ((x == 0) | (x == 1)).flatten(1)
    stuck = edge.any(dim=1) & ~(edge & (steep.flatten(1) != 0)).any(dim=1) & ~zero
    return zero, stuck, visible & (rise < promised / 2), (steep + gradient).flatten(1).isnan().any(dim=1)


def _lost(model: Model, low: Model, x: Tensor, y: Tensor, most: int) -> float:
    """Return the share of images with a gradient in fp32 and none, or none that is finite, in the low precision.

    fp16 has no numbers above 65,504, nor between 0 and 6e-8, whereas the gradients of images that the model is sure of
    are small.
    """
    lost = []
    for at, label in zip(x.split(most), y.split(most), strict=True):
        seen = []
        for each in (model, low):
            leaf = at.detach().requires_grad_()
            gradient = raw_gradient(cross_entropy(each(leaf), label), leaf).flatten(1)
            seen.append(gradient.isfinite().all(dim=1) & (gradient != 0).any(dim=1))
        lost.append(seen[0] & ~seen[1])
    return _share(torch.cat(lost))


def _attacks(
    model: Model, x: Tensor, y: Tensor, eps: float, seed: int, index: list[int], share: Share, most: int
) -> dict[str, Any]:
    """Attack this process's share of N images, and return facts about the images of all processes."""
    mine = share.of(torch.arange(len(y), device=y.device))
    seen = torch.zeros(3, len(y), dtype=torch.int64, device=y.device)
    for rows in mine.split(most):
        draws = example_draws(seed, "integrity", [index[row] for row in rows.tolist()], x.device)
        seen[:, rows] = _seen(model, x[rows], y[rows], draws, eps)
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
    """Return (3, N): steps until PGD on each loss fools an image, and whether Square does where both fail."""
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
    """Return the steps until each example was fooled, or NEVER; there is one forward pass more than steps."""
    return torch.where(outcome.fooled, outcome.forward - 1, NEVER)


def _share(mask: Tensor) -> float:
    return int(mask.sum()) / len(mask)


def _doubts(facts: dict[str, Any]) -> list[str]:
    """Return the doubts that the facts raise; an output that depends on more than the image explains all others."""
    doubts = []
    if facts["changes_at_test_time"]:
        doubts.append(
            "its parameters or statistics change during evaluation, so the order of images matters: freeze them"
        )
    if facts["random"]:
        return [*doubts, "its output is random, so attacks must average over it: use autoattack-rand"]
    if facts["depends_on_batch"]:
        return [*doubts, "its output for an image depends on the rest of the batch: normalise with stored statistics"]
    if facts.get("half_precision"):
        doubts.append("it computes in half precision, so this is not an fp32 result: remove autocast from the model")
    if facts.get("no_gradients"):
        doubts.append("it has no gradient, so only its output was examined; square and rays need none")
    if facts["softmax"]:
        doubts.append("its output looks like probabilities, but attacks need logits: remove the softmax from the model")
    for name, share, of_fooled, doubt in SIGNS:
        seen, least = facts.get(name, 0.0), share
        if of_fooled is not None:
            least = min(share, of_fooled * facts.get("fooled", 1.0))
        if seen >= least and round(seen * facts["checked"]) >= FEW:
            doubts.append(doubt.format(seen))
    return doubts


def late_doubts(accuracies: dict[str, float], n: int) -> list[str]:
    """Return the doubts that the stages of one evaluation raise, from the accuracy after each, on n examples."""
    names = list(accuracies)
    if "square" not in names or names.index("square") < 2:
        return []
    gain = accuracies[names[names.index("square") - 1]] - accuracies["square"]
    if round(gain * n) <= max(1, SQUARE_GAIN * n):  # in images, because 0.48 - 0.478 > 0.002 in floating point
        return []
    return [f"Square fools {gain:.1%} that the attacks before it do not, so gradients mislead: run rays too"]
