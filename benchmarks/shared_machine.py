"""What bsk takes alone and beside another torch process: `python -m benchmarks.shared_machine [WORK ...]`."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.material import Material, material
from benchmarks.steps import CPU
from benchmarks.timing import say
from bsk.devices import device_name

HERE = Path(__file__).parents[1]
WORKS = ("pgd-100", "autoattack", "bs")
PLACES = ("alone", "beside")
BESIDE, ALONE = 1.3, 1.03  # of the best number of threads there; of threads that wait as torch lets them
CHOSEN = ("OMP_", "GOMP_", "KMP_", "MKL_")
TORCH = {"GOMP_SPINCOUNT": "300000"}  # what GCC's OpenMP takes where nothing is set

# Whatever trains on the other side: convolutions there and back, as fast as they can.
_NEIGHBOUR = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3, padding=1), torch.nn.ReLU(),
    torch.nn.Flatten(), torch.nn.Linear(64 * 1024, 10),
)
x, y = torch.rand(64, 3, 32, 32), torch.randint(0, 10, (64,))
print("ready", flush=True)
while True:
    torch.nn.functional.cross_entropy(net(x), y).backward()
"""
# A command of a build in a process that has torch loaded and has not used it: what starting Python takes is not told.
_COMMAND = """
import importlib, os, pkgutil, sys, time
told = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
import bsk
from bsk.cli.app import app
for module in pkgutil.walk_packages(bsk.__path__, "bsk."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print("ready", file=told, flush=True)
for line in sys.stdin:
    if not (child := os.fork()):
        start = time.perf_counter()
        app([word.replace("NEW", str(time.time_ns())) for word in sys.argv[1:]], standalone_mode=False)
        print(time.perf_counter() - start, file=told, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


class Process:
    """Python code in a process that dies with this one."""

    def __init__(self, code: str, words: list[str], checkout: Path = HERE, more: dict[str, str] | None = None) -> None:
        """Start it, with nothing chosen for its threads but what `more` says, and wait until it is ready."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(CHOSEN)}
        environment = {**kept, "PYTHONPATH": str(checkout), **(more or {})}
        command = [sys.executable, "-c", code, *words]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, env=environment, cwd=checkout, stdin=pipe, stdout=pipe, text=True, preexec_fn=_end_with_parent
        )
        self._hear()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the measurement ended; see above")
        return line

    def seconds(self) -> float:
        """Have it do its work once more."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return float(self._hear())

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()


def _end_with_parent() -> None:
    """Have Linux kill this process when its parent ends, however that does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def command(work: str, given: Material, n: int) -> list[str]:
    """Return the words of a command on n images of the digits: an attack, or an epoch of a method."""
    if work in WORKS[:2]:
        model = given.small()
        return ["evaluate", *model.words(given.data), "--attack", work, "--limit", str(n), "--no-checks", "--quiet"]
    out = given.folder / "NEW.safetensors"
    flags = ["--epochs", "1", "--schedule", "cyclic", "--out", str(out), "--quiet"]
    return ["train", "--data", str(given.data.path), "--method", work, *flags]


def alone(words: list[str], repeats: int, other: Path | None) -> dict[str, list[float]]:
    """Return seconds of a command with nobody beside, of each way to wait, in turns."""
    ways = {"default": Process(_COMMAND, words), "as torch waits": Process(_COMMAND, words, more=TORCH)}
    return _in_turns(ways | ({"other build": Process(_COMMAND, words, other)} if other else {}), repeats)


def beside(words: list[str], repeats: int, threads: int) -> dict[str, list[float]]:
    """Return seconds of a command beside another process, of each number of threads, in turns."""
    ways = {"default": Process(_COMMAND, words), "1 thread": Process(_COMMAND, [*words, "--threads", "1"])}
    if words[0] == "evaluate":  # a training has all of them by default, and keeps them: its bits depend on the number
        ways[f"{threads} threads"] = Process(_COMMAND, [*words, "--threads", str(threads)])
    with neighbour(threads):
        return _in_turns(ways, repeats)


def _in_turns(ways: dict[str, Process], repeats: int) -> dict[str, list[float]]:
    turns = [{way: process.seconds() for way, process in ways.items()} for _ in range(repeats)]
    for process in ways.values():
        process.end()
    return {way: [turn[way] for turn in turns] for way in ways}


@contextlib.contextmanager
def neighbour(threads: int) -> Iterator[None]:
    """Have another process of so many threads at work within the block."""
    process = Process(_NEIGHBOUR, [str(threads)])
    try:
        yield
    finally:
        process.end()


def report(work: str, repeats: int, other: Path | None = None, n: int = 300, places: tuple[str, ...] = PLACES) -> None:
    """Print what was measured of one work, and whether it is what was promised."""
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        words = command(work, material(Path(folder), real=False), n)
        for place in places:
            found = alone(words, repeats, other) if place == "alone" else beside(words, repeats, threads)
            what = f"{work} alone" if place == "alone" else f"{work} beside {threads} threads of torch"
            _rows(what, found, ALONE if place == "alone" else BESIDE)


def _rows(what: str, found: dict[str, list[float]], most: float) -> None:
    medians = {way: statistics.median(seconds) for way, seconds in found.items()}
    for way, seconds in found.items():
        print(f"  {what}, {way}: {medians[way]:.3f} s ({min(seconds):.3f} to {max(seconds):.3f})", flush=True)
    best = min(medians, key=lambda way: medians[way])
    over = medians["default"] / medians[best]
    say(f"{what}: default / the best, {best}", over, f"<= {most}", over <= most)


def main() -> None:
    """Print the rows of each work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", nargs="*", default=WORKS, help=", ".join(WORKS))
    parser.add_argument("--other", type=Path, help="checkout of another build, alone in turns with this one")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=300, help="of the digits that are attacked")
    parser.add_argument("--place", choices=PLACES, help="there alone")
    given = parser.parse_args()
    print(
        f"{device_name(CPU)}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"medians of {given.repeats} turns",
        flush=True,
    )
    for work in given.work:
        report(work, given.repeats, given.other, given.images, (given.place,) if given.place else PLACES)


if __name__ == "__main__":
    main()
