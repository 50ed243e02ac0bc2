"""All flags of a training, as resolved: what is written into every checkpoint and log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch

from bsk.compat import cpu_multiplies_bf16
from bsk.data.batches import AUGMENTATIONS
from bsk.data.store import DataFile
from bsk.errors import UsageError
from bsk.methods.bound import Bound, bind
from bsk.models.precision import PRECISIONS
from bsk.training.schedules import DEFAULT_LR, SCHEDULES
from bsk.values import above_zero, checked_eps, one_of

SELECTORS = ("val", "test")
ON_COLLAPSE = ("warn", "stop", "rollback")


@dataclass(frozen=True)
class Settings:
    """What decides the outcome of a training, beside the data.

    Attributes:
        method: an id of `bsk.methods.registry`, or `module:function`.
        hyper: the method's hyper-parameters, all of them, its step in pixel units.
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
    hyper: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def bound(self) -> Bound:
        """The method, ready to be called."""
        return Bound(self.method, self.eps, self.hyper)

    def flags(self) -> dict[str, Any]:
        """Return every flag by its one name, flat: {"gamma": 1.0, "eps": 0.031, ...}."""
        flags = asdict(self)
        return {**flags.pop("hyper"), **flags}


def resolve(
    data: DataFile,
    device: torch.device,
    *,
    method: str = "bs",
    hyper: Mapping[str, Any] | None = None,
    model: str | None = None,
    eps: float | None = None,
    epochs: int = 100,
    batch_size: int = 128,
    schedule: str = "piecewise",
    lr: float | None = None,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    precision: str = "auto",
    augment: str | None = None,
    seed: int = 1,
    select: str = "val",
    log_divergence: bool = False,
    ema: float = 0.0,
    label_smoothing: float = 0.0,
    awp: float = 0.0,
    warmup: float = 0.0,
    on_collapse: str = "warn",
) -> Settings:
    """Return the settings of a training: what is given, else the method's defaults and the data's customs.

    Args:
        data: says which radius, network and augmentation are customary for it.
        device: decides what `precision="auto"` is.
        method: an id, or `module:function`.
        hyper: hyper-parameters of the method by name; numbers may be texts, as "8/255".
        model: a network's name, or `module:function`.
        eps: the radius in pixels of [0, 1].
        epochs: passes over the training images.
        batch_size: images of an update.
        schedule: piecewise, cyclic or cosine.
        lr: the peak learning rate; 0.1, and 0.2 for cyclic, by default.
        momentum: of SGD.
        weight_decay: of SGD, on all parameters.
        precision: auto, fp32, bf16 or fp16.
        augment: crop-flip, flip or none.
        seed: of every random number.
        select: the split that selects the epoch: val, or test, as in the paper.
        log_divergence: whether each epoch's log record has the divergences.
        ema: decay of a moving average of the weights, which is kept too; 0 is none.
        label_smoothing: of the labels, 0 to 1.
        awp: size of the adversarial weight perturbation; 0 is none.
        warmup: epochs in which the learning rate rises.
        on_collapse: warn, stop or rollback, at catastrophic overfitting.

    Raises:
        UsageError: an unknown name, or a number out of range.
    """
    known = {
        "schedule": (schedule, SCHEDULES),
        "precision": (precision, ["auto", *PRECISIONS]),
        "augment": (augment or data.augment, AUGMENTATIONS),
        "select": (select, SELECTORS),
        "on-collapse": (on_collapse, ON_COLLAPSE),
    }
    for flag, (value, names) in known.items():
        one_of(flag, value, names)
    radius = checked_eps(data.eps if eps is None else eps)
    rate = DEFAULT_LR[schedule] if lr is None else lr
    above_zero(lr=rate, epochs=epochs, batch_size=batch_size)
    above_zero(or_zero=True, weight_decay=weight_decay, awp=awp, warmup=warmup)
    for flag, share in (("momentum", momentum), ("ema", ema), ("label-smoothing", label_smoothing)):
        if not 0 <= share <= 1:
            raise UsageError(f"--{flag} {share:g}: must be from 0 to 1")
    return Settings(
        method=method,
        hyper=bind(method, radius, hyper).hyper,
        model=model or data.model,
        dataset=data.name,
        eps=radius,
        epochs=epochs,
        batch_size=batch_size,
        schedule=schedule,
        lr=rate,
        momentum=momentum,
        weight_decay=weight_decay,
        precision=fast_precision(device) if precision == "auto" else precision,
        augment=augment or data.augment,
        seed=seed,
        select=select,
        log_divergence=log_divergence,
        ema=ema,
        label_smoothing=label_smoothing,
        awp=awp,
        warmup=warmup,
        on_collapse=on_collapse,
    )


def fast_precision(device: torch.device) -> str:
    """Return "bf16" where the device multiplies it fast, else "fp32"."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    if device.type == "cpu":
        return "bf16" if cpu_multiplies_bf16() else "fp32"
    return "fp32"
