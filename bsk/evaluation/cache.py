"""The cache of an evaluation: files that grow by one line per block, so that nothing is computed twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import UNSET, Meta, Struct

from bsk.errors import InputError, UsageError, first_line
from bsk.evaluation.ledger import NOWHERE, Block
from bsk.records import checkpoints
from bsk.records import jsonl as records
from bsk.records.atomic import naming_the_file
from bsk.records.fields import Amount, convert
from bsk.records.located import evaluation, stops_at_eps, wrong
from bsk.records.located import read as read_located
from bsk.records.locks import exclusive
from bsk.records.schema import OwnEvaluation

KIND = "examples"
COLUMNS = ("rows", "fooled", "distance", "forward", "backward")  # the per-example fields of a block


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the key of an evaluation, 16 hex digits: a hash of everything that affects its verdicts.

    Raises:
        UsageError: an argument of an attack from outside cannot be written to a record.
    """
    try:
        text = json.dumps(facts, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        said = f"an argument of the attack cannot be written to a record ({first_line(error)})"
        raise UsageError(f"{said}; make it a finite number, text or None") from error
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_Passes = Annotated[int, Meta(ge=0, le=1 << 40)]


class _Line(Struct):
    """A line of a block file: `bsk.evaluation.ledger.Block` as lists, with null for an unknown distance."""

    stage: int
    rows: list[int]
    fooled: list[Annotated[int, Meta(ge=0, le=1)]]
    distance: list[Annotated[float, Meta(ge=0)] | None]
    forward: list[_Passes]
    backward: list[_Passes]
    seconds: Amount


class Cache:
    """The files of one evaluation in the folder `F.examples/`, next to the records `F.jsonl`.

    `STAGE-KEY.jsonl` gets one line per block. Its key is a hash of the stages up to this one, so all evaluations that
    begin with the same stages share these files. `KEY.safetensors` has the final verdict on each example.
    """

    def __init__(self, out: Path, key: str, stages: Sequence[tuple[str, str]]) -> None:
        """Set the file of records, the key of the evaluation, and for each stage its name and the key up to it."""
        self.out, self.key = out, key
        folder = out.with_suffix(".examples")
        self._stages = [folder / f"{name}-{up_to}.jsonl" for name, up_to in stages]
        self._whole = folder / f"{key}.jsonl"  # written by older versions: the blocks of all stages
        self.examples = folder / f"{key}.safetensors"

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock of this evaluation within the block; another process waits for it."""
        return exclusive(self.examples.with_name(f".{self.key}.lock"))

    def finished(self) -> dict[str, Any] | None:
        """Return the record of this evaluation, or None if there is none yet.

        Raises:
            InputError: the file cannot be read, or a field of the record is invalid.
        """
        if not self.out.exists():
            return None
        for item in read_located(self.out):
            if item.record.get("key") == self.key and item.record.get("kind") == "evaluation":
                record = evaluation(item, OwnEvaluation)
                if record.adbd is not UNSET and record.never_fooled is None:
                    raise wrong(item, "never_fooled", "a whole number from 0")
                left_out = ("adbd", "adbd_correct") if stops_at_eps(record) else ()
                return {name: each for name, each in item.record.items() if name not in left_out}
        return None

    def blocks(self, n: int) -> list[Block]:
        """Return the cached blocks of examples 0 to n - 1, stage by stage.

        Raises:
            InputError: a line is not a valid block.
        """
        known = []
        for path in [*self._stages, self._whole]:
            try:
                lines = records.read(path) if path.exists() else []
                known += [_block(record, n, len(self._stages)) for record in lines]
            except ValueError as error:
                raise InputError(f"{path}: not a valid cache of an evaluation; remove it to start over") from error
        return known

    def grow(self, block: Block) -> None:
        """Append a block; several processes may append at the same time."""
        lists = {name: getattr(block, name).tolist() for name in COLUMNS}
        lists["fooled"] = [int(each) for each in lists["fooled"]]
        lists["distance"] = [None if each == NOWHERE else each for each in lists["distance"]]
        records.append(self._stages[block.stage], {"stage": block.stage, **lists, "seconds": block.seconds})

    def finish(self, record: dict[str, Any], tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
        """Write the verdicts, then the record; the block files stay for other evaluations."""
        checkpoints.save(self.examples, tensors, {**header, "kind": KIND, "key": self.key})
        if self.finished() is None:  # another process may have finished first
            records.append(self.out, record)
        self.clean()

    def clean(self) -> None:
        """Remove the block file of an older version, which nothing reads once the record exists."""
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
