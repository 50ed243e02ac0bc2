"""How an evaluation calls a model: in eval mode and fp32, in batches whose size changes no bit, its logits checked."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from time import monotonic

import torch
from torch import Tensor, nn

from bsk.attacks.outcome import NotFiniteError
from bsk.compat import without_tf32
from bsk.devices import steps_between_answers
from bsk.errors import InputError
from bsk.evaluation.threads import pass_begins
from bsk.models.modes import eval_mode, folded, in_precision
from bsk.models.products import steady_products
from bsk.models.registry import checked_logits
from bsk.perturb.ascent import Model

BEAT = 0.2  # seconds between two reports of how far a model has come
SIZES = 2  # numbers of rows that a network is compiled for
ROWS, LEAST = 8, 16  # a model call has a multiple of so many rows, and at least so many; see `steady`


def rows_within(most: int) -> int:
    """Return how many rows a call has at most, where it may have `most`: groups of ROWS, unless these are too few."""
    return most - most % ROWS if most >= LEAST else most


@contextlib.contextmanager
def exact(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in eval mode, and its parameters get no gradient.

    Its batch norms are folded, its linear layers sum each row in one order, and TF32 is off.
    """
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        with eval_mode(model), without_tf32():
            if any(module.training for module in model.modules()):
                raise InputError("the model does not go into eval mode; let its `train` and `eval` do as torch's do")
            for parameter in wanted:
                parameter.requires_grad_(False)
            with folded(model), steady_products(model):
                yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


def steady(model: Model, most: int = 1 << 30, sizes: int | None = None) -> Model:
    """Return the model called with at most so many rows, filled up to whole groups by copies of the last one.

    Kernels sum in another order for small and odd numbers of rows; the last bit of a logit, the sign of a tiny gradient
    and so a verdict would depend on who else is in the batch. Convolutions were the same in multiples of eight on every
    CPU where it was tried, from 16 on where torch chooses another kernel for fewer; the tests look at every number of
    rows. Linear layers have `steady_products`. Where `most` is below 16, every call has that many rows: the last bits
    are its own. With `sizes` groups are as large as it takes to have no more than so many numbers of rows, about.
    """
    most = rows_within(most)
    least, group = (LEAST, ROWS) if most >= LEAST else (most, 1)
    group *= max(1, most // (group * sizes)) if sizes else 1

    def forward(x: Tensor) -> Tensor:
        if len(x) > most:
            return torch.cat([forward(part) for part in x.split(most)])
        short = min(max(least - len(x), -len(x) % group), most - len(x))
        return model(torch.cat([x, x[-1:].expand(short, *x.shape[1:])]))[: len(x)] if short else model(x)

    return forward


class Checked:
    """A model with its logits checked: one row an image, and no NaN, which an attack cannot judge.

    On a GPU, where to ask is to wait, that is told every few calls, and by `settle` in the end.
    """

    def __init__(self, model: Model) -> None:
        """Take the model."""
        self._model, self._calls, self._finite = model, 0, torch.ones(())

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes); raise a NotFiniteError if one is not finite."""
        logits = checked_logits(self._model(x), len(x))
        every = steps_between_answers(x.device)
        if every == 1:
            total = float(logits.detach().sum())  # finite only if all are, and quicker than to look at each
            if not math.isfinite(total) and not bool(torch.isfinite(logits.detach()).all()):
                raise NotFiniteError
            return logits
        self._finite = self._finite.to(x.device) * logits.detach().isfinite().all()
        self._calls += 1
        if self._calls % every == 0:
            self.settle()
        return logits

    def settle(self) -> None:
        """Raise a NotFiniteError if a logit was not finite."""
        if not bool(self._finite):
            raise NotFiniteError


def rough(model: Model, precision: str) -> Model:
    """Return the model in a low precision, for attacks that search in it: logits in fp32, which may be infinite."""
    low = in_precision(model, precision)

    def forward(x: Tensor) -> Tensor:
        return checked_logits(low(x), len(x)).float()

    return forward


def counted(model: Model, tell: Callable[[int], None]) -> Model:
    """Return the model that tells how many passes it has made, at most every BEAT seconds.

    A row is one pass, and one more where its gradient may come back. Nothing is read from the device.
    """
    passes, told = 0, monotonic()

    def forward(x: Tensor) -> Tensor:
        nonlocal passes, told
        pass_begins(2 * len(x) if x.requires_grad else len(x))
        logits = model(x)
        passes += 2 * len(x) if logits.requires_grad else len(x)
        if (now := monotonic()) - told >= BEAT:
            told = now
            tell(passes)
        return logits

    return forward
