"""All flags of a training, as resolved: what is written into every checkpoint and log."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from bsk.compat import cpu_multiplies_bf16
from bsk.training.methods import Method

SELECTORS = ("val", "test")
ON_COLLAPSE = ("warn", "stop", "rollback")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """What decides the outcome of a training, beside the data.

    Attributes:
        method: the id of the row that `row` began as; `row` has its step in pixel units.
        eps: the radius in pixel units.
        lr: the starting rate of piecewise and cosine, the peak of cyclic.
        precision: of the network's passes, a name in PRECISIONS; losses and weights are always fp32.
        augment: a name in `bsk.data.batches.AUGMENTATIONS`.
        select: the split that selects the epoch, a name in SELECTORS.
        ema: decay of the moving average of the weights; 0 is none.
        label_smoothing: of every cross entropy that training descends, 0 to 1.
        awp: size of the adversarial weight perturbation, as a part of each weight tensor's norm; 0 is none.
        warmup: epochs in which the learning rate rises to the schedule's.
        on_collapse: what to do about catastrophic overfitting, a name in ON_COLLAPSE.
        log_divergence: whether each epoch's log record has the divergences; it changes nothing else.
    """

    method: str
    row: Method
    model: str
    dataset: str
    eps: float
    epochs: int
    batch_size: int
    schedule: str
    lr: float
    momentum: float
    weight_decay: float
    precision: str
    augment: str
    seed: int
    select: str = "val"
    log_divergence: bool = False
    ema: float = 0.0
    label_smoothing: float = 0.0
    awp: float = 0.0
    warmup: float = 0.0
    on_collapse: str = "warn"

    def flags(self) -> dict[str, Any]:
        """Return every flag by its one name, flat: {"gamma": 1.0, "eps": 0.031, ...}."""
        flags = asdict(self)
        return {**flags.pop("row"), **flags}


def fast_precision(device: torch.device) -> str:
    """Return "bf16" where the device multiplies it fast, else "fp32"."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    if device.type == "cpu":
        return "bf16" if cpu_multiplies_bf16() else "fp32"
    return "fp32"
