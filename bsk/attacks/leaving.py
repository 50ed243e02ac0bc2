"""How fooled examples leave a step-by-step attack: at once on a CPU, every few steps on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome
from bsk.attacks.search import Search, misclassified
from bsk.attacks.targets import reached
from bsk.devices import steps_between_answers
from bsk.perturb.ascent import Model
from bsk.perturb.ball import per_image


class Leaving:
    """Removes misclassified examples from an attack, and counts the passes of the others.

    Reading a result from a GPU waits for all queued work. So on a GPU the first misclassified image of each example is
    kept on the device and read only every few steps; until then the rows of a fooled example continue, but their passes
    are not counted. Verdicts, images and passes are the same as when reading at every step. The claims of a `Search`
    are verified at once, because a later claim may hold where an earlier one was rejected.
    """

    def __init__(self, model: Model, tally: Outcome, y: Tensor, target: Tensor | None = None) -> None:
        """Start with all examples of `tally` with labels y (N,); with a target (N,) they leave once they reach it."""
        self._model, self._tally, self._y, self._target = model, tally, y, target
        self.every, self._asked = 1 if isinstance(model, Search) else steps_between_answers(y.device), 0
        self._fallen, self._images = torch.zeros_like(tally.fooled), tally.x_adv

    def count(self, owner: Tensor, forward: int = 1, backward: int = 0, live: Tensor | None = None) -> None:
        """Add passes to the examples `owner` (R,), once for each of their rows, or only for the `live` (R,) ones."""
        if self.every == 1:
            self._tally.count(owner, forward, backward)
            return
        rows = torch.ones_like(owner) if live is None else live.to(owner)
        rows = rows * ~self._fallen[owner]
        self._tally.forward.index_add_(0, owner, forward * rows)
        self._tally.backward.index_add_(0, owner, backward * rows)

    def __call__(self, owner: Tensor, x: Tensor, logits: Tensor, y: Tensor, now: bool = False) -> Tensor | None:
        """Return a mask (R,) of the rows that stay, or None if all stay for now; `now` forces a reading.

        owner (R,) is ascending; x (R, C, H, W) are images with labels y (R,) and logits (R, classes).
        """
        target = None if self._target is None else self._target[owner]
        if self.every == 1:
            return self._tally.leave(owner, x, misclassified(self._model, self._tally, owner, x, logits, y, target))
        self._note(owner, x, reached(logits, y, target))
        self._asked += 1
        return self.settle(owner) if now or self._asked % self.every == 0 else None

    def _note(self, owner: Tensor, x: Tensor, wrong: Tensor) -> None:
        """Keep the first misclassified row of each example that has none yet, without reading from the device."""
        rows, none = torch.arange(len(owner), device=owner.device), len(owner)
        first = torch.full_like(self._y, none).scatter_reduce(0, owner, torch.where(wrong, rows, none), "amin")
        new = (first < none) & ~self._fallen
        images = x.detach()[first.clamp(max=none - 1)]
        self._images = torch.where(per_image(new, images), images, self._images)
        self._fallen = self._fallen | new

    def settle(self, owner: Tensor) -> Tensor | None:
        """Remove the fooled examples; return a mask (R,) of the rows that stay, or None if all do."""
        if self.every == 1 or not bool(self._fallen.any()):
            return None
        self._tally.fooled.logical_or_(self._fallen)
        self._tally.x_adv[self._fallen] = self._images[self._fallen]
        self._fallen = torch.zeros_like(self._fallen)
        return ~self._tally.fooled[owner]
