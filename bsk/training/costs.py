"""What a training or an evaluation will cost: its passes counted beforehand, and a few of each kind timed here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bsk.attacks.registry import Attack, Stage, attack_named
from bsk.models.folding import standing_still
from bsk.training.divergence import IMAGES as DIVERGENCE_IMAGES
from bsk.training.methods import NEEDS_CLEAN, Method
from bsk.training.optimiser import SGD
from bsk.training.outer import OUTER
from bsk.training.settings import Settings
from bsk.training.step import in_precision
from bsk.training.validation import RESCUE_ATTACK, RESCUE_BATCH, SELECTION_ATTACK, TEST_IMAGES

STANDING = 0.5  # of the examples an attack meets, about; not known before
BLACK_BOX = ("square", "rays")
CHECKED = 64 * 300  # passes of the examination that comes with every attack, about
ENOUGH = 0.5  # seconds that a pass may take before fewer images are timed
REPEATS = 3


@dataclass(frozen=True)
class Passes:
    """Images passed forward, back to the image alone, and back to all weights: numbers, or seconds for one image."""

    forward: float = 0.0
    to_input: float = 0.0
    full: float = 0.0

    def __add__(self, other: Passes) -> Passes:
        """Return the sum, kind by kind."""
        return Passes(self.forward + other.forward, self.to_input + other.to_input, self.full + other.full)

    def __mul__(self, times: float) -> Passes:
        """Return so many times each kind."""
        return Passes(self.forward * times, self.to_input * times, self.full * times)

    def seconds(self, each: Passes) -> float:
        """Return how long they take if one of each kind takes so long."""
        return self.forward * each.forward + self.to_input * each.to_input + self.full * each.full


@dataclass(frozen=True)
class Training:
    """What a training will do: passes of its updates, and beside them in its own precision and in fp32; updates."""

    own: Passes
    beside: Passes
    exact: Passes
    updates: int


def climb_passes(method: Method) -> Passes:
    """Return the passes of one image in one perturbation, as `methods.perturb` makes them."""
    climbs = Passes(forward=method.steps, to_input=method.steps)
    if method.start == "backward":
        climbs += Passes(forward=1, to_input=1)
    elif method.inner in NEEDS_CLEAN and method.steps:
        climbs += Passes(forward=1)
    return climbs


def update_passes(method: Method) -> Passes:
    """Return the passes of one image in the updates of one batch: the perturbation's, and the outer loss's."""
    return climb_passes(method) * method.replays + outer_passes(method)


def outer_passes(method: Method) -> Passes:
    """Return the passes of one image in the outer losses of one batch."""
    outer = OUTER[method.outer]
    return Passes(outer.forward, outer.to_input, outer.full) * method.replays


def training_costs(settings: Settings, images: int, val: int, test: int) -> Training:
    """Return the costs of a training on so many images of each split.

    Which updates a rescue takes over is not known before: they count as the others.
    """
    updates = -(-images // settings.batch_size) * settings.epochs
    selects = attack_named(SELECTION_ATTACK, settings.eps)
    looks = settings.epochs * (2 if settings.ema else 1)
    beside = validation_passes(selects, val) * looks
    if settings.select == "test":
        beside += validation_passes(selects, min(test, TEST_IMAGES)) * looks
    if settings.row.rescue:
        check = attack_named(RESCUE_ATTACK, settings.eps).stages[-1]
        beside += _stage_passes(check) * (STANDING * min(RESCUE_BATCH, val) * updates / settings.row.rescue_every)
    exact = Passes()
    if settings.log_divergence:
        exact = (climb_passes(settings.row) + Passes(forward=3)) * (min(DIVERGENCE_IMAGES, val) * settings.epochs)
    own = update_passes(settings.row)
    if settings.awp:
        own += outer_passes(settings.row)
    return Training(own * (images * settings.epochs), beside, exact, updates * settings.row.replays)


def attack_passes(attack: Attack, images: int) -> Passes:
    """Return the passes of an attack on so many images, about: how many fall early is not known before."""
    met = [images, *(images * STANDING for _ in attack.stages)]
    total = Passes(forward=CHECKED / 2, to_input=CHECKED / 2) if attack.name != "natural" else Passes()
    for stage, n in zip(attack.stages, met, strict=False):
        total += _stage_passes(stage) * n
    return total


def validation_passes(attack: Attack, images: int) -> Passes:
    """Return the passes of one validation: natural, and the attack that selects."""
    assert attack.name == SELECTION_ATTACK
    return Passes(forward=images) + _stage_passes(attack.stages[-1]) * (images * STANDING)


def _stage_passes(stage: Stage) -> Passes:
    if stage.passes == 1:
        return Passes(forward=1)
    if stage.name in BLACK_BOX:
        return Passes(forward=stage.passes)
    return Passes(forward=stage.passes / 2, to_input=stage.passes / 2)


def time_step(model: nn.Module, device: torch.device) -> float:
    """Return the seconds of one step of SGD with momentum on all weights: a median of a few."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser = SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-4)
    seconds = _median(lambda: lambda: optimiser.step(), device)
    model.zero_grad(set_to_none=True)
    return seconds


def time_passes(model: nn.Module, shape: tuple[int, ...], precision: str, batch: int, device: torch.device) -> Passes:
    """Return the seconds that one image of a batch takes in each kind of pass: medians of a few, bare.

    Where a whole batch would take long, fewer images are timed.
    """
    run = in_precision(model, precision)
    n = min(batch, 8)
    x = torch.rand(n, *shape, device=device).contiguous(memory_format=torch.channels_last)
    with standing_still(model), torch.no_grad():
        run(x)
        once = _clock(lambda: run(x), device)
    if n < batch and once * batch / n < ENOUGH:
        x = x.repeat(-(-batch // n), 1, 1, 1)[:batch].contiguous(memory_format=torch.channels_last)
    with standing_still(model):
        with torch.no_grad():
            forward = _median(lambda: lambda: run(x), device)
        to_input = _median(lambda: _way_to_input(run, x), device)
    full = _median(lambda: _way_to_weights(run, x), device)
    model.zero_grad(set_to_none=True)
    return Passes(forward, to_input, full) * (1 / len(x))


def _way_to_input(run: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    """Return the way back to the images, after the way forward."""
    leaf = x.detach().requires_grad_()
    end = run(leaf).float().sum()
    return lambda: torch.autograd.grad(end, leaf)


def _way_to_weights(run: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    end = run(x).float().sum()
    return lambda: end.backward()


def _median(prepare: Callable[[], Callable[[], object]], device: torch.device) -> float:
    prepare()()
    return statistics.median(_clock(prepare(), device) for _ in range(REPEATS))


def _clock(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
