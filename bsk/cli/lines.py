"""Records as readable lines, as commands print them on a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bsk.progress import evaluation_line
from bsk.records.words import printable

Record = dict[str, Any]


def line_of(record: Record) -> str:
    """Return a record as one line, with control characters escaped."""
    return printable(LINES[record["kind"]](record))


def _data(record: Record) -> str:
    images = ", ".join(f"{record[split]} {split}" for split in ("train", "val", "test"))
    classes = f"{record['classes']} classes ({', '.join(record['class_names'])})"
    return f"{record['path']}: {record['name']}, {images} images, {classes}, eps {record['eps']:g}"


def _training(record: Record) -> str:
    found = f"val natural {record['val_natural']:.1%}, PGD-20 {record['val_robust']:.1%}"
    return f"{record['checkpoint']}: {record['method']}, epoch {record['epoch']} of {record['last_epoch']}: {found}"


def _landing(record: Record) -> str:
    before, after = (max(range(len(each)), key=each.__getitem__) for each in (record["logits"], record["landed"]))
    moved = f"KL {record['kl']:.4g} nats, class {before} to {after}"
    return f"image {record['index']} of class {record['label']}, {record['start']}: {moved}"


def _export(record: Record) -> str:
    texts = {
        "difference": "logits of {n} images differ by at most {difference:.1g}",
        "scalars": "{scalars} scalars of {count} runs",
        "evaluations": "from {evaluations} evaluations",
    }
    text = next(text for name, text in texts.items() if name in record)
    return f"{record['out']}: {record['to']}, {text.format(**record, count=len(record.get('runs', [])))}"


LINES: dict[str, Callable[[Record], str]] = {
    "evaluation": evaluation_line,
    "attack": evaluation_line,
    "data": _data,
    "end": _training,
    "export": _export,
    "landing": _landing,
}
