"""The verdict on each example: which stage broke it, at what distance, at what cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bsk.data.batches import Share
from bsk.data.processes import sum_over_processes
from bsk.evaluation.audit import Audit

STANDING = -1  # no stage has broken the example
NOWHERE = math.inf  # the distance of an example without a known adversarial image


@dataclass(frozen=True)
class Block:
    """The result of one stage on K examples: rows (K,) are their positions in the split, the rest as in Ledger."""

    stage: int
    rows: Tensor
    fooled: Tensor
    distance: Tensor
    forward: Tensor
    backward: Tensor
    seconds: float

    def __repr__(self) -> str:
        """Return all values, so that two blocks are equal if their texts are."""
        columns = (self.rows, self.fooled, self.distance, self.forward, self.backward)
        return f"Block({self.stage}, {[column.tolist() for column in columns]}, {self.seconds})"


class StageResult:
    """The results of one process in one stage, copied into tensors of all N examples.

    The tensors of a block are not kept: small tensors that stay between large ones that are freed fragment the heap,
    which grew by half a gigabyte in 100,000 images.

    Attributes:
        met: (N,) bool, which examples the stage has attacked in this process.
        fooled, distance, forward, backward: (N,) as in Block, for those examples.
        seconds: total of all blocks.
    """

    def __init__(self, n: int) -> None:
        """Start with N examples, none of them attacked."""
        self.met, self.fooled = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
        self.distance = torch.full((n,), NOWHERE)
        self.forward, self.backward = (torch.zeros(n, dtype=torch.int64) for _ in range(2))
        self.seconds = 0.0

    def add(self, block: Block) -> None:
        """Copy the results of a block."""
        self.met[block.rows] = True
        for name in ("fooled", "distance", "forward", "backward"):
            getattr(self, name)[block.rows] = getattr(block, name)
        self.seconds += block.seconds

    def together(self, stage: int, share: Share) -> Block:
        """Return the results of all processes as one block."""
        reached = torch.where(self.distance < NOWHERE, self.distance, 0.0)  # infinity times zero is NaN
        cells = (self.met, self.fooled, self.distance < NOWHERE, reached, self.forward, self.backward)
        seconds = torch.full_like(reached, self.seconds, dtype=torch.float64)
        table = torch.stack([*(each.double() for each in cells), seconds])
        table = sum_over_processes(table, share)
        rows = (table[0] > 0).nonzero().squeeze(1)
        _, fooled, near, distance, forward, backward, seconds = table[:, rows]
        distance = torch.where(near > 0, distance, NOWHERE).float()
        total = float(seconds[0]) if len(rows) else 0.0
        return Block(stage, rows, fooled > 0, distance, forward.long(), backward.long(), total)


class Ledger:
    """The verdicts on N examples so far.

    Attributes:
        done: (N,) int64, the number of stages that each example has met.
        broken_by: (N,) int64, the stage that broke it, or STANDING.
        distance: (N,) fp32, distance of its adversarial image in the norm of the attack; NOWHERE if there is none.
        forward, backward: (N,) int64, its passes.
        seconds: total time of the blocks; a block that was partly known counts for its new part.
        compiled: whether attacks used torch.compile; `compile_seconds` is the time of compilation.
        pace: seconds per pass of the fastest block, which excludes warm-up.
        whole: stages from this number on meet the sample only.
        sample: (N,) bool, the examples of an audit.
        audit: the result of the audit, or None.
        carried: number of examples whose verdict at another radius holds here too, and that were not attacked again.
    """

    def __init__(self, n: int, whole: float = math.inf) -> None:
        """Start with N examples without verdicts; the first `whole` stages meet all of them."""
        self.whole, self.sample = whole, torch.zeros(n, dtype=torch.bool)
        self.audit: Audit | None = None
        self.done, self.forward, self.backward = (torch.zeros(n, dtype=torch.int64) for _ in range(3))
        self.broken_by = torch.full((n,), STANDING)
        self.distance = torch.full((n,), NOWHERE)
        self.seconds, self.pace = 0.0, math.inf
        self.compiled, self.compile_seconds = False, 0.0
        self.carried = 0

    def carry(self, other: Ledger, rows: Tensor, stages: int) -> None:
        """Take over the verdicts on `rows`, (N,) bool, of the same attack, of `stages` stages, at another radius."""
        self.done[rows] = stages
        self.broken_by[rows], self.distance[rows] = other.broken_by[rows], other.distance[rows]
        self.carried = int(rows.sum())

    def columns(self) -> dict[str, Tensor]:
        """Return the per-example tensors by name."""
        left_out = ("done",) if self.audit else ("done", "sample")
        return {name: each for name, each in vars(self).items() if isinstance(each, Tensor) and name not in left_out}

    @property
    def standing(self) -> Tensor:
        """Which examples no stage has broken so far, (N,) bool."""
        return self.broken_by == STANDING

    def due(self, stage: int) -> Tensor:
        """Return the positions, ascending, of the standing examples that a stage has yet to meet."""
        return (self.standing & (self.done <= stage) & self.meets(stage)).nonzero().squeeze(1)

    def meets(self, stage: int) -> Tensor:
        """Return which examples a stage meets as long as they stand, (N,) bool."""
        return self.sample if stage >= self.whole else torch.ones_like(self.sample)

    def add(self, block: Block) -> None:
        """Enter the results of a stage for examples that have met all stages before it and none after.

        Results that are known already, as when two evaluations run at once, are not counted twice. Results for
        examples that the stage does not meet are ignored.
        """
        new = (self.done[block.rows] == block.stage) & self.meets(block.stage)[block.rows]
        rows = block.rows[new]
        self.done[rows] = block.stage + 1
        self.broken_by[rows[block.fooled[new]]] = block.stage
        self.distance[rows] = torch.minimum(self.distance[rows], block.distance[new])
        self.forward[rows] += block.forward[new]
        self.backward[rows] += block.backward[new]
        self.seconds += block.seconds * int(new.sum()) / max(1, len(new))
        if passes := int(block.forward.sum() + block.backward.sum()):
            self.pace = min(self.pace, block.seconds / passes)
