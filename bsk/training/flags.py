"""What flags decide of a training; torch is not needed to read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainingFlags:
    """What decides the outcome of a training, beside the data; None leaves it to the data, the schedule or the device.

    Attributes:
        method: an id of `bsk.methods.registry`, or `module:function`.
        model: a network's name, or `module:function`; by default the data's customary one.
        eps: the radius in pixels of [0, 1]; by default the data's customary one.
        hyper: the method's hyper-parameters by name; numbers may be texts, as "8/255".
        init: a file of weights to begin with, of bsk or of others; by default they are drawn from the seed.
        extra: more images to train with: prepared data, by name or path; their train split is used.
        extra_fraction: their share of every batch; by default 0.5.
        epochs: passes over the training images; with extra ones, as many images in all.
        batch_size: images of an update.
        schedule: piecewise, cyclic, cosine or constant, by iteration.
        lr: the starting rate, of cyclic the peak; by default 0.1, and 0.2 for cyclic.
        momentum: of SGD.
        weight_decay: of SGD, on all parameters.
        precision: of the network's passes: auto, fp32, bf16 or fp16; losses and weights are always fp32.
        augment: crop-flip, flip or none; by default the data's customary one.
        select: the split that selects the epoch: val, or test, as in the paper.
        log_divergence: whether each epoch's log record has the divergences; it changes nothing else.
        ema: decay of a moving average of the weights, which is kept too; 0 is none.
        label_smoothing: of every cross entropy that training descends, 0 to 1.
        awp: size of the adversarial weight perturbation, as a part of each weight tensor's norm; 0 is none.
        warmup: epochs in which the learning rate rises to the schedule's.
        on_collapse: what to do about catastrophic overfitting: warn, stop or rollback.
        save_every: keep the weights of every so many epochs in a file of their own too; 0 is none.
        compile: whether updates go through torch.compile: on, off, or auto, where that pays; it changes last bits.
        seed: of every random number.
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
