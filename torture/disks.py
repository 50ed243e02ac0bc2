"""Disks that become full at any write: bsk must print one line, exit with 3, and lose no existing file."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

from torture.subjects import Command, contents, differences, undisturbed, unreadable

PAGE = resource.getpagesize()  # the unit of allocation of such a disk
STEPS = 8  # evenly spaced disk sizes, up to twice what a command leaves, since it writes temporary files too


def disks(folder: Path, most: int, say: Callable[[str], None]) -> list[str]:
    """Run every command on disks of up to `most` sizes, and again with enough space; return the failures."""
    if not _possible(folder):
        say("disks: left out, since only root can create a small file system")
        return []
    wrong: list[str] = []
    small = folder / "small"
    small.mkdir()
    for command, whole, _ in undisturbed(folder):
        full = 0
        sizes = _sizes(command, whole)
        for free in sizes[:: -(-len(sizes) // most)]:
            found, was_full = _on_a_disk(command, whole, small, free)
            wrong, full = wrong + found, full + was_full
        say(f"{command.name}: the disk was full {full} of {min(most, len(sizes))} times; {len(wrong)} wrong so far")
    return wrong


def _sizes(command: Command, whole: Path) -> list[int]:
    """Return numbers of free pages to try.

    They are the cumulative sizes of the files in the order of writing, plus and minus a page, and evenly spaced ones.
    """
    made = [path for path in whole.rglob("*") if path.is_file() and path.name not in command.needs]
    ends = [0, *accumulate(_pages(path) for path in sorted(made, key=lambda path: path.stat().st_mtime_ns))]
    near = {end + by for end in ends for by in (-1, 0, 1)}
    return sorted(pages for pages in near | {2 * ends[-1] * step // STEPS for step in range(STEPS)} if pages >= 0)


def _pages(path: Path) -> int:
    return -(-path.stat().st_size // PAGE)


def _on_a_disk(command: Command, whole: Path, small: Path, free: int) -> tuple[list[str], bool]:
    """Run a command on a disk with `free` pages, then with enough space; return the failures and if it was full."""
    needed = sum(_pages(whole / name) for name in command.needs)
    with _disk(small, (1 + needed + free) * PAGE):  # never 0, which would mean unlimited
        (small / "filler").write_bytes(bytes(PAGE))
        for name in command.needs:
            shutil.copy(whole / name, small / name)
        before = contents(small)
        code, said = command.run(small)
        wrong = [f"{command.name}, {free} pages free: {line}" for line in unreadable(small)]
        if code != 0:
            wrong += [f"{command.name}, {free} pages free: a partial line in {name}" for name in _partial_lines(small)]
            after = contents(small)
            wrong += [f"{command.name}: {name} was lost" for name in before if after.get(name) != before[name]]
            last = (said.splitlines() or [""])[-1]
            if code != 3 or "Traceback" in said or "cannot write" not in last:
                wrong.append(f"{command.name}, {free} pages free: exit {code}, said {last!r}")
            _resize(small, 8 * sum(_pages(path) for path in whole.rglob("*") if path.is_file()) * PAGE + (1 << 20))
            again, said = command.run(small)
            if again:
                wrong.append(f"{command.name}: exit {again} with enough space: {said}")
        wrong += [f"{command.name}: {line}" for line in differences(contents(whole), contents(small))]
    return wrong, code != 0


def _partial_lines(folder: Path) -> list[str]:
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
