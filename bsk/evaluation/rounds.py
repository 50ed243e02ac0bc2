"""The order of the stages of an attack: each runs once, or the last ones run on a sample that may grow."""

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
    """Yield the number of each stage to run next, after entering the known blocks into the ledger.

    The last stages of an audit run once per look at the number of fallen examples. The sample is the first survivors
    in a fixed random order of all examples (`random_order`), so a larger sample contains every smaller one.
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
    """Return the audit at its start: n examples, so many survivors, and the first sample size."""
    if attack.within is not None:
        return Audit(n, survivors, 0).enlarged(attack.within)
    return Audit(n, survivors, min(attack.audit or 0, survivors))


def random_order(index: Tensor, seed: int) -> Tensor:
    """Return the positions of the examples in random order, (N,): sorted by a hash of the seed and the data index.

    The order is the same on every device, and the relative order of two examples does not depend on the others.
    """
    hashes = [hashlib.sha256(f"audit {seed} {each}".encode()).digest() for each in index.tolist()]
    return torch.tensor(sorted(range(len(hashes)), key=hashes.__getitem__), dtype=torch.int64)
