"""Which stages of an attack run when: all of them once, or the last ones on a sample that may grow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bsk.attacks.registry import Attack
from bsk.evaluation.audit import Audit
from bsk.evaluation.ledger import Block, Ledger


def rounds(attack: Attack, ledger: Ledger, known: Sequence[Block], index: Tensor, seed: int) -> Iterator[int]:
    """Yield the number of each stage to run next, the ledger with all that is known of the examples it is for.

    An audit's last stages run once for each look at how many have fallen. Its sample is the first survivors in an order
    of all examples (`random_order`), so that a larger one holds a smaller one; of the known blocks it takes no more.
    """
    for block in known:
        ledger.add(block)
    yield from range(attack.whole)
    if not attack.sampling:
        return
    survivors = ledger.standing[order := random_order(index, seed)].nonzero().squeeze(1)
    audit = begun(attack, len(order), len(survivors))
    while True:
        ledger.sample[order[survivors[: audit.audited]]] = True
        for block in known:
            ledger.add(block)
        yield from range(attack.whole, len(attack.stages))
        audit = replace(audit, fallen=int((ledger.broken_by >= attack.whole).sum()))
        if attack.within is None or audit.is_within(attack.within):
            break
        audit = audit.enlarged(attack.within)
    ledger.audit = audit


def begun(attack: Attack, n: int, survivors: int) -> Audit:
    """Return how many of so many survivors among n examples an audit begins with."""
    if attack.within is not None:
        return Audit(n, survivors, 0).enlarged(attack.within)
    return Audit(n, survivors, min(attack.audit or 0, survivors))


def random_order(index: Tensor, seed: int) -> Tensor:
    """Return the places of examples in a random order, (N,): by a hash of the seed and an example's index in the data.

    So it is the same on every device, and two examples come in the same order whatever others there are.
    """
    hashes = [hashlib.sha256(f"audit {seed} {each}".encode()).digest() for each in index.tolist()]
    return torch.tensor(sorted(range(len(hashes)), key=hashes.__getitem__), dtype=torch.int64)
