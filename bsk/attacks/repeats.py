"""When PGD is back where it was: from there on all is known, and the rest of the steps can be left out."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.perturb.ball import per_image

WINDOW = 256  # iterates that are remembered; no longer period is found
NEVER = -1


class Repeats:
    """Watches the iterates of rows of images (R, C, H, W), and finds where each ends after some steps.

    Sign steps on a ball live on a finite lattice, so the iterates of a deterministic model come round. A row of bits
    with the hash of one before it is taken for a repeat after so many steps; if as many later the images themselves
    are equal, it is one. Then the last iterate is that which is the rest of the steps, modulo the period, away.

    Source: Doldo et al. (2025), "Stop walking in circles!", arXiv 2503.19347.
    """

    def __init__(self, x: Tensor, steps: int, every: int = 1) -> None:
        """Begin at images x, before the first of `steps`; the device is asked after so `every` many of them."""
        random = torch.Generator(device=x.device).manual_seed(0)
        self._code = torch.empty(_bits(x).shape[1], dtype=torch.int32, device=x.device)
        self._code.random_(-(1 << 31), 1 << 31, generator=random)
        self._steps = steps
        self._hashes = torch.empty((len(x), 0), dtype=torch.int32, device=x.device)
        self._before = x.clone()  # an image that may come again
        self._period, self._due = (torch.full((len(x),), NEVER, device=x.device) for _ in range(2))
        self._end = torch.full_like(self._due, steps)
        self._next_due = self._next_end = steps  # of all rows; nothing is to be done before
        self._every = every
        self._last = x.clone()  # where a row ended, if nobody asked there

    def ended(self, at: Tensor, i: int) -> Tensor | None:
        """Return which rows are at their last iterate after i steps (R,), None for none, for images (R, C, H, W)."""
        at_once = self._every == 1  # else nothing is read from the device but every few steps
        if not at_once or i >= self._next_due:
            self._confirm(at, i)
        hashes = (_bits(at) * self._code).sum(dim=1, dtype=torch.int32)  # it wraps around
        met = self._hashes == hashes[:, None]
        if i > 0 and (not at_once or bool(met.any())):
            self._suspect(at, i, met)
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
        """Return which rows are not yet at their last iterate after i steps (R,), None for all."""
        return None if self._every == 1 or i == self._steps else self._end > i

    def last(self, at: Tensor) -> Tensor:
        """Return the last iterates of the rows that have `ended`, (R, C, H, W), where the rows are `at` now."""
        return at if self._every == 1 else self._last

    def _suspect(self, at: Tensor, i: int, met: Tensor) -> None:
        """Note the rows that may have been at these images before, and when they would be there again."""
        new = met.any(dim=1) & (self._due < i) & (self._end == self._steps)
        period = met.flip(1).int().argmax(dim=1) + 1  # since the last time
        self._period, self._due = torch.where(new, period, self._period), torch.where(new, i + period, self._due)
        self._before = torch.where(per_image(new, at), at, self._before)
        if self._every == 1:
            self._next_due = int(self._due.masked_fill(self._due <= i, self._steps).min())

    def _confirm(self, at: Tensor, i: int) -> None:
        """Find the ends of the rows that are where they were a period ago."""
        again = (self._due == i) & (at == self._before).flatten(1).all(dim=1)
        self._end = torch.where(again, i + (self._steps - i) % self._period, self._end)
        self._due = self._due.masked_fill(self._due == i, NEVER)
        if self._every == 1:
            self._next_end = int(self._end.min())
            self._next_due = int(self._due.masked_fill(self._due <= i, self._steps).min())

    def keep(self, rows: Tensor) -> Repeats:
        """Keep some of the rows."""
        for name in ("_hashes", "_before", "_period", "_due", "_end", "_last"):
            setattr(self, name, getattr(self, name)[rows])
        return self


def _bits(x: Tensor) -> Tensor:
    """Return the bits of each image as whole numbers (R, M), without a copy of what is channels last."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1).view(torch.int32)
