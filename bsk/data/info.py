"""What a data file says of itself, and whether that can be true."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

AUGMENTATIONS = ("crop-flip", "flip", "none")


@dataclass(frozen=True)
class Info:
    """What a data file says of itself; `eps` in pixel units of [0, 1], `mean` and `std` one a channel."""

    name: str
    classes: list[str]
    eps: float
    mean: list[float]
    std: list[float]
    augment: str = "none"
    model: str = "cnn"
    source: dict[str, Any] = field(default_factory=dict)
    val_rule: str = ""
    limits: dict[str, Any] = field(default_factory=dict)


def problem(info: Info) -> str | None:
    """Return what cannot be in this description, in a few words, or None."""
    texts = (info.name, info.augment, info.model, info.val_rule)
    if not all(isinstance(text, str) for text in texts):
        return "name, augment, model and val_rule must be texts"
    if info.augment not in AUGMENTATIONS:
        return f"augment {info.augment!r}, expected one of {', '.join(AUGMENTATIONS)}"
    names = info.classes
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return "classes must be a list of names"
    if not (_numbers([info.eps]) and 0 < info.eps <= 1):
        return f"eps {info.eps!r}, expected a number in (0, 1]"
    if not (_numbers(info.mean) and _numbers(info.std) and len(info.mean) == len(info.std) and min(info.std) > 0):
        return "mean and std must be one number a channel, std above 0"
    if not (isinstance(info.source, dict) and isinstance(info.limits, dict)):
        return "source and limits must be objects"
    return None


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and len(values) > 0 and all(_finite(value) for value in values)


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf
