"""The evaluations of one network, read from records, for leaderboards and model cards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bsk.errors import InputError, UsageError
from bsk.records import located
from bsk.records.schema import EvaluationRecord
from bsk.terminal import note


def evaluations_of(files: Sequence[Path], sha256: str | None = None) -> list[EvaluationRecord]:
    """Return the evaluations in JSONL files, of the checkpoint with that SHA-256 if one is given.

    Raises:
        UsageError: the evaluations are of several networks.
        InputError: a file cannot be read, or has no such evaluation.
    """
    items = [item for path in files for item in located.stream(path, note) if item.record.get("kind") == "evaluation"]
    every = [located.evaluation(item, EvaluationRecord) for item in items]
    found = [each for each in every if sha256 in (None, each.checkpoint_sha256)]
    names = ", ".join(map(str, files))
    if not found:
        of_it = "of this checkpoint" if every else "in it"
        raise InputError(f"{names}: no evaluation {of_it}; give the records that bsk evaluate --out wrote")
    if len({each.checkpoint_sha256 for each in found}) > 1:
        raise UsageError(f"export: {names}: evaluations of several networks; give those of one")
    return found
