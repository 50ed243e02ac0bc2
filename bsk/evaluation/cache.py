"""An evaluation as files that grow: a line a block of a stage, so that nothing is computed twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import UNSET, Meta, Struct

from bsk.errors import InputError
from bsk.evaluation.ledger import NOWHERE, Block
from bsk.records import checkpoints
from bsk.records import jsonl as records
from bsk.records.atomic import naming_the_file
from bsk.records.fields import Amount, convert
from bsk.records.located import evaluation, wrong
from bsk.records.located import read as read_located
from bsk.records.locks import exclusive
from bsk.records.schema import OwnEvaluation

KIND = "examples"
COLUMNS = ("rows", "fooled", "distance", "forward", "backward")  # of a block


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the key of an evaluation: a hash of all that decides its verdicts."""
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_Passes = Annotated[int, Meta(ge=0, le=1 << 40)]


class _Line(Struct):
    """A line of a file of blocks: `bsk.evaluation.ledger.Block` as lists, null for a distance that is not known."""

    stage: int
    rows: list[int]
    fooled: list[Annotated[int, Meta(ge=0, le=1)]]
    distance: list[Annotated[float, Meta(ge=0)] | None]
    forward: list[_Passes]
    backward: list[_Passes]
    seconds: Amount


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
        """Be the only process within the block that works on this evaluation; who comes second waits."""
        return exclusive(self.examples.with_name(f".{self.key}.lock"))

    def finished(self) -> dict[str, Any] | None:
        """Return the record of this evaluation, if it is complete.

        Raises:
            InputError: the file cannot be read, or a field of the record is not what it should be.
        """
        if not self.out.exists():
            return None
        for item in read_located(self.out):
            if item.record.get("key") == self.key and item.record.get("kind") == "evaluation":
                record = evaluation(item, OwnEvaluation)
                if record.adbd is not UNSET and record.never_fooled is None:
                    raise wrong(item, "never_fooled", "a whole number from 0")
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
                lines = records.read(path) if path.exists() else []
                known += [_block(record, n, len(self._stages)) for record in lines]
            except ValueError as error:
                raise InputError(f"{path}: not the blocks of an evaluation; remove it to start over") from error
        return known

    def grow(self, block: Block) -> None:
        """Append a block; several processes may do so at once."""
        lists = {name: getattr(block, name).tolist() for name in COLUMNS}
        lists["fooled"] = [int(each) for each in lists["fooled"]]
        lists["distance"] = [None if each == NOWHERE else each for each in lists["distance"]]
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


def _block(record: records.Record, n: int, stages: int) -> Block:
    line = convert(record, _Line)
    columns = {name: getattr(line, name) for name in COLUMNS}
    inside = line.rows and min(line.rows) >= 0 and max(line.rows) < n and 0 <= line.stage < stages
    if not inside or any(len(column) != len(line.rows) for column in columns.values()):
        raise ValueError("rows")
    columns["distance"] = [NOWHERE if each is None else each for each in line.distance]
    tensors = {name: torch.tensor(column) for name, column in columns.items()}
    tensors["fooled"] = tensors["fooled"].bool()
    return Block(stage=line.stage, seconds=line.seconds, **tensors)
