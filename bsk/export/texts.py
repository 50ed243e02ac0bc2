"""Model cards and RobustBench entries, written to files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bsk.errors import InputError
from bsk.evaluation.subjects import NEEDED
from bsk.export.card import card
from bsk.export.conditions import check_ending
from bsk.export.evaluations import evaluations_of
from bsk.export.robustbench import model_info
from bsk.records import jsonl
from bsk.records.atomic import replacing
from bsk.records.header_schema import MODEL, STATE
from bsk.records.headers import load_header

_TOLD = (*NEEDED, "model", "classes", "shape", "mean", "std")  # header fields that a card needs


def export_card(checkpoint: Path, files: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write the model card of a checkpoint, from its header and its evaluations in JSONL files; return the record.

    Raises:
        UsageError: `out` does not end in .md.
        InputError: a file cannot be read, or the files have no evaluation of the checkpoint.
    """
    check_ending(out, (".md",))
    header = load_header(checkpoint, (MODEL, STATE))
    if lacking := [name for name in _TOLD if name not in header]:
        raise InputError(f"{checkpoint}: the header lacks {', '.join(lacking)}; train it again")
    sha256 = jsonl.sha256(checkpoint)
    records = evaluations_of(files, sha256) if files else []
    with replacing(out) as temporary:
        temporary.write_text(card(checkpoint, sha256, header, records), encoding="utf-8")
    return _record("card", str(checkpoint), out) | {"checkpoint_sha256": sha256, "evaluations": len(records)}


def export_info(files: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write the RobustBench entry of the one network of the records, and return the record of the export.

    Raises:
        UsageError: `out` does not end in .json, or the records are of several networks or settings.
        InputError: a file cannot be read, or has no evaluations.
    """
    check_ending(out, (".json",))
    records = evaluations_of(files)
    info = model_info(records)
    with replacing(out) as temporary:
        temporary.write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
    facts = {"checkpoint_sha256": records[0].checkpoint_sha256, "evaluations": len(records)}
    unknown = [name for name, value in info.items() if value is None and name != "footnote"]
    return _record("robustbench", ", ".join(map(str, files)), out) | facts | {"unknown": unknown}


def _record(to: str, source: str, out: Path) -> dict[str, Any]:
    return {"schema": jsonl.SCHEMA, "kind": "export", "to": to, "source": source, "out": str(out)}
