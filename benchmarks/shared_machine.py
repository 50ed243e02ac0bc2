"""The time of bsk alone and next to another torch process: `python -m benchmarks.shared_machine [WORK ...]`."""

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
WORKS = {"pgd-100": 300, "autoattack": 24, "bs": 0}  # with the number of attacked images; 0 for a training
PLACES = ("alone", "beside")
BESIDE = 1.3  # allowed ratio to the best number of threads, next to another process
ALONE, WAITING = 1.03, 1.06  # without one: to another build, and to torch's own waiting policy
CHOSEN = ("OMP_", "GOMP_", "KMP_", "MKL_")  # prefixes of variables that are removed from the environment
OTHER = "other build"
TORCH = {"GOMP_SPINCOUNT": "300000"}  # the default of GCC's OpenMP

# The other process: convolutions forward and backward without pause.
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
# A command of a build, run in forks of a process that has imported torch but not used it, so that the time to start
# Python is not measured.
_COMMAND = """
import contextlib, importlib, os, pkgutil, sys, time
answers = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
import bsk
if sys.argv[1] == "evaluate":
    with contextlib.suppress(ImportError):  # another build may not have it
        from bsk.waiting import sleep_later
        sleep_later()  # as the command does before it loads torch
from bsk.cli.app import app
for module in pkgutil.walk_packages(bsk.__path__, "bsk."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print("ready", file=answers, flush=True)
for line in sys.stdin:
    if not (child := os.fork()):
        start = time.perf_counter()
        app([word.replace("NEW", str(time.time_ns())) for word in sys.argv[1:]], standalone_mode=False)
        print(time.perf_counter() - start, file=answers, flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        break  # its traceback is above
"""


class Process:
    """Python code in another process, which ends with this one."""

    def __init__(self, code: str, words: list[str], checkout: Path = HERE, more: dict[str, str] | None = None) -> None:
        """Start it without environment variables for threads, except those in `more`, and wait until it is ready."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(CHOSEN)}
        environment = {**kept, "PYTHONPATH": str(checkout), **(more or {})}
        command = [sys.executable, "-c", code, *words]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, env=environment, cwd=checkout, stdin=pipe, stdout=pipe, text=True, preexec_fn=_end_with_parent
        )
        self._read_line()

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the measurement ended; see above")
        return line

    def seconds(self) -> float:
        """Run its work once and return the seconds."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return float(self._read_line())

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()


def _end_with_parent() -> None:
    """Let Linux kill this process when its parent ends for any reason."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def command(work: str, given: Material, n: int) -> list[str]:
    """Return the arguments of a command on the digits: an attack on n images, or one epoch of a method."""
    if n:
        model = given.small()
        return ["evaluate", *model.words(given.data), "--attack", work, "--limit", str(n), "--no-checks", "--quiet"]
    out = given.folder / "NEW.safetensors"
    flags = ["--epochs", "1", "--schedule", "cyclic", "--out", str(out), "--quiet"]
    return ["train", "--data", str(given.data.path), "--method", work, *flags]


def alone(words: list[str], repeats: int, other: Path | None) -> dict[str, list[float]]:
    """Return the seconds of a command without another process, for each waiting policy, measured in turns."""
    ways = {"default": Process(_COMMAND, words), "as torch waits": Process(_COMMAND, words, more=TORCH)}
    return _in_turns(ways | ({OTHER: Process(_COMMAND, words, other)} if other else {}), repeats)


def beside(words: list[str], repeats: int, threads: int) -> dict[str, list[float]]:
    """Return the seconds of a command next to another process, for each number of threads, measured in turns."""
    ways = {"default": Process(_COMMAND, words), "1 thread": Process(_COMMAND, [*words, "--threads", "1"])}
    if words[0] == "evaluate":  # a training uses all threads by default, since its bits depend on their number
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
    """Run another process with this many threads during the block."""
    process = Process(_NEIGHBOUR, [str(threads)])
    try:
        yield
    finally:
        process.end()


def report(work: str, repeats: int, other: Path | None = None, n: int = 0, places: tuple[str, ...] = PLACES) -> None:
    """Print the measurements of one workload, and whether they keep the promises; n images are attacked."""
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        words = command(work, material(Path(folder), real=False), WORKS[work] and (n or WORKS[work]))
        for place in places:
            found = alone(words, repeats, other) if place == "alone" else beside(words, repeats, threads)
            what = f"{work} alone" if place == "alone" else f"{work} beside {threads} threads of torch"
            _rows(what, found, place)


def _rows(what: str, found: dict[str, list[float]], place: str) -> None:
    medians = {way: statistics.median(seconds) for way, seconds in found.items()}
    for way, turns in found.items():
        print(f"  {what}, {way}: {medians[way]:.3f} s ({min(turns):.3f} to {max(turns):.3f})", flush=True)
    if place == "beside":
        best = min(medians, key=lambda way: medians[way])
        limits = {f"the best, {best}": (medians[best], BESIDE)}
    else:
        others = [way for way in medians if way != "default"]
        limits = {way: (medians[way], ALONE if way == OTHER else WAITING) for way in others}
    for way, (seconds, most) in limits.items():
        over = medians["default"] / seconds
        say(f"{what}: default / {way}", over, f"<= {most}", over <= most)


def main() -> None:
    """Print the rows of each workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", nargs="*", default=[*WORKS], help=", ".join(WORKS))
    parser.add_argument("--other", type=Path, help="another build, run in turns with this one where it is alone")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=0, help="number of attacked images, by default that of the work")
    parser.add_argument("--place", choices=PLACES, help="measure only this")
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
