"""The resolved settings of a training, as written to every checkpoint and log."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch

from bsk.data.batches import AUGMENTATIONS
from bsk.data.extra import FRACTION
from bsk.data.store import DataFile
from bsk.devices import COMPILE, fast_precision
from bsk.errors import UsageError
from bsk.methods.registry import needs_extra
from bsk.models.modes import PRECISIONS
from bsk.plugins import is_plugin
from bsk.training.bound import Bound, bind
from bsk.training.flags import TrainingFlags
from bsk.training.schedules import DEFAULT_LR, SCHEDULES
from bsk.values import above_zero, checked_eps, checked_numbers, one_of


@dataclass(frozen=True)
class Settings(TrainingFlags):
    """The flags with all defaults resolved, including all hyper-parameters of the method."""

    model: str = ""
    eps: float = 0.0
    lr: float = 0.0
    augment: str = ""
    dataset: str = ""

    @cached_property
    def bound(self) -> Bound:
        """The method, ready to be called."""
        return Bound(self.method, self.eps, self.hyper)

    @property
    def plugin(self) -> bool:
        """Whether the method or the network is a user's own code."""
        return is_plugin(self.method) or is_plugin(self.model)

    def flags(self) -> dict[str, Any]:
        """Return all flags and hyper-parameters as one flat dict: {"gamma": 1.0, "eps": 0.031, ...}."""
        flags = asdict(self)
        return {**flags.pop("hyper"), **flags}


def resolve(flags: TrainingFlags, data: DataFile, device: torch.device) -> Settings:
    """Return the settings of a training: the flags, else the defaults of the method and the data.

    Raises:
        UsageError: a name is unknown, or a number is out of range.
    """
    checked_numbers(flags)
    augment, eps = flags.augment or data.augment, checked_eps(data.eps if flags.eps is None else flags.eps)
    for flag, value, names in (
        ("schedule", flags.schedule, list(SCHEDULES)),
        ("precision", flags.precision, ["auto", *PRECISIONS]),
        ("augment", augment, AUGMENTATIONS),
        ("select", flags.select, ["val", "test"]),
        ("compile", flags.compile, COMPILE),
        ("on-collapse", flags.on_collapse, ["warn", "stop", "rollback"]),
    ):
        one_of(flag, value, names)
    lr = DEFAULT_LR[flags.schedule] if flags.lr is None else flags.lr
    above_zero(lr=lr, epochs=flags.epochs, batch_size=flags.batch_size)
    above_zero(
        or_zero=True,
        weight_decay=flags.weight_decay,
        awp=flags.awp,
        warmup=flags.warmup,
        save_every=flags.save_every,
    )
    for flag in ("momentum", "ema", "label_smoothing"):
        if not 0 <= getattr(flags, flag) <= 1:
            raise UsageError(f"--{flag.replace('_', '-')} {getattr(flags, flag):g}: must be from 0 to 1")
    if needs_extra(flags.method) and flags.extra is None:
        raise UsageError(f"--method {flags.method}: needs extra images; give them with --extra")
    if flags.extra is None and flags.extra_fraction is not None:
        raise UsageError(f"--extra-fraction {flags.extra_fraction:g}: has no meaning without --extra; give both")
    fraction = FRACTION if flags.extra_fraction is None else flags.extra_fraction
    if flags.extra is not None and not 0 < round(fraction * flags.batch_size) < flags.batch_size:
        found = f"--extra-fraction {fraction:g}: leaves batches of {flags.batch_size} with only one kind of images"
        raise UsageError(f"{found}; choose a value between 0 and 1")
    own = {
        "hyper": bind(flags.method, eps, flags.hyper).hyper,
        "model": flags.model or data.model,
        "dataset": data.name,
        "eps": eps,
        "lr": lr,
        "precision": fast_precision(device) if flags.precision == "auto" else flags.precision,
        "augment": augment,
        "extra_fraction": None if flags.extra is None else fraction,
    }
    return Settings(**{**vars(flags), **own})
