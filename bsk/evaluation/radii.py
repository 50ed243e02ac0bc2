"""Several radii in one run: what falls at one has fallen at the larger ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from bsk.evaluation.ledger import Ledger


@dataclass
class Smaller:
    """What is known of an attack at smaller radii, ascending.

    The verdicts are looked for only where they are needed: records that are there already answer without them.
    """

    radii: tuple[float, ...]
    find: Callable[[], Ledger]

    @cached_property
    def ledger(self) -> Ledger:
        """The verdicts at the largest of them, which hold those at the others."""
        return self.find()


Memory = dict[str, Smaller]  # by the name of the attack
