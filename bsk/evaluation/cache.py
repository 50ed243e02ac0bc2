"""An evaluation as files that grow: a line a block of a stage, so that nothing is computed twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bsk.comparison.evidence import evaluation
from bsk.errors import InputError
from bsk.evaluation.ledger import Block
from bsk.records import checkpoints
from bsk.records import jsonl as records
from bsk.records import located as fields
from bsk.records.atomic import exclusive, naming_the_file

KIND = "examples"


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the key of an evaluation: a hash of all that decides its verdicts."""
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Cache:
    """The files of one evaluation beside the records `F.jsonl`, in `F.examples/`.

    `STAGE-KEY.jsonl` grows by a line a block, and its key is one of the stages up to this one: all evaluations that
    begin with the same stages read and write the same files, whichever comes first. `KEY.safetensors` is the verdict
    on each example, in the end.
    """

    def __init__(self, out: Path, key: str, stages: Sequence[tuple[str, str]]) -> None:
        """Take the file of records, the evaluation's key, and for each stage its name and the key up to it."""
        self.out, self.key = out, key
        folder = out.with_suffix(".examples")
        self._stages = [folder / f"{name}-{up_to}.jsonl" for name, up_to in stages]
        self._whole = folder / f"{key}.jsonl"  # where bsk kept the blocks of all stages before each had its file
        self.examples = folder / f"{key}.safetensors"

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Be the only process within the block that works on this evaluation; who comes second waits.

        Raises:
            InputError: the lock cannot be made.
        """
        return exclusive(self.examples.with_name(f".{self.key}.lock"))

    def finished(self) -> dict[str, Any] | None:
        """Return the record of this evaluation, if it is complete.

        Raises:
            InputError: the file cannot be read, or a field of the record is not what it should be.
        """
        if not self.out.exists():
            return None
        for item in fields.read(self.out):
            if item.record.get("key") == self.key and item.record.get("kind") == "evaluation":
                _check(item)
                return item.record
        return None

    def blocks(self, n: int) -> list[Block]:
        """Return the blocks that are there already, of examples 0 to n - 1, stage by stage.

        Raises:
            InputError: a line is not what this writes.
        """
        known = []
        for path in [*self._stages, self._whole]:
            try:
                known += [_block(record, n, len(self._stages)) for record in _lines(path)]
            except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
                raise InputError(f"{path}: not the blocks of an evaluation; remove it to start over") from error
        return known

    def grow(self, block: Block) -> None:
        """Append a block; several processes may do so at once."""
        columns = ("rows", "fooled", "distance", "forward", "backward")
        lists = {name: getattr(block, name).tolist() for name in columns}
        lists["fooled"] = [int(each) for each in lists["fooled"]]
        lists["distance"] = [None if each == float("inf") else each for each in lists["distance"]]
        records.append(self._stages[block.stage], {"stage": block.stage, **lists, "seconds": block.seconds})

    def finish(self, record: dict[str, Any], tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
        """Write the verdict on each example, then the record; the blocks stay, for other evaluations."""
        checkpoints.save(self.examples, tensors, {**header, "kind": KIND, "key": self.key})
        if self.finished() is None:  # another may have been faster
            records.append(self.out, record)
        self.clean()

    def clean(self) -> None:
        """Remove the blocks that no evaluation takes up once the record is there, as one killed before may leave."""
        with naming_the_file(self._whole):
            self._whole.unlink(missing_ok=True)


def _check(item: fields.Located) -> None:
    """Check what `compare` will read of a record, and what a person is told of it."""
    evaluation(item)
    for name in ("eps", "low", "high", "seconds", *({"adbd"} & item.record.keys())):
        fields.needed(fields.number(item, name), item, name)
    doubts = item.record.get("doubts")
    if not isinstance(doubts, list) or not all(isinstance(doubt, str) for doubt in doubts):
        raise fields.wrong(item, "doubts", "a list of text")


def _lines(path: Path) -> list[records.Record]:
    return records.read(path) if path.exists() else []


def _block(record: dict[str, Any], n: int, stages: int) -> Block:
    rows = torch.tensor(record["rows"], dtype=torch.int64)
    seconds = record["seconds"]
    if type(seconds) not in (int, float) or not 0 <= seconds < 1e15 or type(record["stage"]) is not int:
        raise ValueError("seconds or stage")
    distance = [float("inf") if each is None else float(each) for each in record["distance"]]
    block = Block(
        stage=record["stage"],
        rows=rows,
        fooled=torch.tensor(record["fooled"], dtype=torch.bool),
        distance=torch.tensor(distance),
        forward=torch.tensor(record["forward"], dtype=torch.int64),
        backward=torch.tensor(record["backward"], dtype=torch.int64),
        seconds=float(seconds),
    )
    columns = (block.fooled, block.distance, block.forward, block.backward)
    inside = len(rows) > 0 and int(rows.min()) >= 0 and int(rows.max()) < n and 0 <= block.stage < stages
    if not inside or any(column.shape != rows.shape for column in columns):
        raise ValueError("rows")
    if any(int(column.min()) < 0 or int(column.max()) > 1 << 40 for column in (block.forward, block.backward)):
        raise ValueError("passes")
    if not bool((block.distance >= 0).all()):
        raise ValueError("distance")
    return block
