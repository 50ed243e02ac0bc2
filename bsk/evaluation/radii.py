"""What the evaluations of one model at several radii share: fallen examples, and the examination of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from bsk.evaluation.diagnostics import Diagnostics
from bsk.evaluation.ledger import Ledger


@dataclass
class Smaller:
    """The verdicts of an attack at smaller radii, ascending.

    They are computed or read only when needed: an evaluation whose record exists does not need them.
    """

    radii: tuple[float, ...]
    find: Callable[[], Ledger]

    @cached_property
    def ledger(self) -> Ledger:
        """The verdicts at the largest of these radii, which include those at the others."""
        return self.find()


@dataclass
class Radii:
    """The evaluations of one model at several radii.

    Attributes:
        largest: the largest radius; the model is examined there, once for all radii.
        fallen: by name of the attack, the verdicts at smaller radii: an example that fell there falls at every larger
            radius too.
        examined: by its parts, the examination of the model.
    """

    largest: float
    fallen: dict[str, Smaller] = field(default_factory=dict)
    examined: dict[tuple[str, ...], Diagnostics] = field(default_factory=dict)

    def told(self, parts: tuple[str, ...], eps: float) -> Diagnostics:
        """Return an examination for the record at radius `eps`; it names the radius of its attacks if that differs."""
        found = self.examined[parts]
        if eps == self.largest or "fooled" not in found.facts:
            return found
        doubts = tuple(f"{doubt} (at eps {self.largest:.6g})" for doubt in found.doubts)
        return Diagnostics({**found.facts, "eps": self.largest}, doubts)
