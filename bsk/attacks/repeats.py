"""Detect when the iterates of PGD repeat: from there on everything is known, and the remaining steps can be skipped."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.perturb.ball import per_image

WINDOW = 256  # number of remembered iterates, and so the longest period that is found
NEVER = -1
SAME = 1e-4  # relative and absolute tolerance of equal logits: calls of other sizes round differently on a GPU


class Repeats:
    """Watches the iterates of rows of images (R, C, H, W), and predicts where each row ends after all steps.

    Sign steps on a ball move on a finite lattice, so the iterates of a deterministic model eventually repeat. If the
    hash of an iterate equals that of an earlier one, the difference in steps is taken as the period; if after one more
    period the images themselves are equal, and the logits that led to them are too, the repetition is confirmed. The
    logits of a random model differ, so it takes all steps. The last iterate is then the one that lies the remaining
    number of steps, modulo the period, ahead.

    Source: Doldo et al. (2025), "Stop walking in circles!", arXiv 2503.19347.
    """

    def __init__(self, x: Tensor, steps: int, every: int = 1) -> None:
        """Start at images x before the first of `steps` steps; the device is read every `every` steps."""
        random = torch.Generator(device=x.device).manual_seed(0)
        self._code = torch.empty(_bits(x).shape[1], dtype=torch.int32, device=x.device)
        self._code.random_(-(1 << 31), 1 << 31, generator=random)
        self._steps = steps
        self._hashes = torch.empty((len(x), 0), dtype=torch.int32, device=x.device)
        self._before = x.clone()  # an image that may be repeated
        self._logits: Tensor | None = None  # (R, classes) of the image before that one
        self._period, self._due = (torch.full((len(x),), NEVER, device=x.device) for _ in range(2))
        self._end = torch.full_like(self._due, steps)
        self._next_due = self._next_end = steps  # over all rows; nothing needs to be done before
        self._every = every
        self._last = x.clone()  # where each row ended, for rows that ended between two readings

    def ended(self, at: Tensor, i: int, logits: Tensor | None) -> Tensor | None:
        """Return a mask (R,) of the rows that are at their last iterate after i steps, or None if there is none.

        `at` are the current images (R, C, H, W), `logits` (R, classes) those of the images before, after the first
        step.
        """
        at_once = self._every == 1  # otherwise the device is read only every few steps
        if not at_once or i >= self._next_due:
            self._confirm(at, i, logits)
        hashes = (_bits(at) * self._code).sum(dim=1, dtype=torch.int32)  # overflow wraps around
        met = self._hashes == hashes[:, None]
        if i > 0 and (not at_once or bool(met.any())):
            self._suspect(at, i, met, logits)
        self._hashes = torch.cat([self._hashes, hashes[:, None]], dim=1)[:, -WINDOW:]
        if at_once and i < self._next_end:
            return None
        ended = self._end <= i
        if not at_once:
            self._last = torch.where(per_image(self._end == i, at), at, self._last)
            if i % self._every and i + 1 < self._steps:
                return None
        return ended if bool(ended.any()) else None

    def live(self, i: int) -> Tensor | None:
        """Return a mask (R,) of the rows that are not yet at their last iterate after i steps, or None for all rows."""
        return None if self._every == 1 or i == self._steps else self._end > i

    def last(self, at: Tensor) -> Tensor:
        """Return the last iterates (R, C, H, W) of the rows that have `ended`; `at` are the current images."""
        return at if self._every == 1 else self._last

    def _suspect(self, at: Tensor, i: int, met: Tensor, logits: Tensor | None) -> None:
        """Note the rows whose images may have occurred before, and the step at which they would occur again."""
        new = met.any(dim=1) & (self._due < i) & (self._end == self._steps)
        period = met.flip(1).int().argmax(dim=1) + 1  # since the last time
        self._period, self._due = torch.where(new, period, self._period), torch.where(new, i + period, self._due)
        self._before = torch.where(per_image(new, at), at, self._before)
        if logits is not None:
            self._logits = torch.where(new[:, None], logits, logits if self._logits is None else self._logits)
        if self._every == 1:
            self._next_due = int(self._due.masked_fill(self._due <= i, self._steps).min())

    def _confirm(self, at: Tensor, i: int, logits: Tensor | None) -> None:
        """Compute the last step of the rows whose images, and the logits before, equal those of one period ago."""
        again = (self._due == i) & (at == self._before).flatten(1).all(dim=1)
        if logits is not None and self._logits is not None:
            again &= torch.isclose(logits, self._logits, rtol=SAME, atol=SAME).all(dim=1)
        self._end = torch.where(again, i + (self._steps - i) % self._period, self._end)
        self._due = self._due.masked_fill(self._due == i, NEVER)
        if self._every == 1:
            self._next_end = int(self._end.min())
            self._next_due = int(self._due.masked_fill(self._due <= i, self._steps).min())

    def keep(self, rows: Tensor) -> Repeats:
        """Keep only the selected rows."""
        for name in ("_hashes", "_before", "_logits", "_period", "_due", "_end", "_last"):
            setattr(self, name, None if getattr(self, name) is None else getattr(self, name)[rows])
        return self


def _bits(x: Tensor) -> Tensor:
    """Return the bits of each image as integers (R, M), without copying channels-last images."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1).view(torch.int32)
