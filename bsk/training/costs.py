"""What a training or an evaluation will cost: its passes counted beforehand, and a few of each kind timed here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bsk.attacks.registry import Attack, Stage
from bsk.models.modes import eval_mode
from bsk.training.methods import Method
from bsk.training.settings import Settings
from bsk.training.step import in_precision
from bsk.training.validation import SELECTION_ATTACK

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


def update_passes(method: Method) -> Passes:
    """Return the passes of one image in one update, as `methods.perturb` and the outer loss make them."""
    climbs = Passes(forward=method.steps, to_input=method.steps)
    if method.start == "backward":
        climbs += Passes(forward=1, to_input=1)
    elif method.inner == "kl_to_clean" and method.steps:
        climbs += Passes(forward=1)
    twice = 2 if method.outer == "trades" else 1
    return climbs + Passes(forward=twice, full=twice)


def training_passes(settings: Settings, images: int) -> Passes:
    """Return the passes of a training on so many images, validation apart; a rescue's are not known before."""
    return update_passes(settings.row) * (images * settings.epochs)


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


def time_passes(model: nn.Module, shape: tuple[int, ...], precision: str, batch: int, device: torch.device) -> Passes:
    """Return the seconds that one image of a batch takes in each kind of pass: medians of a few, bare.

    Where a whole batch would take long, fewer images are timed.
    """
    run = in_precision(model, precision)
    n = min(batch, 8)
    x = torch.rand(n, *shape, device=device).contiguous(memory_format=torch.channels_last)
    with eval_mode(model), torch.no_grad():
        run(x)
        once = _clock(lambda: run(x), device)
    if n < batch and once * batch / n < ENOUGH:
        x = x.repeat(-(-batch // n), 1, 1, 1)[:batch].contiguous(memory_format=torch.channels_last)
    with eval_mode(model):
        with torch.no_grad():
            forward = _median(lambda: run(x), device)
        both = _median(lambda: _to_input(run, x), device)
    whole = _median(lambda: run(x).float().sum().backward(), device)
    model.zero_grad(set_to_none=True)
    return Passes(forward, max(0.0, both - forward), max(0.0, whole - forward)) * (1 / len(x))


def _to_input(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(run(leaf).float().sum(), leaf)[0]


def _median(work: Callable[[], object], device: torch.device) -> float:
    work()
    return statistics.median(_clock(work, device) for _ in range(REPEATS))


def _clock(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
