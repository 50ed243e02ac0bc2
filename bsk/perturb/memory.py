"""What outlives a batch: the perturbation that Free AT goes on with, the patterns of LIET."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

DELTA, PATTERN = "delta", "pattern"  # of Free AT (N, C, H, W), of LIET (classes, C, H, W)


@dataclass
class Memory:
    """Tensors by name, saved with the training's state, and how many updates were made."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    updates: int = 0

    def copy(self) -> Memory:
        """Return a memory that can be used up without a trace in this one; tensors in it are replaced, not changed."""
        return Memory(dict(self.tensors), self.updates)
