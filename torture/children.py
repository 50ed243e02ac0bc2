"""Run bsk in a folder and an environment, in a fork of this process if that is equivalent, else in a new process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torture.situation_parts import ENVIRONMENTS, PROCESS

PATIENCE = 120  # seconds after which a command counts as hanging
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ended:
    """The end of a command: its exit code, its stdout, and its stderr (`said`)."""

    code: int
    out: str
    said: str


def fresh(place: Path) -> Path:
    """Return an empty folder."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


def run(words: Sequence[str], place: Path, parts: Mapping[str, str]) -> Ended:
    """Run bsk in a folder and an environment, in a fork of this process if equivalent, else in a new process."""
    name = parts.get("environment", "none")
    changes = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **ENVIRONMENTS[name][0]}
    out, said = place.parent / "out.txt", place.parent / "said.txt"
    with out.open("wb") as first, said.open("wb") as second, open("/dev/full", "wb") as full:
        streams = (full if name == "full stdout" else first).fileno(), second.fileno()
        code = (_process if PROCESS & set(parts.values()) else _fork)(words, place, name, changes, streams)
    encoding = (changes.get("PYTHONIOENCODING") or "utf-8").partition(":")[0]
    return Ended(code, out.read_bytes().decode(encoding, "replace"), said.read_bytes().decode(encoding, "replace"))


def _process(
    words: Sequence[str], place: Path, name: str, changes: Mapping[str, str | None], streams: tuple[int, int]
) -> int:
    variables = {key: value for key, value in {**os.environ, **changes}.items() if value is not None}
    command = [sys.executable, "-m", "bsk", *words]
    if name == "closed stdin":
        command = ["bash", "-c", 'exec "$@" <&-', "bash", *command]
    out, said = streams
    try:
        return subprocess.run(
            command, cwd=place, env=variables, stdin=subprocess.DEVNULL, stdout=out, stderr=said, timeout=PATIENCE
        ).returncode
    except subprocess.TimeoutExpired:
        return -signal.SIGALRM


def _fork(
    words: Sequence[str], place: Path, name: str, changes: Mapping[str, str | None], streams: tuple[int, int]
) -> int:
    child = os.fork()
    if child == 0:
        try:
            _child(words, place, name, changes, streams)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _child(
    words: Sequence[str], place: Path, name: str, changes: Mapping[str, str | None], streams: tuple[int, int]
) -> None:
    """Turn this forked process into one that behaves like a newly started bsk, and run it."""
    from bsk.cli.app import main

    signal.alarm(PATIENCE)
    os.environ.update({key: value for key, value in changes.items() if value is not None})
    for key in [key for key, value in changes.items() if value is None]:
        os.environ.pop(key, None)
    os.chdir(place)
    if name == "folder removed":
        sys.path.append(str(place))
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir(place / "gone")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in zip((1, 2), streams, strict=True):
        os.dup2(file, number)
    for number, stream in ((1, "stdout"), (2, "stderr")):  # like Python's own
        kept = open(number, "w", errors="strict" if number == 1 else "backslashreplace", closefd=False)  # noqa: SIM115
        vars(sys).update({stream: kept, f"__{stream}__": kept})
    if name in ("closed stdout", "closed stderr"):
        closed = name.split()[1]
        os.close(getattr(sys, closed).fileno())
        setattr(sys, closed, None)
    sys.argv = ["bsk", *words]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        vars(sys)["__stdout__"].flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
