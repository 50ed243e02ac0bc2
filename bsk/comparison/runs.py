"""A trained network, and what makes its training another one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from bsk.comparison.old_flags import modern
from bsk.records.fields import LARGEST
from bsk.records.words import printable

NOT_SETTINGS = {  # they make no other method
    "seed",
    "out",
    "data",
    "device",
    "threads",
    "quiet",
    "debug",
    "force",
    "select",  # `selected` says it, of the model that it selected
    "log_divergence",
    "ema",  # `selected` says it, of the average; the trained weights are the same without it
}


@dataclass(frozen=True)
class Run:
    """One trained network; `method` is None for one that bsk did not train."""

    checkpoint: str
    sha256: str | None = None
    method: str | None = None
    model: str | None = None
    dataset: str | None = None
    data_sha256: str | None = None
    seed: int | None = None
    eps: float | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    selected: str | None = None
    seconds: float | None = None
    forward_passes: int | None = None
    backward_passes: int | None = None
    device: str | None = None
    interrupted: str = ""

    @property
    def identity(self) -> str:
        """Return what tells this network from others trained with the same settings: its seed, else its file."""
        return f"seed {self.seed}" if self.seed is not None else self.sha256 or self.checkpoint

    @cached_property
    def settings(self) -> str:
        """Return all that makes a training another one, except its seed, as text to compare; the same text is kept."""
        file = (self.sha256 or self.checkpoint) if self.method is None else None
        parts = [self.method, self.model, self.dataset, self.data_sha256, self.eps, self.selected, self.interrupted]
        return sys.intern(as_text([*parts, file, self.own_flags()]))

    def own_flags(self) -> dict[str, Any]:
        """Return the training flags that make a method what it is; 1 and 1.0 are the same, null is none."""
        eps = {} if self.eps is None else {"eps": self.eps}
        return {
            key if key.isprintable() else printable(key): float(value)
            if type(value) is int and abs(value) < LARGEST
            else value
            for key, value in {**modern(self.method, self.flags), **eps}.items()
            if key not in NOT_SETTINGS and value is not None
        }


def as_text(value: Any) -> str:
    """Return a value of JSON as text that is the same for equal ones."""
    try:
        return msgspec.json.encode(value, order="sorted").decode()
    except UnicodeEncodeError:  # it has half of a character
        return json.dumps(value, sort_keys=True)
