"""What a data file says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
