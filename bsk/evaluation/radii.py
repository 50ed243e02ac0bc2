"""Several radii in one run: an example that falls at one radius falls at every larger radius."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

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


Memory = dict[str, Smaller]  # by name of the attack
