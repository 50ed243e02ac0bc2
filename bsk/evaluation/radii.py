"""What the evaluations of one model at several radii share: verdicts, and the examination of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from bsk.evaluation.ledger import Ledger

if TYPE_CHECKING:
    from bsk.evaluation.diagnostics import Diagnostics


@dataclass
class Before:
    """The verdicts of an attack at the radii before, all smaller or all larger than the present one.

    They are computed or read only when needed: an evaluation whose record exists does not need them.
    """

    radii: tuple[float, ...]
    find: Callable[[], Ledger]

    @cached_property
    def ledger(self) -> Ledger:
        """The verdicts at the last of these radii, which include those at the others."""
        return self.find()

    def decided(self, eps: float) -> Tensor:
        """Return which examples need no attack at radius `eps`, (N,) bool.

        What fell at a smaller radius falls here, by the same image. What fell at a larger one falls here if its image
        lies in the smaller ball too. What stood at a larger one is assumed to stand here: a weak attack may miss there
        what it finds here.
        """
        if self.radii[-1] < eps:
            return ~self.ledger.standing
        return self.ledger.standing | (self.ledger.distance <= eps)


@dataclass
class Radii:
    """The evaluations of one model at several radii.

    Attributes:
        largest: the largest radius; the model is examined there, once for all radii.
        before: by name of the attack, the verdicts at the radii before.
        examined: by its parts and the precision of the attack's search, the examination of the model.
    """

    largest: float
    before: dict[str, Before] = field(default_factory=dict)
    examined: dict[tuple[str, ...], Diagnostics] = field(default_factory=dict)

    def told(self, what: tuple[str, ...], eps: float) -> Diagnostics:
        """Return an examination for the record at radius `eps`; it names the radius of its attacks if that differs."""
        found = self.examined[what]
        if eps == self.largest or "fooled" not in found.facts:
            return found
        doubts = tuple(f"{doubt} (at eps {self.largest:.6g})" for doubt in found.doubts)
        return replace(found, facts={**found.facts, "eps": self.largest}, doubts=doubts)
