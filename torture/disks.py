"""A disk that fills up at every write: one line, exit 3, and all that was there is still there."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from torture.subjects import Command, contents, differences, left_alone, unreadable

STEPS = 8  # sizes of the disk for each command


def disks(folder: Path, say: Callable[[str], None]) -> list[str]:
    """Run every command on disks of several sizes, then with room enough; return what went wrong."""
    if not _possible(folder):
        say("disks: left out, since only root can make a small file system")
        return []
    wrong: list[str] = []
    small = folder / "small"
    small.mkdir()
    for command, whole, _ in left_alone(folder):
        full = 0
        for step in range(STEPS):
            found, was_full = _on_a_disk(command, whole, small, step)
            wrong, full = wrong + found, full + was_full
        say(f"{command.name}: the disk was full {full} of {STEPS} times")
    return wrong


def _on_a_disk(command: Command, whole: Path, small: Path, step: int) -> tuple[list[str], bool]:
    """Run a command where it can write a part of what it writes; then where it can write all of it."""
    needed = sum((whole / name).stat().st_size for name in command.needs)
    written = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file()) - needed
    room = written * step // STEPS
    with _disk(small, needed + room + 8192):
        for name in command.needs:
            shutil.copy(whole / name, small / name)
        before = contents(small)
        code, said = command.run(small)
        wrong = [f"{command.name}, {room} bytes free: {line}" for line in unreadable(small)]
        if code != 0:
            after = contents(small)
            wrong += [f"{command.name}: {name} was lost" for name in before if after.get(name) != before[name]]
            last = (said.splitlines() or [""])[-1]
            if code != 3 or "Traceback" in said or "cannot write" not in last:
                wrong.append(f"{command.name}, {room} bytes free: exit {code}, said {last!r}")
            _resize(small, needed + 8 * written + (1 << 20))
            again, said = command.run(small)
            if again:
                wrong.append(f"{command.name}: exit {again} with room again: {said}")
        wrong += [f"{command.name}: {line}" for line in differences(contents(whole), contents(small))]
    return wrong, code != 0


def _possible(folder: Path) -> bool:
    probe = folder / "probe"
    probe.mkdir()
    with contextlib.suppress(OSError, subprocess.CalledProcessError), _disk(probe, 1 << 16):
        return os.path.ismount(probe)
    return False


@contextlib.contextmanager
def _disk(place: Path, size: int) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _resize(place: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True, capture_output=True)
