"""Catastrophic overfitting seen as it happens: FGSM against PGD on val images, and how straight the loss is there.

A network that has overfitted to one step stands against FGSM and falls to PGD, because its loss is no longer nearly
linear within the ball: the gradient at x and at x plus noise point in different directions. Some fall so far that they
stand against nothing any more: these are told by what they had withstood before.

Source: Wong et al. (2020), section 5.4, the sign; Andriushchenko & Flammarion (2020), section 3.3, the cosine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bsk.attacks.registry import attack_named
from bsk.data.batches import Share, to_unit
from bsk.data.processes import sum_over_processes
from bsk.data.store import Split
from bsk.models.modes import in_precision, standing_still
from bsk.perturb.draws import example_draws
from bsk.perturb.losses import input_gradient
from bsk.perturb.passes import Passes
from bsk.training.profile import Profile
from bsk.training.settings import Settings
from bsk.training.state import State
from bsk.training.validation import NO_DRAWS

IMAGES = 32  # of a look
SURE = 128  # of the second look that an alarm needs
COST = 0.01  # of the passes of the updates
STANDS, FEWEST = 1.5, 0.05  # accuracy in chances, and at least: below it there is nothing to collapse
RATIO = 3.0  # accuracy under FGSM, or PGD's before, is that many times PGD's, where it has collapsed; all our choice
BENT = 0.5  # the cosine is below: young networks at a large radius fall to PGD too, but their loss is straight
PASSES = Passes(forward=2 + 11 + 2, to_input=1 + 10 + 2)  # of an image: FGSM, PGD-10, two gradients
WEIGHTS = Passes(1, 1, 2)  # what a pass of each kind takes, about, in forward ones


@dataclass(frozen=True)
class MonitorResult:
    """Accuracy under FGSM and PGD-10, and the mean cosine of the gradients at x and x + U(-eps, eps), on n images.

    `best` is the best accuracy under PGD-10 of the looks before. With 10 classes a network stands from 15 % on: at
    16/255 on CIFAR-10 a sound one has 20.
    """

    fgsm: float
    pgd: float
    cosine: float
    n: int
    classes: int = 10
    best: float = 0.0

    @property
    def fallen(self) -> bool:
        """Say if it does not stand against PGD, as it does against FGSM or did before, and its loss is bent."""
        return self.pgd * RATIO <= max(self.fgsm, self.best) and self.cosine < BENT

    @property
    def collapsed(self) -> bool:
        """Say if it has fallen from where it stood."""
        return self.fallen and max(self.fgsm, self.best) >= max(STANDS / self.classes, FEWEST)


def every(settings: Settings, profile: Profile) -> int:
    """Return after how many updates to look, so that looking costs a hundredth of their passes; 0 is never."""
    if not profile.attacks:
        return 0
    update = profile.passes.seconds(WEIGHTS) * settings.bound.replays * settings.batch_size
    return math.ceil(PASSES.seconds(WEIGHTS) * IMAGES / (COST * update))


def look(state: State, settings: Settings, val: Split, share: Share) -> MonitorResult:
    """Look at the first val images; where they seem newly collapsed, at four times as many, and believe those.

    The draws are the monitor's own, so that the training is what it would be without.
    """
    first = _look(state, settings, val, share, IMAGES)
    fresh = first.collapsed and not state.collapses.now
    return _look(state, settings, val, share, SURE) if fresh else first


def _look(state: State, settings: Settings, val: Split, share: Share, images: int) -> MonitorResult:
    device = state.sums.device
    rows = share.of(torch.arange(min(images, len(val.labels))))
    sums = torch.zeros(4, dtype=torch.float64)
    if len(rows):
        x, y = to_unit(val.images[rows].to(device)), val.labels[rows].to(device)
        with standing_still(state.model):
            model = in_precision(state.model, settings.precision)
            stood = [
                (~attack_named(name, settings.eps).stages[-1](model, x, y, NO_DRAWS, settings.eps).fooled).sum()
                for name in ("fgsm", "pgd-10")
            ]
            cosine = _cosines(state, settings, x, y, val.index[rows].tolist()).sum()
        sums += torch.stack([torch.tensor(len(y)), *(each.cpu() for each in (*stood, cosine))]).double()
    n, fgsm, pgd, cosine = sum_over_processes(sums.to(state.sums), share).tolist()
    return MonitorResult(fgsm / n, pgd / n, cosine / n, round(n), int(val.labels.max()) + 1, state.collapses.best)


def _cosines(state: State, settings: Settings, x: Tensor, y: Tensor, index: list[int]) -> Tensor:
    """Return the cosine of each image's two gradients, (N,), in the precision of training."""
    model = in_precision(state.model, settings.precision)
    noise = example_draws(settings.seed, f"monitor {state.step}", index, x.device).uniform(x)
    at_x, near = (input_gradient(model, each, y).float().flatten(1) for each in (x, x + settings.eps * noise))
    return F.cosine_similarity(at_x, near, dim=1)
