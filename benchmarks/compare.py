"""Time and memory of `bsk compare`, here and in another checkout: `python -m benchmarks.compare [CHECKOUT]`."""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.memory import PEAK
from bsk.records.bits import encode_correct

HERE = Path(__file__).parents[1]
# name -> methods, seeds, and the promised seconds and MB. No time is promised for many seeds of two methods, where the
# bootstrap of ten thousand resamples takes as long as everything else.
SIZES = {
    "12 records": (2, 3, 0.7, 120),
    "10,000 of a method": (1, 5000, 1.2, 120),
    "10,000 of two": (2, 2500, None, 120),
}
METHODS, ATTACKS, IMAGES = ("fast-at", "bs"), ("natural", "pgd-20"), 1000
RIGHT = {("fast-at", "natural"): 0.75, ("bs", "natural"): 0.73, ("fast-at", "pgd-20"): 0.41, ("bs", "pgd-20"): 0.44}
FLAGS: dict[str, Any] = {
    "augment": "crop-flip",
    "awp": 0.0,
    "batch_size": 128,
    "beta": 10.0,
    "bound": 1.0,
    "dataset": "cifar10",
    "ema": 0.0,
    "epochs": 15,
    "eps": 8 / 255,
    "gamma": 1.0,
    "inner": "kl",
    "label_smoothing": 0.0,
    "limit": None,
    "log_divergence": True,
    "lr": 0.2,
    "model": "resnet18-16",
    "momentum": 0.9,
    "noise": 2.0,
    "on_collapse": "warn",
    "outer": "trades",
    "precision": "bf16",
    "ramp": False,
    "replays": 1,
    "rescue": None,
    "rescue_drop": 0.1,
    "rescue_every": 20,
    "schedule": "cyclic",
    "select": "val",
    "start": "backward",
    "step": 8 / 255,
    "steps": 1,
    "warmup": 0.0,
    "weight_decay": 0.0005,
}
_COMPARE = (
    PEAK
    + """
import sys
from bsk.cli.app import main
try:
    main()
finally:
    print(peak(), file=sys.stderr)
"""
)


class Run(NamedTuple):
    """One run of `bsk compare`: wall-clock and CPU seconds, peak bytes of resident memory, and the output."""

    seconds: float
    busy: float
    peak: int
    printed: str


def records(methods: int, seeds: int) -> Iterator[dict[str, Any]]:
    """Yield one evaluation per method (the last `methods` of METHODS), seed and attack, about 2 kB each."""
    random = np.random.default_rng(0)
    for method in METHODS[-methods:]:
        for seed in range(seeds):
            for attack in ATTACKS:
                correct = random.random(IMAGES) < RIGHT[method, attack]
                yield record(method, seed, attack, correct)


def record(method: str, seed: int, attack: str, correct: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
    """Return an evaluation record like those of `bsk evaluate`."""
    right = int(correct.sum())
    return {
        "schema": 1,
        "kind": "evaluation",
        "key": f"{seed:016x}",
        "checkpoint": f"out/small/runs/cifar10/{method}_seed-{seed}.safetensors",
        "checkpoint_sha256": f"{METHODS.index(method):032x}{seed:032x}",
        "method": method,
        "model": "resnet18-16",
        "dataset": "cifar10",
        "seed": seed,
        "selected": "best",
        "epoch": 15,
        "complete": True,
        "flags": {**FLAGS, "method": method, "seed": seed},
        "normalisation": None,
        "train_eps": FLAGS["eps"],
        "train_seconds": 60.0 + seed % 7,
        "train_forward_passes": 990_000,
        "train_backward_passes": 990_000,
        "train_device": "cpu",
        "data_sha256": "c81577e6f169bdeeceac51a2d8f37c67cea05096b6121f89afc7bdcc6c052c9e",
        "eps": FLAGS["eps"],
        "attack": attack,
        "attack_parameters": {"seed": 0} if attack == "natural" else {"steps": 20, "step": 2 / 255, "seed": 0},
        "split": "test",
        "n": IMAGES,
        "accuracy": right / IMAGES,
        "low": max(0.0, right / IMAGES - 0.03),
        "high": min(1.0, right / IMAGES + 0.03),
        "after": {"natural": right / IMAGES},
        "checks": {},
        "doubts": [],
        "seconds": 1.5,
        "forward_passes": 21 * IMAGES,
        "backward_passes": 20 * IMAGES,
        "correct": encode_correct(correct),
        "device": "cpu",
        "threads": 1,
        "precision": "fp32",
        "version": "0.1.0",
        "torch": "2.11.0",
    }


def compare(checkout: Path, file: Path) -> Run:
    """Run `bsk compare` from a checkout on a file."""
    command = [sys.executable, "-c", _COMPARE, "compare", str(file), "--format", "tsv"]
    start, before = time.perf_counter(), _busy()
    paths = {**os.environ, "PYTHONPATH": str(checkout.resolve())}  # the working folder has no bsk
    done = subprocess.run(command, cwd=file.parent, env=paths, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    return Run(seconds, _busy() - before, int(done.stderr.split()[-1]), done.stdout)


def _shared(run: Run, other: Run) -> list[list[str]]:
    """Return the cells of a run in the columns that the other has too; newer builds have more columns at the end."""
    rows = [line.split("\t") for line in run.printed.splitlines()]
    columns = len(set(rows[0]) & set(other.printed.split("\n", 1)[0].split("\t")))
    return [cells[:columns] for cells in rows]


def _busy() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print one row per size and build: seconds and peak memory, measured in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", nargs="?", type=Path, help="another build, run in turns with this one")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    checkouts = [HERE, *([given.checkout] if given.checkout else [])]
    print("records\tbuild\tseconds\tfastest\tslowest\tbusy\tMB\tpromised", flush=True)
    for name, (methods, seeds, seconds, most) in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "results.jsonl"
            file.write_text("".join(json.dumps(each) + "\n" for each in records(methods, seeds)))
            pairs = [[compare(each, file) for each in checkouts] for _ in range(given.repeats)]
        if any(_shared(run, pair[0]) != _shared(pair[0], run) for pair in pairs for run in pair):
            sys.exit(f"{name}: the builds print different tables")
        for build, runs in zip(["this", "other"], zip(*pairs, strict=True), strict=False):
            times = sorted(run.seconds for run in runs)
            peak = statistics.median(run.peak for run in runs) / 1e6
            busy = statistics.median(run.busy for run in runs)
            cells = f"{statistics.median(times):.2f}\t{times[0]:.2f}\t{times[-1]:.2f}\t{busy:.2f}\t{peak:.0f}"
            print(f"{name}\t{build}\t{cells}\t{f'{seconds} s, ' if seconds else ''}{most} MB", flush=True)


if __name__ == "__main__":
    main()
