"""Which examples survive which attack."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bsk.attacks.registry import Attack
from bsk.data.batches import to_unit
from bsk.data.store import Split
from bsk.errors import InputError
from bsk.models.modes import eval_mode
from bsk.perturb.ascent import Model
from bsk.perturb.draws import example_draws
from bsk.perturb.passes import Passes, counting

ROWS = 16  # a model call has a multiple of so many rows


@dataclass(frozen=True)
class Verdicts:
    """What an attack did to N examples.

    Attributes:
        correct: (N,) bool, in the order of the split: not fooled.
        x_adv: (N, C, H, W) fp32, or None if it was not asked for.
        predictions: (N,) the class of x_adv, or None.
        passes: images forward and backward.
        seconds: of the attack.
    """

    correct: Tensor
    x_adv: Tensor | None
    predictions: Tensor | None
    passes: Passes
    seconds: float


def judge(
    model: nn.Module,
    split: Split,
    attack: Attack,
    *,
    eps: float,
    seed: int,
    batch_size: int,
    device: torch.device,
    keep_images: bool = False,
    watch: Callable[[int, int], None] = lambda done, standing: None,
) -> Verdicts:
    """Attack every example of the split, in fp32, with the model in eval mode.

    The verdict on an example depends on (seed, attack, its index in the data) and on nothing beside it: not
    on the batch size, the order or the limit.

    Raises:
        InputError: the model returns a number that is not finite.
    """
    passes, start = Passes(), time.perf_counter()
    correct, images, predictions = [], [], []
    with exact(model):
        forward = counting(steady(checked(model)), passes)
        for first in range(0, len(split.labels), batch_size):
            rows = slice(first, first + batch_size)
            x = to_unit(split.images[rows].to(device))
            y = split.labels[rows].to(device)
            draws = example_draws(seed, attack.name, split.index[rows].tolist())
            outcome = attack.run(forward, x, y, draws, eps)
            correct.append(~outcome.fooled.cpu())
            if keep_images:
                images.append(outcome.x_adv.cpu())
                with torch.no_grad():
                    predictions.append(steady(model)(outcome.x_adv).argmax(dim=1).cpu())
            watch(min(rows.stop, len(split.labels)), sum(int(c.sum()) for c in correct))
    return Verdicts(
        torch.cat(correct),
        torch.cat(images) if keep_images else None,
        torch.cat(predictions) if keep_images else None,
        passes,
        time.perf_counter() - start,
    )


@contextlib.contextmanager
def exact(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode, its parameters out of the gradient and TF32 off, within the block."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with eval_mode(model):
            assert not any(module.training for module in model.modules())
            for parameter in wanted:
                parameter.requires_grad_(False)
            yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


def steady(model: Model) -> Model:
    """Return the model called with its batch filled up to a multiple of 16 rows by copies of the last one.

    Matrix kernels sum in another order for small and odd numbers of rows; the last bit of a logit, the sign
    of a tiny gradient and so a verdict would depend on who else is in the batch.
    """

    def forward(x: Tensor) -> Tensor:
        short = -len(x) % ROWS
        return model(torch.cat([x, x[-1:].expand(short, *x.shape[1:])]))[: len(x)] if short else model(x)

    return forward


def checked(model: Model) -> Model:
    """Return the model with its logits checked: an attack cannot judge a NaN."""

    def forward(x: Tensor) -> Tensor:
        logits = model(x)
        if not bool(torch.isfinite(logits.detach()).all()):
            raise InputError("the model returns NaN or infinity for some image; no attack can judge that")
        return logits

    return forward
