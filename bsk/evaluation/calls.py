"""Model calls of an evaluation: eval mode, fp32, checked logits, and results that do not depend on the batch size."""

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
from bsk.errors import InputError, first_line, out_of_memory
from bsk.evaluation.threads import pass_begins
from bsk.models.modes import eval_mode, folded, in_precision
from bsk.models.products import steady_products
from bsk.models.registry import checked_logits
from bsk.perturb.ascent import Model
from bsk.perturb.ball import per_image
from bsk.perturb.gradients import of_the_device

BEAT = 0.2  # seconds between two progress reports
SIZES = 2  # batch sizes that a network is compiled for
ROWS, LEAST = 8, 16  # a model call has a multiple of ROWS rows, and at least LEAST; see `steady`


def rows_within(most: int) -> int:
    """Return the largest batch size, up to `most`, that `steady` uses: a multiple of ROWS from LEAST on."""
    return most - most % ROWS if most >= LEAST else most


@contextlib.contextmanager
def exact(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode within the block; its parameters get no gradient.

    Batch norms are folded, linear layers sum each row in a fixed order, TF32 is off, and cuDNN repeats its results.

    Raises:
        InputError: a module stays in training mode.
    """
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    cudnn = torch.backends.cudnn
    before, cudnn.deterministic = cudnn.deterministic, True
    try:
        with eval_mode(model), without_tf32():
            if any(module.training for module in model.modules()):
                raise InputError(
                    "the model stays in training mode after eval(); its `train` and `eval` must behave as torch's do"
                )
            for parameter in wanted:
                parameter.requires_grad_(False)
            with folded(model), steady_products(model):
                yield
    finally:
        cudnn.deterministic = before
        for parameter in wanted:
            parameter.requires_grad_(True)


def steady(model: Model, most: int = 1 << 30, sizes: int | None = None) -> Model:
    """Return the model, called in batches whose size does not change the result of a row.

    A batch has at most `most` rows and is padded to a multiple of ROWS with copies of its last row. Kernels sum in a
    different order for small and odd batch sizes, so the last bit of a logit, the sign of a tiny gradient and hence a
    verdict would depend on the rest of the batch. On every CPU tried, convolutions gave the same bits for all multiples
    of 8 from 16 on; the tests check every batch size. Linear layers use `steady_products`. If `most` is below 16, all
    batches have `most` rows, and their last bits are specific to that size. `sizes` limits the number of different
    batch sizes, approximately, for compilation.
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
    """A model whose logits are checked: one row per image, and all finite, because no attack can judge a NaN.

    On a GPU a check waits for the device, so it runs every few calls, and in `settle` at the end.
    """

    def __init__(self, model: Model) -> None:
        """Wrap the model."""
        self._model, self._calls, self._finite = model, 0, torch.ones(())

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes); raise a NotFiniteError if one is not finite."""
        logits = checked_logits(self._model(x), len(x))
        every = steps_between_answers(x.device)
        if every == 1:
            total = float(logits.detach().sum())  # not finite if any logit is not; faster than checking each
            if not math.isfinite(total) and not bool(torch.isfinite(logits.detach()).all()):
                raise NotFiniteError
            return logits
        self._finite = self._finite.to(x.device) * logits.detach().isfinite().all()
        self._calls += 1
        if self._calls % every == 0:
            self.settle()
        return logits

    def settle(self) -> None:
        """Raise a NotFiniteError if any logit so far was not finite."""
        if not bool(self._finite):
            raise NotFiniteError


def rough(model: Model, precision: str) -> Model:
    """Return the model in a low precision, for the search of an attack; logits are fp32 and may be infinite.

    In fp16 the gradient of each image passes through the network with a size of about 1, since there is no number
    between 0 and 6e-8. It has its own size again at the image.

    Raises:
        InputError: (when called) the model fails in this precision.
    """
    low = in_precision(model, precision)
    if precision == "fp16":
        low = _levelled(low)

    def forward(x: Tensor) -> Tensor:
        try:
            logits = low(x)
        except Exception as error:
            if precision == "fp32" or out_of_memory(error) or of_the_device(error):
                raise
            said = f"the model fails in {precision} ({first_line(error)}); leave out --search {precision}"
            raise InputError(said) from error
        return checked_logits(logits, len(x)).float()

    return forward


def _levelled(model: Model) -> Model:
    """Return the model; a gradient is divided by its largest value at the logits of each image, to a power of 2."""

    def forward(x: Tensor) -> Tensor:
        sizes = torch.ones(len(x), device=x.device)

        def level(gradient: Tensor) -> Tensor:
            largest = gradient.abs().amax(dim=1)
            sizes.copy_(torch.where(largest > 0, largest, 1).log2().floor().exp2())
            return gradient / per_image(sizes, gradient)

        own = x.view_as(x)
        logits = model(own)
        if logits.requires_grad and own.requires_grad:
            logits.register_hook(level)
            own.register_hook(lambda gradient: gradient * per_image(sizes, gradient).to(gradient.dtype))
        return logits

    return forward


def counted(model: Model, tell: Callable[[int], None]) -> Model:
    """Return the model that reports its number of passes so far to `tell`, at most every BEAT seconds.

    A row counts as one pass, or two if a gradient may follow. Nothing is read from the device.
    """
    passes, reported = 0, monotonic()

    def forward(x: Tensor) -> Tensor:
        nonlocal passes, reported
        pass_begins(2 * len(x) if x.requires_grad else len(x))
        logits = model(x)
        passes += 2 * len(x) if logits.requires_grad else len(x)
        if (now := monotonic()) - reported >= BEAT:
            reported = now
            tell(passes)
        return logits

    return forward
