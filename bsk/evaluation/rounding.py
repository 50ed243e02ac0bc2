"""Adversarial images in 8 bits: rounded within the ball, then classified again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bsk.attacks.registry import Attack
from bsk.data.batches import to_unit
from bsk.evaluation.calls import exact, steady
from bsk.evaluation.intervals import wilson
from bsk.evaluation.reports import of_targets
from bsk.evaluation.settings import EvaluationSettings
from bsk.evaluation.subjects import Subject
from bsk.evaluation.verdicts import Examples
from bsk.perturb.ball import length
from bsk.records.checkpoints import Bulk
from bsk.records.pictures import is_folder, write_arrays, write_folder

LEVELS = 255
SLACK = 1e-5  # relative tolerance of the radius: in fp32, 8/255 times 255 is a little more than 8
AT_A_TIME = 256  # images


def levels_of(x_adv: Tensor, clean: Tensor, eps: float, norm: str) -> tuple[Tensor, Tensor]:
    """Return images as uint8 levels within the ball, and which images (N,) plain rounding would move out of it.

    Each value is rounded to the nearest level, relative to the clean image, with ties to even. Where that leaves the
    ball of radius eps, values are rounded towards the clean image instead: for Linf every value that is outside; for
    other norms as many values of the image as needed, beginning with those that rounding moves outwards most. Rounding
    towards the clean image never increases the distance.

    Args:
        x_adv: (N, C, H, W) in [0, 1].
        clean: (N, C, H, W) uint8.
        eps: radius for pixels in [0, 1].
        norm: "linf", "l2" or "l1".
    """
    away = x_adv.double() * LEVELS - clean.double()
    near, most = away.round(), eps * LEVELS * (1 + SLACK)
    inward = (away * (1 + SLACK)).trunc()  # in fp32, 8 levels may be 7.999999
    order = 1 if norm == "l1" else 2
    turned = near.abs() > most if norm == "linf" else _turned(away, near, inward, eps * LEVELS, order)
    levels = (clean.double() + torch.where(turned, inward, near)).clamp_(0, LEVELS)
    return levels.to(torch.uint8), turned.flatten(1).any(dim=1)


def _turned(away: Tensor, near: Tensor, inward: Tensor, most: float, order: int) -> Tensor:
    """Return which values (N, ...) to round inward so that the sum of |value|^order is at most most^order."""
    gain = (near.abs() ** order - inward.abs() ** order).flatten(1)
    first = (near.abs() - away.abs()).flatten(1).argsort(dim=1, descending=True, stable=True)
    gain = gain.gather(1, first)
    whole = math.floor(most**order * (1 + 1e-9))  # a sum of whole numbers, in fp64
    need = (near.abs() ** order).flatten(1).sum(dim=1) - whole
    turned = (gain.cumsum(dim=1) - gain < need[:, None]) & (gain > 0)
    return torch.zeros_like(turned).scatter_(1, first, turned).view_as(near)


def rounded(
    model: nn.Module, examples: Examples, settings: EvaluationSettings, norm: str, take: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return the rounded images (N, C, H, W) uint8, the predictions on them (N,), and a summary of the rounding.

    `take` returns the adversarial images (K, C, H, W) in [0, 1] of given rows (K,).
    """
    n, parts, predictions, inward, far = len(examples.labels), [], [], 0, 0.0
    with exact(model), torch.no_grad():
        for rows in torch.arange(n).split(AT_A_TIME):
            clean = examples.take(rows)
            levels, out = levels_of(take(rows), clean, settings.eps, norm)
            x = to_unit(levels).to(settings.device)
            predictions.append(steady(model, settings.batch_size)(x).argmax(dim=1).cpu())
            parts.append(levels)
            inward += int(out.sum())
            far = max(far, float(length((levels.double() - clean.double()) / LEVELS, norm).max()))
    after = torch.cat(predictions)
    right = int((after == examples.labels).sum())
    low, high = wilson(right, n)
    facts = {"accuracy": right / n, "low": low, "high": high, "distance": far, "inward": inward}
    return torch.cat(parts), after, facts


def write_rounded(
    subject: Subject,
    attack: Attack,
    settings: EvaluationSettings,
    examples: Examples,
    images: Bulk,
    tensors: dict[str, Tensor],
    record: dict[str, Any],
) -> dict[str, Any]:
    """Write adversarial images in 8 bits to the path of `images`; return the record with the effect of rounding.

    `tensors`, (N,) each, are written too, with the predictions on the rounded images.

    Raises:
        InputError: the file or folder cannot be written.
    """
    norm = next((str(stage.parameters["norm"]) for stage in attack.stages if "norm" in stage.parameters), "linf")
    levels, after, facts = rounded(
        subject.model, examples, settings, norm, lambda rows: images.take(rows, examples.shape)
    )
    if "target" in tensors:
        hits = of_targets(attack, examples.labels, after, tensors["target"], settings.data.classes)
        facts |= {name: hits[name] for name in ("targeted_success", "targeted_low", "targeted_high")}
    record = {**record, "rounded": facts}
    columns = {name: each.numpy() for name, each in {**tensors, "predictions": after}.items()}
    if is_folder(images.path):
        write_folder(images.path, levels.numpy(), settings.data.classes, columns, record)
    else:
        write_arrays(images.path, levels.numpy(), columns, record)
    return record
