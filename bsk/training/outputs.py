"""The files of a training: F.safetensors (selected model), F.last.safetensors (for resuming), F.jsonl (log and lock).

With a moving average also F.ema.safetensors (selected) and, at the end, F.ema-last.safetensors.
"""

from __future__ import annotations

import contextlib
import glob
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from bsk.errors import InputError
from bsk.records import checkpoints, located
from bsk.records import jsonl as records
from bsk.records.atomic import appending, naming_the_file, still_named
from bsk.records.checkpoints import MODEL
from bsk.records.headers import load_header
from bsk.records.jsonl import BEST_ON_TEST, LATER_FLAGS
from bsk.records.locks import locked
from bsk.records.schema import LOG_KINDS
from bsk.training import state as states
from bsk.training.state import Scored, State


class Outputs:
    """Writes the files of one training; of several processes only the first writes."""

    def __init__(self, checkpoint: Path, header: dict[str, Any], log: IO[bytes] | None) -> None:
        """Take the path of the selected model, the header that describes the training, and the locked log."""
        self.checkpoint, self.header, self._log = checkpoint, header, log

    @property
    def writes(self) -> bool:
        """Whether this process writes files."""
        return self._log is not None

    def _open_log(self) -> IO[bytes] | None:
        """Return the log, or None in a process that does not write; called before each write.

        Raises:
            InputError: the log was removed or replaced, and its lock with it; another process may write the same files.
        """
        path = log_path(self.checkpoint)
        if self._log is not None and not still_named(self._log.fileno(), path):
            raise InputError(f"{path}: was removed or replaced meanwhile; the same command resumes from the last save")
        return self._log

    def keep_best(self, state: State) -> None:
        """Write the selected model and the selected average if the last epoch is the best and they are older."""
        if not self._open_log():
            return
        if state.best.epoch == state.last.epoch != _epoch_of(self.checkpoint, self.header):
            header = {**self.header, "kind": MODEL, "complete": False, "selected": selected(self.header)}
            checkpoints.save(self.checkpoint, state.model.state_dict(), {**header, **state.best.record()})
        average = average_path(self.checkpoint)
        if state.best_average.epoch == state.last_average.epoch != _epoch_of(average, self.header):
            self._save_average(state, average, selected(self.header), state.best_average)

    def keep_epoch(self, state: State) -> None:
        """Write the model of the last epoch to a file of its own."""
        if self._open_log():
            epoch = state.last.epoch
            header = {**self.header, "kind": MODEL, "selected": f"epoch {epoch}", **totals(state)}
            path = epoch_path(self.checkpoint, epoch)
            checkpoints.save(path, state.model.state_dict(), {**header, **state.last.record()})

    def save_last_average(self, state: State) -> None:
        """Write the moving average after the last epoch."""
        self._save_average(state, average_path(self.checkpoint, "-last"), "last", state.last_average)

    def _save_average(self, state: State, path: Path, epoch: str, scored: Scored) -> None:
        if self._open_log() and state.average is not None:
            chosen = f"{epoch} ema {self.header['flags']['ema']:g}"
            header = {**self.header, "kind": MODEL, "complete": False, "selected": chosen}
            checkpoints.save(path, state.average.module.state_dict(), {**header, **scored.record()})

    def save_state(self, state: State) -> None:
        """Write the state for resuming; the file is also a checkpoint of the last epoch, or of an update within one."""
        if self._open_log():
            amid = bool(state.epoch_passes.forward)  # then these weights have not been validated
            scored = {"epoch": state.last.epoch, "selected": f"update {state.step}"} if amid else state.last.record()
            header = {**self.header, "selected": "last", **scored, **totals(state)}
            states.save(last_path(self.checkpoint), state, header)

    def complete(self, state: State) -> dict[str, Any]:
        """Add the totals of the whole training to the selected model and its averages, once."""
        if self.writes and not self._complete():
            self._stamp(state)
        sha256 = records.sha256(self.checkpoint) if self.writes else None
        return {"checkpoint": str(self.checkpoint), "checkpoint_sha256": sha256}

    def _complete(self) -> bool:
        """Return whether the selected model already has the totals for this number of epochs."""
        found = load_header(self.checkpoint, MODEL)
        planned = found.get("flags", {}).get("epochs")
        return bool(found.get("complete")) and planned == self.header["flags"]["epochs"]

    def _stamp(self, state: State) -> None:
        if not self._open_log():
            return
        self.save_last_average(state)
        averages = [average_path(self.checkpoint, which) for which in ("", "-last")] if state.average else []
        for path in [*averages, self.checkpoint]:  # the checkpoint last: it marks the training as done
            tensors, header = checkpoints.load(path, MODEL)
            own = {"flags": self.header["flags"], "complete": True, **totals(state)}
            checkpoints.save(path, tensors, {**header, **own})

    def log(self, record: dict[str, Any]) -> None:
        """Append a record to the log."""
        if log := self._open_log():
            with naming_the_file(log_path(self.checkpoint)):
                records.write_line(log, record)

    def remove(self) -> None:
        """Remove all files but the log, starting with the one that a resumed training would use."""
        if self._open_log():
            for path in every_path(self.checkpoint):
                with naming_the_file(path):
                    path.unlink(missing_ok=True)

    def begin_log(self, epochs: int, looked: int = -1) -> int:
        """Truncate the log to its start, the first `epochs` epochs, and alarms up to update `looked`.

        Everything after them is repeated. A log without a start record, such as a new one, or one of another number of
        epochs gets a start record. Returns how many of those epochs the log lacks.
        """
        if not (log := self._open_log()):
            return 0
        log.seek(0)
        length, planned, kept = 0, None, 0
        for line in BytesIO(log.read() if epochs >= 0 else b""):  # the log itself is unbuffered
            record = next(records.parse([line], str(log_path(self.checkpoint))), {})
            told = record.get("kind") == "alarm" and record["step"] <= looked
            ahead = record.get("epoch", 0) > epochs and not told
            headless = not length and record.get("kind") != "start"
            if record.get("kind") == "end" or ahead or headless or not line.endswith(b"\n"):
                break
            length += len(line)
            kept += record.get("kind") == "epoch"
            if record.get("kind") == "start":
                planned = (record.get("flags") or {}).get("epochs")
        log.truncate(length)
        if planned != self.header["flags"]["epochs"]:
            facts = {"schema": records.SCHEMA, "kind": "start", "checkpoint": str(self.checkpoint)}
            self.log({**self.header, **facts})
        return max(0, epochs - kept)


def selected(header: dict[str, Any]) -> str:
    """Return which epoch the selected model has: "best" means the best on val."""
    return BEST_ON_TEST if header["flags"]["select"] == "test" else "best"


def _epoch_of(path: Path, header: dict[str, Any]) -> int | None:
    """Return the epoch of a model of the training with this header, or None if there is none."""
    if not path.exists():
        return None
    found = load_header(path, MODEL)
    epoch = found.get("epoch")
    return epoch if isinstance(epoch, int) and not differences(found, header) else None


def missing_model(checkpoint: Path, found: dict[str, Any]) -> Path | None:
    """Return the path of a selected model that is missing or belongs to another training, and is not in `.last` either.

    `found` is the header of `.last`.
    """
    progress = found.get("progress")
    progress = progress if isinstance(progress, dict) else {}
    ended = not _number(progress.get("epoch_passes"), "forward")
    for path, best, last in (
        (checkpoint, "best", "last"),
        (average_path(checkpoint), "best_average", "last_average"),
    ):
        epoch = _number(progress.get(best), "epoch")
        in_last = ended and epoch == _number(progress.get(last), "epoch")
        if epoch and not in_last and _epoch_of(path, found) != epoch:
            return path
    return None


def _number(values: object, name: str) -> int:
    value = values.get(name) if isinstance(values, dict) else None
    return value if isinstance(value, int) else 0


def totals(state: State) -> dict[str, Any]:
    """Return the cost of the training so far without evaluation; passes are counted per image."""
    return {
        "train_seconds": state.seconds,
        "train_forward_passes": state.passes.forward,
        "train_backward_passes": state.passes.backward,
        **({"train_compile_seconds": state.compile_seconds} if state.compile_seconds else {}),
    }


def last_path(checkpoint: Path) -> Path:
    """Return F.last.safetensors for F.safetensors."""
    return checkpoint.with_suffix(".last.safetensors")


def average_path(checkpoint: Path, which: str = "") -> Path:
    """Return F.ema.safetensors for F.safetensors, or F.ema-last.safetensors."""
    return checkpoint.with_suffix(f".ema{which}.safetensors")


def every_path(checkpoint: Path) -> list[Path]:
    """Return all model files that a training writes, starting with the one used for resuming."""
    averages = [average_path(checkpoint), average_path(checkpoint, "-last")]
    kept = checkpoint.parent.glob(f"{glob.escape(checkpoint.stem)}.epoch-*.safetensors")
    epochs = [each for each in kept if re.fullmatch(r"epoch-[1-9]\d*", each.stem.removeprefix(f"{checkpoint.stem}."))]
    beside = [each for each in (*averages, *epochs) if not is_of_another(each)]
    return [last_path(checkpoint), checkpoint, *beside]


def is_of_another(path: Path) -> bool:
    """Return whether a file beside a training, such as F.ema.safetensors, is the selected model of another training."""
    return path.exists() and _has_begun(path)


def _has_begun(checkpoint: Path) -> bool:
    """Return whether there is a state or a log of a training."""
    if last_path(checkpoint).exists() or not log_path(checkpoint).exists():
        return last_path(checkpoint).exists()
    return any(item.record.get("kind") == "start" for item in located.read(log_path(checkpoint), 1))


def training_with(path: Path) -> Path | None:
    """Return the checkpoint F.safetensors of the training that a path such as F.ema.safetensors belongs to, if any."""
    name = re.fullmatch(r"(.+)\.(last|ema|ema-last|epoch-[1-9]\d*)", path.stem)
    owner = path.with_name(f"{name[1]}{path.suffix}") if name else path
    return owner if name and _has_begun(owner) and not _has_begun(path) else None


def planned_paths(checkpoint: Path, flags: dict[str, Any]) -> tuple[list[Path], list[Path]]:
    """Return the paths of the averages and of the epochs that a training with these flags writes."""
    averages = [average_path(checkpoint, which) for which in ("", "-last")] if flags["ema"] else []
    every = flags["save_every"]
    epochs = range(every, flags["epochs"] + 1, every) if every else []
    return averages, [epoch_path(checkpoint, epoch) for epoch in epochs]


def epoch_path(checkpoint: Path, epoch: int) -> Path:
    """Return F.epoch-N.safetensors for F.safetensors."""
    return checkpoint.with_suffix(f".epoch-{epoch}.safetensors")


def log_path(checkpoint: Path) -> Path:
    """Return F.jsonl for F.safetensors."""
    return checkpoint.with_suffix(".jsonl")


@contextlib.contextmanager
def locked_log(checkpoint: Path) -> Iterator[IO[bytes]]:
    """Open the log for this process only; the lock is released when the process ends, in whatever way.

    Raises:
        InputError: another training is writing it, it contains records of other commands, or it cannot be written.
    """
    path = log_path(checkpoint)
    refusal = f"{checkpoint}: another bsk train is writing it; wait for it or choose another --out"
    with appending(path) as file, locked(file, path, refusal):
        _check_own(path)
        yield file


def _check_own(log: Path) -> None:
    """Refuse a log with records that no training wrote: truncating it would destroy them, so no flag allows it.

    Raises:
        InputError: it has such records, is not JSONL, or lacks the number of an epoch or update.
    """
    for item in located.read(log):
        kind = item.record.get("kind")
        if not isinstance(kind, str) or kind not in LOG_KINDS:
            raise InputError(
                f"{log}: has records of kind {kind!s:.40}, so it is not a training log; choose another --out"
            )
        located.checked(item, LOG_KINDS[kind])


# flags that may change when resuming, since they do not affect past updates; for epochs see `bsk.training.resume`
MAY_CHANGE = {"on_collapse", "compile", "save_every", "epochs"}
FILES = {"init", "extra"}  # compared by content, not by path
BITS = ("device", "threads", "torch", "version", "compiled")  # header fields that affect rounding


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return e.g. "gamma 1.0, now 2.0" for every flag, and for data or code, in which two headers differ."""
    before = {**LATER_FLAGS, **old.get("flags", {})}
    flags = {name: value for name, value in new["flags"].items() if name not in MAY_CHANGE | FILES}
    changed = [f"{name} {before.get(name)}, now {value}" for name, value in flags.items() if before.get(name) != value]
    codes = {"method": "method_code", "model": "code"}
    changed += [f"other {what}" for what in ("init", "extra") if _file(old, what) != _file(new, what)]
    changed += [f"other code of {new[what]}" for what, code in codes.items() if old.get(code) != new.get(code)]
    worlds = [found.get("processes") for found in (old, new)]  # batch norm is over a process's part of a batch
    if None not in worlds and worlds[0] != worlds[1]:  # earlier versions did not record it
        changed.append(f"processes {worlds[0]}, now {worlds[1]}")
    return changed + ["other data"] * (old.get("data_sha256") != new["data_sha256"])


def _file(header: dict[str, Any], what: str) -> Any:
    return (header.get(what) or {}).get("sha256")


def other_bits(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return e.g. "threads 1, now 2" for everything that may round differently from what wrote the old header."""
    no = {"compiled": False}  # the default
    old, new = {**no, **old}, {**no, **new}
    return [f"{name} {old.get(name)}, now {new[name]}" for name in BITS if old.get(name) != new[name]]
