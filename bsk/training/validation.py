"""Accuracy on held-out images, which selects the model and is available to methods."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

from bsk.attacks.registry import attack_named
from bsk.data.batches import Share, to_unit
from bsk.data.processes import sum_over_processes
from bsk.data.store import Split
from bsk.models.modes import folded_eval_mode, in_precision
from bsk.perturb.ascent import Model
from bsk.perturb.draws import example_draws, own_randomness
from bsk.training.settings import Settings
from bsk.training.state import Scored, State

SELECTION_ATTACK = "pgd-20"
NO_DRAWS = example_draws(0, "", [])  # these attacks use no random numbers
TEST_IMAGES = 2560  # test images used by --select test. Source: the authors' scripts, 20 batches of 128
BATCH = 250


def validate(
    model: nn.Module,
    settings: Settings,
    val: Split,
    test: Split | None,
    share: Share,
    epoch: int,
    pause: Callable[[], None],
) -> Scored:
    """Return natural accuracy and accuracy under PGD-20 on val and, if it selects, on test.

    They only rank the epochs of one run; reported accuracies are measured by `bsk evaluate`, in fp32. `pause` is called
    between batches and, in a single process, every second within them; it may raise to stop.
    """
    device = next(model.parameters()).device
    with own_randomness(device, settings.seed, "validation", epoch, share.rank):
        found = [_accuracies(model, settings, each, share, pause) for each in (val, test) if each is not None]
    return Scored(epoch, *chain(*found))


def _accuracies(
    model: nn.Module, settings: Settings, split: Split, share: Share, pause: Callable[[], None]
) -> tuple[float, float]:
    """Return natural accuracy and accuracy under PGD-20, in the precision of training.

    PGD begins at the image itself, so only images that are classified correctly are attacked.
    """
    attack = attack_named(SELECTION_ATTACK, settings.eps).stages[-1]
    counts = torch.zeros(3, device=next(model.parameters()).device, dtype=torch.int64)
    with folded_eval_mode(model):
        forward = in_precision(model, settings.precision)
        if share.world == 1:
            forward = _interruptible(forward, pause)
        for rows in batches(len(split.labels), share):
            pause()
            if len(rows) == 0:
                continue
            x, y = to_unit(split.images[rows].to(counts.device)), split.labels[rows].to(counts.device)
            right = _right(forward, x, y).nonzero().squeeze(1)
            counts += torch.tensor([len(y), len(right), 0]).to(counts)
            if len(right):
                counts[2] += (~attack(forward, x[right], y[right], NO_DRAWS, settings.eps).fooled).sum()
    n, natural, robust = sum_over_processes(counts, share).tolist()
    return natural / n, robust / n


def _interruptible(model: Model, pause: Callable[[], None]) -> Model:
    """Return the model with a call of `pause` every second, since PGD on one batch may take a minute."""
    asked = time.monotonic()

    def forward(x: Tensor) -> Tensor:
        nonlocal asked
        if time.monotonic() - asked > 1:
            pause()
            asked = time.monotonic()
        return model(x)

    return forward


def batches(n: int, share: Share) -> tuple[Tensor, ...]:
    """Return this process's rows in batches of at most 250; all processes have equally many, since they synchronise."""
    count = -(-max(1, -(-n // share.world)) // BATCH)
    return share.of(torch.arange(n)).tensor_split(count)


def _right(forward: Model, x: Tensor, y: Tensor) -> Tensor:
    """Return which images are classified correctly (N,)."""
    with torch.no_grad():
        return forward(x).argmax(dim=1) == y


VALIDATED = 128  # images of a validation requested by a method


def accuracy_for_method(state: State, settings: Settings, split: Split, attack: str, turn: int) -> float:
    """Return the accuracy under an attack on the turn-th 128 images of a split, wrapping around at its end."""
    n = len(split.labels)
    rows = (turn * VALIDATED + torch.arange(min(VALIDATED, n))) % n
    x, y = to_unit(split.images[rows].to(state.sums.device)), split.labels[rows].to(state.sums.device)
    with folded_eval_mode(state.model):
        forward = in_precision(state.model, settings.precision)
        fooled = attack_named(attack, settings.eps).stages[-1](forward, x, y, NO_DRAWS, settings.eps).fooled
    return 1.0 - float(fooled.float().mean())
