"""The settings of a training that come from flags; this module does not need torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainingFlags:
    """Everything besides the data that determines a training.

    None means a default that depends on the data, the schedule or the device.

    Attributes:
        method: an id of `bsk.methods.registry`, or `module:function`.
        model: a network's name, or `module:function`; the default depends on the data.
        eps: the radius in pixels of [0, 1]; the default depends on the data.
        hyper: the method's hyper-parameters by name; numbers may be text such as "8/255".
        init: a file of initial weights, of bsk or of others; by default they are drawn from the seed.
        extra: additional training images: prepared data, by name or path; its train split is used.
        extra_fraction: their fraction of every batch; by default 0.5.
        epochs: passes over the training images; with extra images, an epoch has as many images in total.
        batch_size: images per update.
        schedule: piecewise, cyclic, cosine or constant, per iteration.
        lr: the initial learning rate, for cyclic the peak; by default 0.1, and 0.2 for cyclic.
        momentum: of SGD.
        weight_decay: of SGD, on all parameters.
        precision: of the network's passes: auto, fp32, bf16 or fp16; losses and weights are always fp32.
        augment: crop-flip, flip or none; the default depends on the data.
        select: the split that selects the epoch: val, or test, as in the paper.
        log_divergence: whether each epoch's log record contains the divergences; nothing else changes.
        ema: decay of a moving average of the weights, which is saved too; 0 for none.
        label_smoothing: of every cross entropy that training minimises, 0 to 1.
        awp: size of the adversarial weight perturbation, relative to each weight tensor's norm; 0 for none.
        warmup: epochs over which the learning rate rises linearly to the schedule's.
        on_collapse: what to do about catastrophic overfitting: warn, stop or rollback.
        save_every: also save the weights every so many epochs in a file of their own; 0 for never.
        compile: whether updates use torch.compile: on, off, or auto (if it pays); it changes the last bits.
        seed: the seed of all random numbers.
    """

    method: str = "bs"
    model: str | None = None
    eps: float | None = None
    hyper: Mapping[str, Any] = field(default_factory=dict)
    init: str | None = None
    extra: str | None = None
    extra_fraction: float | None = None
    epochs: int = 100
    batch_size: int = 128
    schedule: str = "piecewise"
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    precision: str = "auto"
    augment: str | None = None
    select: str = "val"
    log_divergence: bool = False
    ema: float = 0.0
    label_smoothing: float = 0.0
    awp: float = 0.0
    warmup: float = 0.0
    on_collapse: str = "warn"
    save_every: int = 0
    compile: str = "auto"
    seed: int = 1
