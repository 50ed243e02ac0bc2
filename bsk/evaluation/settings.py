"""The circumstances of an evaluation: which examples, within which radius, by which draws, where, by whom."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bsk.data.batches import WHOLE, Share
from bsk.data.store import DataFile


@dataclass(frozen=True)
class EvaluationSettings:
    """What is the same for all attacks on one model.

    Attributes:
        eps: the radius, in pixel units for Linf.
        seed: of the attacks' random numbers.
        batch_size: rows of a model call; it changes no result.
        share: which part of the examples this process takes.
        checks: whether the model is examined for signs that it cannot be believed.
    """

    data: DataFile
    split: str
    limit: int | None
    eps: float
    seed: int
    batch_size: int
    device: torch.device
    share: Share = WHOLE
    checks: bool = True
