"""What is known of each example: which stage broke it, how far away, at what cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bsk.data.batches import Share
from bsk.data.processes import sum_over_processes
from bsk.evaluation.audit import Audit

STANDING = -1  # no stage broke it
NOWHERE = math.inf  # the distance of an example of which no misclassified image is known


@dataclass(frozen=True)
class Block:
    """What one stage found of K examples: rows (K,) are their places in the split, the rest as in Ledger."""

    stage: int
    rows: Tensor
    fooled: Tensor
    distance: Tensor
    forward: Tensor
    backward: Tensor
    seconds: float

    def __repr__(self) -> str:
        """Return all of it: two blocks are the same if their texts are."""
        columns = (self.rows, self.fooled, self.distance, self.forward, self.backward)
        return f"Block({self.stage}, {[column.tolist() for column in columns]}, {self.seconds})"


class StageResult:
    """What one process finds in one stage, entered into tensors of all N examples.

    A block's own tensors are let go: small ones that stay between large ones that go leave holes in the heap, which
    grew by half a gigabyte in 100,000 images, by chance.

    Attributes:
        met: (N,) bool, which examples the stage has met here.
        fooled, distance, forward, backward: (N,) as in Block, where it has.
        seconds: of all blocks.
    """

    def __init__(self, n: int) -> None:
        """Begin with N examples, none of them met."""
        self.met, self.fooled = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
        self.distance = torch.full((n,), NOWHERE)
        self.forward, self.backward = (torch.zeros(n, dtype=torch.int64) for _ in range(2))
        self.seconds = 0.0

    def add(self, block: Block) -> None:
        """Enter a block."""
        self.met[block.rows] = True
        for name in ("fooled", "distance", "forward", "backward"):
            getattr(self, name)[block.rows] = getattr(block, name)
        self.seconds += block.seconds

    def together(self, stage: int, share: Share, device: torch.device) -> Block:
        """Return what all processes have found, as one block."""
        reached = torch.where(self.distance < NOWHERE, self.distance, 0.0)  # infinity times zero is no number
        cells = (self.met, self.fooled, self.distance < NOWHERE, reached, self.forward, self.backward)
        seconds = torch.full_like(reached, self.seconds, dtype=torch.float64)
        table = torch.stack([*(each.double() for each in cells), seconds])
        table = sum_over_processes(table.to(device), share).cpu()
        rows = (table[0] > 0).nonzero().squeeze(1)
        _, fooled, near, distance, forward, backward, seconds = table[:, rows]
        distance = torch.where(near > 0, distance, NOWHERE).float()
        total = float(seconds[0]) if len(rows) else 0.0
        return Block(stage, rows, fooled > 0, distance, forward.long(), backward.long(), total)


class Ledger:
    """The verdicts on N examples as they come in.

    Attributes:
        done: (N,) int64, how many stages each example has gone through.
        broken_by: (N,) int64, the stage that broke it, or STANDING.
        distance: (N,) fp32, of its misclassified image, in the attack's norm; NOWHERE where there is none.
        forward, backward: (N,) int64, how often it went through the model.
        seconds: of all blocks, added up, in the part that was new.
        compiled: whether attacks searched through compiled passes; `compile_seconds`: what that took beside them.
        pace: seconds a pass, forward or backward, of the quickest block: where nothing had to be warmed up first.
        sample: (N,) bool, the only examples that stages from `whole` on are for.
        audit: what the sample tells of the others.
        carried: how many fell at a smaller radius already, and were not asked again.
    """

    def __init__(self, n: int, whole: float = math.inf) -> None:
        """Begin with N examples of which nothing is known; so many stages are for all of them."""
        self.whole, self.sample = whole, torch.zeros(n, dtype=torch.bool)
        self.audit: Audit | None = None
        self.done, self.forward, self.backward = (torch.zeros(n, dtype=torch.int64) for _ in range(3))
        self.broken_by = torch.full((n,), STANDING)
        self.distance = torch.full((n,), NOWHERE)
        self.seconds, self.pace = 0.0, math.inf
        self.compiled, self.compile_seconds = False, 0.0
        self.carried = 0

    def carry(self, smaller: Ledger, stages: int) -> None:
        """Enter the examples that fell to the same attack, of so many stages, at a smaller radius: nothing is due."""
        fallen = ~smaller.standing
        self.done[fallen] = stages
        self.broken_by[fallen], self.distance[fallen] = smaller.broken_by[fallen], smaller.distance[fallen]
        self.carried = int(fallen.sum())

    def columns(self) -> dict[str, Tensor]:
        """Return what is known of each example, by name."""
        left_out = ("done",) if self.audit else ("done", "sample")
        return {name: each for name, each in vars(self).items() if isinstance(each, Tensor) and name not in left_out}

    @property
    def standing(self) -> Tensor:
        """Which examples no stage has broken so far, (N,)."""
        return self.broken_by == STANDING

    def due(self, stage: int) -> Tensor:
        """Return the places, ascending, of the standing examples that a stage is for and has not met yet."""
        return (self.standing & (self.done <= stage) & self.meets(stage)).nonzero().squeeze(1)

    def meets(self, stage: int) -> Tensor:
        """Return which examples a stage is for, as long as they stand, (N,)."""
        return self.sample if stage >= self.whole else torch.ones_like(self.sample)

    def add(self, block: Block) -> None:
        """Enter what a stage found of examples that have gone through those before it and no further.

        What is known already, as from two evaluations at once, is not counted twice, nor are its seconds. What a stage
        found of others than it is for is left out.
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
