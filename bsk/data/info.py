"""What a data file says of itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bsk.records.fields import FieldError, convert
from bsk.records.header_schema import DATA, HEADERS


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
    try:
        convert({"kind": DATA, **asdict(info)}, HEADERS[DATA])
    except FieldError as error:
        return f"{error.place} {error.found!r:.40}, expected {error.expected}"
    return None if len(info.mean) == len(info.std) else "mean and std must be one number a channel"
