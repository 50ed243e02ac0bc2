"""An evaluation as a file that grows: a line a block, so that nothing is computed twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bsk.errors import InputError
from bsk.evaluation.ledger import Block
from bsk.files import checkpoints, records
from bsk.files.atomic import naming_the_file

KIND = "examples"


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the key of an evaluation: a hash of all that decides its verdicts."""
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Growing:
    """The files of one evaluation beside the records `F.jsonl`: `F.examples/KEY.jsonl`, then `KEY.safetensors`."""

    def __init__(self, out: Path, key: str) -> None:
        """Take the file of records and the evaluation's key."""
        self.out, self.key = out, key
        self._folder = out.with_suffix(".examples")
        self._blocks = self._folder / f"{key}.jsonl"
        self.examples = self._folder / f"{key}.safetensors"

    def finished(self) -> dict[str, Any] | None:
        """Return the record of this evaluation, if it is complete."""
        if not self.out.exists():
            return None
        mine = (each for each in records.read(self.out) if each.get("key") == self.key)
        return next((each for each in mine if each.get("kind") == "evaluation"), None)

    def blocks(self, n: int, stages: int) -> list[Block]:
        """Return the blocks that are there already, of an evaluation of n examples.

        Raises:
            InputError: a line is not what this writes.
        """
        if not self._blocks.exists():
            return []
        try:
            return [_block(record, n, stages) for record in records.read(self._blocks)]
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise InputError(f"{self._blocks}: not the blocks of an evaluation; remove it to start over") from error

    def grow(self, block: Block) -> None:
        """Append a block; several processes may do so at once."""
        columns = ("rows", "fooled", "distance", "forward", "backward")
        lists = {name: getattr(block, name).tolist() for name in columns}
        lists["fooled"] = [int(each) for each in lists["fooled"]]
        lists["distance"] = [None if each == float("inf") else each for each in lists["distance"]]
        records.append(self._blocks, {"stage": block.stage, **lists, "seconds": block.seconds})

    def finish(self, record: dict[str, Any], tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
        """Write the verdict on each example, then the record, and drop the blocks."""
        checkpoints.save(self.examples, tensors, {**header, "kind": KIND, "key": self.key})
        if self.finished() is None:  # another may have been faster
            records.append(self.out, record)
        with naming_the_file(self._blocks):
            self._blocks.unlink(missing_ok=True)


def _block(record: dict[str, Any], n: int, stages: int) -> Block:
    rows = torch.tensor(record["rows"], dtype=torch.int64)
    distance = [float("inf") if each is None else float(each) for each in record["distance"]]
    block = Block(
        stage=int(record["stage"]),
        rows=rows,
        fooled=torch.tensor(record["fooled"], dtype=torch.bool),
        distance=torch.tensor(distance),
        forward=torch.tensor(record["forward"], dtype=torch.int64),
        backward=torch.tensor(record["backward"], dtype=torch.int64),
        seconds=float(record["seconds"]),
    )
    columns = (block.fooled, block.distance, block.forward, block.backward)
    inside = len(rows) > 0 and int(rows.min()) >= 0 and int(rows.max()) < n and 0 <= block.stage < stages
    if not inside or any(column.shape != rows.shape for column in columns):
        raise ValueError("rows")
    return block
