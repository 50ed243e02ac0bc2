"""A disk that fills up at every write: one line, exit 3, and all that was there is still there."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

from torture.subjects import Command, contents, differences, left_alone, unreadable

PAGE = resource.getpagesize()  # the least that such a disk gives
STEPS = 8  # even parts of twice what a command leaves, since it writes files beside those that they replace


def disks(folder: Path, most: int, say: Callable[[str], None]) -> list[str]:
    """Run every command on disks of at most so many sizes, then with room enough; return what went wrong."""
    if not _possible(folder):
        say("disks: left out, since only root can make a small file system")
        return []
    wrong: list[str] = []
    small = folder / "small"
    small.mkdir()
    for command, whole, _ in left_alone(folder):
        full = 0
        rooms = _rooms(command, whole)
        for room in rooms[:: -(-len(rooms) // most)]:
            found, was_full = _on_a_disk(command, whole, small, room)
            wrong, full = wrong + found, full + was_full
        say(f"{command.name}: the disk was full {full} of {min(most, len(rooms))} times; {len(wrong)} wrong so far")
    return wrong


def _rooms(command: Command, whole: Path) -> list[int]:
    """Return free pages: none, a page less and more than each file took as they came, and even steps between."""
    made = [path for path in whole.rglob("*") if path.is_file() and path.name not in command.needs]
    ends = [0, *accumulate(_pages(path) for path in sorted(made, key=lambda path: path.stat().st_mtime_ns))]
    near = {end + by for end in ends for by in (-1, 0, 1)}
    return sorted(room for room in near | {2 * ends[-1] * step // STEPS for step in range(STEPS)} if room >= 0)


def _pages(path: Path) -> int:
    return -(-path.stat().st_size // PAGE)


def _on_a_disk(command: Command, whole: Path, small: Path, room: int) -> tuple[list[str], bool]:
    """Run a command on a disk with so many free pages, where it may write a part; then where it can write all of it."""
    needed = sum(_pages(whole / name) for name in command.needs)
    with _disk(small, (1 + needed + room) * PAGE):  # the size 0 would be without bounds
        (small / "filler").write_bytes(bytes(PAGE))
        for name in command.needs:
            shutil.copy(whole / name, small / name)
        before = contents(small)
        code, said = command.run(small)
        wrong = [f"{command.name}, {room} pages free: {line}" for line in unreadable(small)]
        if code != 0:
            wrong += [f"{command.name}, {room} pages free: half a line in {name}" for name in _half_lines(small)]
            after = contents(small)
            wrong += [f"{command.name}: {name} was lost" for name in before if after.get(name) != before[name]]
            last = (said.splitlines() or [""])[-1]
            if code != 3 or "Traceback" in said or "cannot write" not in last:
                wrong.append(f"{command.name}, {room} pages free: exit {code}, said {last!r}")
            _resize(small, 8 * sum(_pages(path) for path in whole.rglob("*") if path.is_file()) * PAGE + (1 << 20))
            again, said = command.run(small)
            if again:
                wrong.append(f"{command.name}: exit {again} with room again: {said}")
        wrong += [f"{command.name}: {line}" for line in differences(contents(whole), contents(small))]
    return wrong, code != 0


def _half_lines(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.jsonl") if path.read_bytes()[-1:] not in (b"", b"\n")]


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
