"""Estimating the cost of a training or an evaluation: its passes are counted, and a few of each kind are timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bsk.attacks.pgd import pgd
from bsk.attacks.registry import Attack, Stage, attack_named
from bsk.compat import sgd
from bsk.devices import synchronise
from bsk.models.modes import folded_eval_mode, in_precision
from bsk.perturb.ascent import Model
from bsk.perturb.losses import cross_entropy
from bsk.perturb.passes import Passes
from bsk.training.divergence import BATCH as DIVERGENCE_BATCH
from bsk.training.divergence import IMAGES as DIVERGENCE_IMAGES
from bsk.training.profile import Profile
from bsk.training.settings import Settings
from bsk.training.validation import BATCH, NO_DRAWS, SELECTION_ATTACK, TEST_IMAGES, VALIDATED

STANDING = 0.5  # assumed fraction of the examples that survive the earlier stages
BLACK_BOX = ("square", "rays")
CHECKED, CHECKED_IMAGES = 300, 64  # approximate passes of the checks that accompany every attack, and their images
ENOUGH = 0.5  # seconds; if a pass takes longer, only a few images are timed
FEW_AUDITED = 100  # approximate sample size of an audit that chooses it itself
FEW = 8  # images in a small batch, timed to separate the cost per batch from the cost per image
REPEATS = 3


@dataclass(frozen=True)
class Work:
    """Passes of images, and passes of batches; a small network takes as long for a small batch as for a large one."""

    images: Passes = Passes()
    batches: Passes = Passes()

    def __add__(self, other: Work) -> Work:
        """Return the sum."""
        return Work(self.images + other.images, self.batches + other.batches)

    def __mul__(self, times: float) -> Work:
        """Return the work multiplied by `times`."""
        return Work(self.images * times, self.batches * times)

    def seconds(self, image: Passes, batch: Passes) -> float:
        """Return the total time, given the seconds of each kind of pass per image and per batch."""
        return self.images.seconds(image) + self.batches.seconds(batch)


@dataclass(frozen=True)
class TrainingCost:
    """The work of a training (`own` of updates, `beside` of validation, `exact` in fp32) and its number of updates."""

    own: Work
    beside: Work
    exact: Work
    updates: int


def training_cost(settings: Settings, profile: Profile, images: int, val: int, test: int) -> TrainingCost:
    """Return the cost of a training with the given number of images in each split.

    Updates that PGD would take over after a collapse cannot be predicted; they count like the others.
    """
    updates, replays = -(-images // settings.batch_size) * settings.epochs, settings.bound.replays
    selects = attack_named(SELECTION_ATTACK, settings.eps)
    looks = settings.epochs * (2 if settings.ema else 1)
    beside = validation_work(selects, val) * looks
    if settings.select == "test":
        beside += validation_work(selects, min(test, TEST_IMAGES)) * looks
    check = attack_named("pgd-10", settings.eps).stages[-1]
    beside += _stage_work(check, min(VALIDATED, val), VALIDATED) * (updates * profile.validations)
    exact = Work()
    if settings.log_divergence:
        n = min(DIVERGENCE_IMAGES, val)
        each = profile.frozen + Passes(4 + profile.trained.forward, 1 + profile.trained.to_input)
        exact = Work(each * n, each * -(-n // DIVERGENCE_BATCH)) * settings.epochs
    own = (profile.passes + profile.trained * bool(settings.awp)) * replays
    return TrainingCost(Work(own * (images * settings.epochs), own * updates), beside, exact, updates * replays)


def attack_work(attack: Attack, images: int, batch: int) -> Work:
    """Return the approximate work of an attack on so many images; how many are fooled early is not known in advance."""
    total = Work()
    if attack.name != "natural":
        checks = Passes(CHECKED / 2, CHECKED / 2)
        total += Work(checks * CHECKED_IMAGES, checks)
    for stage in attack.stages[: attack.whole]:
        total += _stage_work(stage, images, batch)
    for stage in attack.stages[attack.whole :]:  # of an audit: on a sample of the survivors
        total += _stage_work(stage, min(images, round((attack.audit or FEW_AUDITED) / STANDING)), batch)
    return total


def landings_work(starts: Sequence[str], images: int, batch: int) -> Work:
    """Return the work of evaluating starts: a clean pass, a pass at the start, and for backward the step in between."""
    passes = Passes(forward=2 * len(starts), to_input=starts.count("backward"))
    return Work(passes * images, passes * -(-images // batch))


def validation_work(attack: Attack, images: int) -> Work:
    """Return the work of one validation: natural accuracy, and the attack that selects the epoch."""
    assert attack.name == SELECTION_ATTACK
    natural = Passes(forward=1)
    return Work(natural * images, natural * -(-images // BATCH)) + _stage_work(attack.stages[-1], images, BATCH)


def _stage_work(stage: Stage, images: int, batch: int) -> Work:
    """Return the work of a stage: a first stage attacks all images, the others only the survivors."""
    if stage.passes == 1:
        return Work(Passes(forward=images), Passes(forward=-(-images // batch)))
    met = images * STANDING
    passes = Passes(-(-stage.passes // 2), stage.passes // 2)
    if stage.name in BLACK_BOX:
        passes = Passes(forward=stage.passes)
    return Work(passes * met, passes * (-(-images // batch)))


def time_step(model: nn.Module, device: torch.device) -> float:
    """Return the seconds of one step of SGD with momentum on all weights: the median of a few."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser = sgd(model.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-4)
    optimiser.step()
    seconds = statistics.median(_clock(optimiser.step, device) for _ in range(REPEATS))
    model.zero_grad(set_to_none=True)
    return seconds


@dataclass(frozen=True)
class Times:
    """Seconds of each kind of pass per image and per batch: a batch of n images takes batch + n * image."""

    image: Passes
    batch: Passes


def time_passes(model: nn.Module, shape: tuple[int, ...], precision: str, batch: int, device: torch.device) -> Times:
    """Return the times of passes including the losses, steps and projections of a training: medians of a few.

    If a whole batch would take long, only a few images are timed, and all the time is attributed to images.
    """
    run = in_precision(model, precision)
    few = min(batch, FEW)
    x = torch.rand(few, *shape, device=device).contiguous(memory_format=torch.channels_last)
    with folded_eval_mode(model), torch.no_grad():
        run(x)
        once = _clock(lambda: run(x), device)
    some = _time(model, run, x, device)
    if few == batch or once * batch / few >= ENOUGH:
        return Times(some * (1 / few), Passes())
    whole = x.repeat(-(-batch // few), 1, 1, 1)[:batch].contiguous(memory_format=torch.channels_last)
    all_of_them = _time(model, run, whole, device)
    image = Passes(*(max(0.0, b - a) / (batch - few) for a, b in zip(some, all_of_them, strict=True)))
    return Times(image, Passes(*(whole - batch * each for whole, each in zip(all_of_them, image, strict=True))))


def _time(model: nn.Module, run: Model, x: Tensor, device: torch.device) -> Passes:
    """Return the seconds of each kind of pass for one batch, including the work around it.

    A backward pass to the input is timed as a step of PGD with eps 0, which fools no image. The kinds are measured in
    turn, since the speed of a machine varies; a backward pass is assumed to take at least as long as a forward pass.
    """

    def look() -> Tensor:
        with folded_eval_mode(model), torch.no_grad():
            return run(x)

    def attack() -> object:
        with folded_eval_mode(model):
            return pgd(run, x, y, NO_DRAWS, eps=0.0, step=0.0, steps=1)

    def learn() -> object:
        return cross_entropy(run(x), y).sum().backward()

    y = look().argmax(dim=1)
    attack()
    learn()
    rounds = [[_clock(work, device) for work in (look, attack, learn)] for _ in range(REPEATS)]
    model.zero_grad(set_to_none=True)
    kinds = [
        (there, max(there, attacked - 2 * there), max(there, learned - there)) for there, attacked, learned in rounds
    ]
    return Passes(*map(statistics.median, zip(*kinds, strict=True)))


def _clock(work: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start
