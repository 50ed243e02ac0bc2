"""Detecting catastrophic overfitting: FGSM against PGD on val images, and the local linearity of the loss.

A network that has overfitted to a single step withstands FGSM but not PGD, because its loss is no longer nearly linear
within the ball: the gradients at x and at x plus noise point in different directions. Some networks lose all
robustness; they are recognised by the robust accuracy they had before.

A collapse is reported if

    pgd * RATIO <= max(fgsm, best) and cosine < MAX_COSINE and max(fgsm, best) >= max(CHANCES / classes, MIN_ACCURACY).

Source: Wong et al. (2020), section 5.4, for the symptom; Andriushchenko & Flammarion (2020), section 3.3, for the
cosine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bsk.attacks.registry import attack_named
from bsk.data.batches import Share, to_unit
from bsk.data.processes import sum_over_processes
from bsk.data.store import Split
from bsk.models.modes import folded_eval_mode, in_precision
from bsk.perturb.draws import example_draws, own_randomness
from bsk.perturb.gradients import cosines
from bsk.perturb.losses import input_gradient
from bsk.perturb.passes import Passes
from bsk.training.profile import Profile
from bsk.training.settings import Settings
from bsk.training.state import State
from bsk.training.validation import NO_DRAWS

# All thresholds are our choice.
IMAGES = 32  # images of a check
CONFIRMED = 128  # images of the second check that confirms an alarm
COST = 0.01  # passes of the checks, as a fraction of those of the updates
CHANCES, MIN_ACCURACY = 1.5, 0.05  # minimum accuracy before a collapse: times chance level, and absolute
RATIO = 3.0  # a collapse divides PGD accuracy by at least this, relative to FGSM or to the best PGD accuracy before
MAX_COSINE = 0.5  # and the cosine is below this; early in training PGD accuracy may be low too, but the loss is linear
PASSES = Passes(forward=2 + 11 + 2, to_input=1 + 10 + 2)  # per image: FGSM, PGD-10, two gradients
WEIGHTS = Passes(1, 1, 2)  # approximate cost of each kind of pass, in forward passes


@dataclass(frozen=True)
class MonitorResult:
    """Accuracy under FGSM and PGD-10, and the mean cosine of the gradients at x and x + U(-eps, eps), on n images.

    `best` is the best accuracy under PGD-10 in the checks before. With 10 classes a network counts as robust from 15 %
    on; at 16/255 on CIFAR-10 a healthy one has 20 %.
    """

    fgsm: float
    pgd: float
    cosine: float
    n: int
    classes: int = 10
    best: float = 0.0

    @property
    def fallen(self) -> bool:
        """Whether PGD accuracy is far below FGSM accuracy or its earlier best, and the loss is not locally linear."""
        return self.pgd * RATIO <= max(self.fgsm, self.best) and self.cosine < MAX_COSINE

    @property
    def collapsed(self) -> bool:
        """Whether it has fallen from a substantial accuracy."""
        return self.fallen and max(self.fgsm, self.best) >= max(CHANCES / self.classes, MIN_ACCURACY)


def every(settings: Settings, profile: Profile) -> int:
    """Return the number of updates between two checks, so that checks cost 1 % of the updates' passes; 0 for never."""
    if not profile.attacks:
        return 0
    update = profile.passes.seconds(WEIGHTS) * settings.bound.replays * settings.batch_size
    return math.ceil(PASSES.seconds(WEIGHTS) * IMAGES / (COST * update))


def look(state: State, settings: Settings, val: Split, share: Share) -> MonitorResult:
    """Check the first val images; if they indicate a new collapse, check four times as many and return that result.

    The monitor has its own random draws, so it does not affect the training.
    """
    first = _look(state, settings, val, share, IMAGES)
    fresh = first.collapsed and not state.collapses.now
    return _look(state, settings, val, share, CONFIRMED) if fresh else first


def _look(state: State, settings: Settings, val: Split, share: Share, images: int) -> MonitorResult:
    device = state.sums.device
    rows = share.of(torch.arange(min(images, len(val.labels))))
    sums = torch.zeros(4, dtype=torch.float64)
    if len(rows):
        x, y = to_unit(val.images[rows].to(device)), val.labels[rows].to(device)
        random = own_randomness(device, settings.seed, "monitor", state.step, share.rank)
        with folded_eval_mode(state.model), random:
            model = in_precision(state.model, settings.precision)
            stood = [
                (~attack_named(name, settings.eps).stages[-1](model, x, y, NO_DRAWS, settings.eps).fooled).sum()
                for name in ("fgsm", "pgd-10")
            ]
            cosine = _cosines(state, settings, x, y, val.index[rows].tolist()).sum()
        sums += torch.stack([torch.tensor(len(y)), *(each.cpu() for each in (*stood, cosine))]).double()
    n, fgsm, pgd, cosine = sum_over_processes(sums, share).tolist()
    return MonitorResult(fgsm / n, pgd / n, cosine / n, round(n), state.memory.classes, state.collapses.best)


def _cosines(state: State, settings: Settings, x: Tensor, y: Tensor, index: list[int]) -> Tensor:
    """Return the cosine of each image's two gradients (N,), computed in the precision of training."""
    model = in_precision(state.model, settings.precision)
    noise = example_draws(settings.seed, f"monitor {state.step}", index, x.device).uniform(x)
    at_x, near = (input_gradient(model, each, y).float().flatten(1) for each in (x, x + settings.eps * noise))
    return torch.nan_to_num(cosines(at_x, near), nan=0.0)
