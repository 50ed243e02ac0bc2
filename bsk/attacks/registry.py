"""Attacks by name: natural, fgsm, pgd-K, pgd-KxR, cw-K."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bsk.attacks.pgd import Outcome, pgd
from bsk.errors import UsageError, nearest
from bsk.perturb.ascent import Model
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.radius import step_at

ATTACKS = ["natural", "fgsm", "pgd-20", "pgd-100", "pgd-50x10", "cw-100"]
PAPER_STEP = 2 / 255  # section 5.1, at the paper's radius


@dataclass(frozen=True)
class Attack:
    """An attack with all its parameters; `name` is what the user wrote.

    Attributes:
        loss: "cross_entropy" or "margin".
        step: in pixel units.
        steps, restarts: how many; no steps is no attack.
        start: of the first restart, "zero" or "uniform".
        last_iterate: judge only the last iterate.
    """

    name: str
    loss: str = "cross_entropy"
    step: float = 0.0
    steps: int = 0
    restarts: int = 1
    start: str = "zero"
    last_iterate: bool = False

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything but the name, as it goes into a record."""
        return {key: value for key, value in asdict(self).items() if key != "name"}

    def run(self, model: Model, x: Tensor, y: Tensor, draws: ExampleDraws, eps: float) -> Outcome:
        """Attack images x (N, C, H, W) in [0, 1] with labels y (N,) within radius eps."""
        if self.steps == 0:
            with torch.no_grad():
                return Outcome(x, model(x).argmax(dim=1) != y)
        return pgd(model, x, y, draws, eps=eps, **self.parameters)


def attack_named(
    name: str, eps: float, *, step: float | None = None, start: str = "zero", last_iterate: bool = False
) -> Attack:
    """Return the attack of that name at the radius eps.

    `pgd-K` takes K steps, `pgd-KxR` restarts R times, `cw-K` climbs the margin, `fgsm` takes one step of eps.
    The step is 2/255 at the paper's radius and keeps its ratio to it elsewhere, unless `step` is given.

    Raises:
        UsageError: there is no such attack.
    """
    if name == "natural":
        return Attack(name)
    if name == "fgsm":
        return Attack(name, step=eps if step is None else step, steps=1, start=start, last_iterate=last_iterate)
    match = re.fullmatch(r"(pgd|cw)-([1-9]\d{0,5})(?:x([1-9]\d{0,3}))?", name)
    if match is None:
        raise UsageError(f"--attack {name}: no such attack; {nearest(name, ATTACKS)}")
    kind, steps, restarts = match[1], int(match[2]), int(match[3] or 1)
    return Attack(
        name,
        loss="margin" if kind == "cw" else "cross_entropy",
        step=step_at(PAPER_STEP, eps) if step is None else step,
        steps=steps,
        restarts=restarts,
        start=start,
        last_iterate=last_iterate,
    )
