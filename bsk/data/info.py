"""What a data file says of itself, and whether that can be true."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A file is not to have a network of any size made: these are what data sets have by custom.
MODELS = ("cnn", "resnet18", "resnet18-16", "resnet50", "wrn-34-10")
MOST_CLASSES = 1 << 15
NAME = r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}"
FAR = 1e4  # from 0: normalised images beyond are no numbers to train on
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


def data_path(dataset: str) -> Path:
    """Return where prepared data of a name are."""
    return Path("data") / f"{dataset}.safetensors"


def problem(info: Info) -> str | None:
    """Return what cannot be in this description, in a few words, or None."""
    if not (isinstance(info.name, str) and re.fullmatch(NAME, info.name)):  # files are named after it
        return f"name {info.name!r:.40}, expected letters, digits and ._+- that make a file's name"
    texts = (info.name, info.augment, info.model, info.val_rule)
    if not all(isinstance(text, str) for text in texts):
        return "name, augment, model and val_rule must be texts"
    if info.augment not in AUGMENTATIONS:
        return f"augment {info.augment!r}, expected one of {', '.join(AUGMENTATIONS)}"
    if info.model not in MODELS:
        return f"model {info.model!r:.40}, expected one of {', '.join(MODELS)}"
    names = info.classes
    if isinstance(names, list) and len(names) > MOST_CLASSES:
        return f"{len(names)} classes, expected at most {MOST_CLASSES}"
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return "classes must be a list of names"
    if not (_numbers([info.eps]) and 0 < info.eps <= 1):
        return f"eps {info.eps!r}, expected a number in (0, 1]"
    if not (_numbers(info.mean) and _numbers(info.std) and len(info.mean) == len(info.std)):
        return "mean and std must be one number a channel"
    if max(map(abs, info.mean)) > FAR or not all(1 / FAR <= each <= FAR for each in info.std):
        return f"mean or std of another order than pixels of [0, 1]; at most {FAR:g}, and std at least {1 / FAR:g}"
    if not (isinstance(info.source, dict) and isinstance(info.limits, dict)):
        return "source and limits must be objects"
    return None


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and len(values) > 0 and all(_finite(value) for value in values)


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf
