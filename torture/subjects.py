"""The commands under test, and the comparison of the files that they make."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from bsk.records import jsonl as records
from bsk.records.checkpoints import MODEL, STATE
from bsk.records.headers import load_header

KINDS = ("data", MODEL, STATE, "attack", "examples")
# Parts of the names of fields that may differ between runs; the checks depend on the speed of the machine.
CHANGING = ("second", "checkpoint_sha256", "checks", "doubts")


@dataclass(frozen=True)
class Command:
    """A command line, run in a folder that has the files `needs`."""

    name: str
    words: Sequence[str]
    needs: Sequence[str] = ()

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start it in a folder, as a new process group."""
        return subprocess.Popen(
            [sys.executable, "-m", "bsk", *self.words],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def writing(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start it and return after its first write or its end, since imports take most of its time."""
        before = _state(folder)
        process = self.start(folder)
        while process.poll() is None and _state(folder) == before:
            time.sleep(0.001)
        return process

    def run(self, folder: Path) -> tuple[int, str]:
        """Run it to its end; return the exit code and stderr."""
        process = self.start(folder)
        said = process.communicate()[1].decode(errors="replace")
        return process.returncode, said


def _command(name: str, words: str, *needs: str) -> Command:
    return Command(name, [name, *words.split()], needs)


_DATA, _MODEL = "data.safetensors", "m.safetensors"
_ATTACK = f"{_MODEL} --data {_DATA} --queries 500 --limit 48"
COMMANDS = (
    _command("prepare-data", f"digits --out {_DATA}"),
    _command(
        "train",
        f"--data {_DATA} --model cnn-8 --batch-size 50 --limit 600 --threads 1 --epochs 6 --ema 0.9 --out {_MODEL}",
        _DATA,
    ),
    _command("attack", f"{_ATTACK} --attack square --out a.safetensors", _DATA, _MODEL),
    _command("evaluate", f"{_ATTACK} --attack screen,square --batch-size 16 --out r.jsonl", _DATA, _MODEL),
)


def keep(whole: Path, folder: Path) -> None:
    """Copy the files that later commands need from `whole` to `folder`."""
    for name in {name for command in COMMANDS for name in command.needs}:
        if (whole / name).exists():
            shutil.copy(whole / name, folder / name)


def fresh(place: Path, command: Command, whole: Path) -> Path:
    """Return a new folder with the files that a command needs, copied from `whole`."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name in command.needs:
        shutil.copy(whole / name, place / name)
    return place


class FailedError(Exception):
    """An undisturbed command fails, so that it cannot be tested."""


_MADE = tempfile.TemporaryDirectory()
_seconds: dict[str, float] = {}  # of the commands whose files are in _MADE


def undisturbed(folder: Path) -> Iterator[tuple[Command, Path, float]]:
    """Yield each command, the folder with the files of its undisturbed run, and its seconds after the first write.

    A command runs once for all parts of the tests. The files that later commands need are copied to `folder`.
    """
    for command in COMMANDS:
        whole = Path(_MADE.name) / command.name
        if command.name not in _seconds:
            process = command.writing(fresh(whole, command, folder))
            start = time.perf_counter()
            said = process.communicate()[1].decode(errors="replace")
            if process.returncode:
                raise FailedError(f"{command.name}: exit {process.returncode} when undisturbed: {said}")
            _seconds[command.name] = time.perf_counter() - start
        yield command, whole, _seconds[command.name]
        keep(whole, folder)


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the size and time of every file in a folder, ignoring files that vanish meanwhile."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            found[str(path)] = about.st_size, about.st_mtime_ns
    return found


def unreadable(folder: Path) -> list[str]:
    """Return errors in the files of a folder, except temporary ones."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name.startswith("."):
            continue
        try:
            if path.suffix == ".jsonl":
                records.read(path)
            elif path.suffix == ".safetensors":
                load_header(path, KINDS)
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118 - no dict
                        file.get_tensor(name)
        except Exception as error:
            found.append(f"{path.name}: {error}")
    return found


def saved(folder: Path) -> int:
    """Return how much work is saved: updates of a training, or lines of an evaluation."""
    state = folder / "m.last.safetensors"
    if state.exists():
        return int(load_header(state, (STATE,))["progress"]["step"])
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("*.jsonl"))


def epochs_behind(folder: Path) -> int:
    """Return the number of logged epochs that a resumed training would repeat."""
    log, state = folder / "m.jsonl", folder / "m.last.safetensors"
    if not log.exists():
        return 0
    logged: int = sum(record.get("kind") == "epoch" for record in records.read(log))
    kept = load_header(state, (STATE,)).get("epoch") if state.exists() else 0
    return logged - (kept if isinstance(kept, int) else 0)


def contents(folder: Path) -> dict[str, Any]:
    """Return the bytes of each file in a folder, or its content without the fields that may differ between runs."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix == ".jsonl":
            found[path.name] = [_timeless(record) for record in records.read(path)]
        elif path.is_file() and path.suffix == ".safetensors" and not path.name.startswith("."):
            header = load_header(path, KINDS)
            same = _timeless(header) == header
            found[path.name] = path.read_bytes() if same else (_timeless(header), _tensors(path))
    return found


def _tensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).contiguous() for name in file.keys()}  # noqa: SIM118
    return {n: (str(t.dtype), t.shape, t.view(-1).view(torch.uint8).numpy().tobytes()) for n, t in tensors.items()}


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return one line for each file that is missing, unexpected or different."""
    names = sorted({*expected, *found})
    return [f"{name} is not the same" for name in names if expected.get(name) != found.get(name)]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not any(word in k for word in CHANGING)}
    return [_timeless(each) for each in value] if isinstance(value, list) else value
