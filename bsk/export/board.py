"""Training logs as TensorBoard event files."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bsk.errors import InputError, UsageError
from bsk.export.conditions import check_free, check_installed
from bsk.records import located
from bsk.records.atomic import replacing
from bsk.records.jsonl import SCHEMA, Record
from bsk.records.schema import EpochRecord

EVENTS = "events.out.tfevents.bsk"  # TensorBoard recognises event files by "tfevents"
_NO_SCALARS = ("schema", "epoch")


def export_logs(logs: Sequence[Path], folder: Path, force: bool = False) -> dict[str, Any]:
    """Write an event file in FOLDER/RUN for each log RUN.jsonl, one scalar per number and epoch; return the record.

    The wall time of an event is the training time so far in seconds, without interruptions.

    Raises:
        UsageError: tensorboard is not installed, or two logs have the same name.
        InputError: a log cannot be read or has no epochs, or the event file exists.
    """
    check_installed("tensorboard", ("tensorboard",))
    runs = {log.stem: epochs_of(log) for log in logs}
    if len(runs) < len(logs):
        raise UsageError("export: two logs have the same name; rename one, or export each to its own folder")
    for run in runs:
        check_free(folder / run / EVENTS, force)
    for run, epochs in runs.items():
        _write(folder / run / EVENTS, epochs)
    count = sum(len(scalars_of(epoch)) for epochs in runs.values() for epoch in epochs)
    source = ", ".join(map(str, logs))
    facts = {"to": "tensorboard", "source": source, "out": str(folder), "runs": list(runs), "scalars": count}
    return {"schema": SCHEMA, "kind": "export", **facts}


def epochs_of(log: Path) -> list[Record]:
    """Return the records of the epochs in a log; of an epoch that was run twice, the later one.

    Raises:
        InputError: the log cannot be read, a record violates its schema, or there are no epochs.
    """
    found = {}
    for item in located.stream(log):
        if item.record.get("kind") == "epoch":
            found[located.checked(item, EpochRecord).epoch] = item.record
    if not found:
        raise InputError(f"{log}: has no epochs; expected a log of bsk train, F.jsonl")
    return [found[epoch] for epoch in sorted(found)]


def scalars_of(epoch: Record) -> dict[str, float]:
    """Return the numbers of an epoch by name, without unknown accuracies."""
    numbers = {name: value for name, value in epoch.items() if type(value) in (int, float) and name not in _NO_SCALARS}
    return {name: value for name, value in numbers.items() if not (value == -1 and "_" in name)}


def _write(path: Path, epochs: Sequence[Record]) -> None:
    from torch.utils.tensorboard.writer import SummaryWriter

    clock = 0.0
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.closing(SummaryWriter(folder)) as writer:
            for epoch in epochs:
                clock += float(epoch.get("seconds") or 0.0)
                for name, value in scalars_of(epoch).items():
                    writer.add_scalar(name, value, epoch["epoch"], walltime=clock)
        (written,) = Path(folder).iterdir()
        with replacing(path) as temporary:
            temporary.write_bytes(written.read_bytes())
