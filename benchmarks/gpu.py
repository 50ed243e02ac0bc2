"""The measurements of `benchmarks/gpu.sh`, which need a GPU; networks and images are made here.

Tiny sizes run on a CPU too.
"""

from __future__ import annotations

import argparse
import inspect
import statistics
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import bsk
from bsk.attacks.flags import AttackFlags
from bsk.data.store import DataFile
from bsk.devices import chosen_device, device_name
from bsk.evaluation.flags import EvaluationFlags
from bsk.training.flags import TrainingFlags

METHODS = ("bs", "trades", "at")
RADII = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
STANDING = 0.3  # robust accuracy at which attacks are timed, low enough that images fall and not so low that few remain


@dataclass(frozen=True)
class Size:
    """Image side, batch size, updates per epoch, epochs, number of attacked images, and the networks."""

    side: int
    batch: int
    updates: int
    epochs: int
    attacked: int
    small: str
    large: str


SIZES = {
    "full": Size(32, 128, 9, 4, 512, "resnet18", "wrn-34-10"),
    "tiny": Size(8, 16, 8, 2, 8, "cnn", "resnet18-2"),
}


def digits(size: Size) -> DataFile:
    """Return the digits as colour images of the given side, with as many training images as whole updates use."""
    found = load_digits()
    x = torch.tensor(found.images[:, None] / 16, dtype=torch.float32)
    x = F.interpolate(x, size=(size.side, size.side), mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    y, n, val = torch.tensor(found.target), size.batch * size.updates, 64
    last = len(y) - max(size.attacked, 32)
    assert n + val <= last
    return bsk.prepare({"train": (x[: n + val], y[: n + val]), "test": (x[last:], y[last:])}, val=val)


def updates(size: Size, model: str) -> None:
    """Print the milliseconds of an update by method, eager and compiled, as the median over epochs after the first.

    The eager ones come first, since compiling a large network may take all the time that is left.
    """
    data = digits(size)
    print("model\tmethod\tcompile\tms\tover_eager", flush=True)
    ways = choice("compile", ("off", "on"), inspect.signature(bsk.train).parameters, fields(TrainingFlags))
    eager: dict[str, float] = {}
    for way in ways:
        for method in METHODS:
            flags: dict[str, Any] = {"compile": way} if len(ways) > 1 else {}
            flags |= {"batch_size": size.batch, "schedule": "cyclic", "epochs": size.epochs, "progress": False}
            log = bsk.train(data, method, model=model, eps=8 / 255, **flags).log
            epochs = [each["seconds"] for each in log if each["kind"] == "epoch"][1:]
            ms = 1000 * statistics.median(epochs) / size.updates
            eager.setdefault(method, ms)
            print(model, method, way, f"{ms:.2f}", f"{ms / eager[method]:.3f}", sep="\t", flush=True)


def evaluations(size: Size, attack: str) -> None:
    """Print the seconds of an attack for each kind of search, and how many verdicts differ from those of the first."""
    data = digits(size)
    run = bsk.train(
        data, "fast-at", model=size.small, eps=0.2, epochs=10 * size.epochs, schedule="cyclic", progress=False
    )
    eps = _radius(run.model, data, size)
    parameters = inspect.signature(bsk.evaluate).parameters
    searches = choice("search", ("fp32", "bf16"), parameters, fields(AttackFlags), fields(EvaluationFlags))
    ways: list[dict[str, Any]] = [{"search": each} if len(searches) > 1 else {} for each in searches]
    if "compile" in parameters:
        ways = [{**way, "compile": each} for each in ("off", "on") for way in ways]
    if attack.startswith("pgd"):
        ways.append({"early_stop": False})
    print(f"model\tattack\tn\teps\tway\tseconds\tover_first\taccuracy\tdiffer ({size.small}, fast-at)", flush=True)
    first: bsk.Evaluation | None = None
    for way in ways:
        found = bsk.evaluate(
            run.model, data=data, attack=attack, eps=eps, limit=size.attacked, checks=False, progress=False, **way
        )
        first = first or found
        seconds, said = found.record["seconds"], " ".join(f"{k}={v}" for k, v in way.items()) or "plain"
        cells = [f"{seconds:.2f}", f"{seconds / first.record['seconds']:.3f}", f"{found.record['accuracy']:.4f}"]
        differ = int((found.correct != first.correct).sum())
        print(size.small, attack, size.attacked, f"{eps:.2f}", said, *cells, differ, sep="\t", flush=True)


def _radius(model: nn.Module, data: DataFile, size: Size) -> float:
    """Return the smallest of RADII at which the accuracy under PGD-20 is at most STANDING, or the largest."""
    for eps in RADII:
        if (
            bsk.evaluate(
                model, data=data, attack="pgd-20", eps=eps, limit=size.attacked, checks=False, progress=False
            ).record["accuracy"]
            <= STANDING
        ):
            break
    return eps


def choice(name: str, values: tuple[str, ...], *places: Any) -> tuple[str, ...]:
    """Return the values of a flag, or only the first, with a message, if this build does not have the flag."""
    known = {each if isinstance(each, str) else each.name for place in places for each in place}
    if name in known:
        return values
    print(f"--{name}: this build does not have this flag; only {values[0]} is measured", flush=True)
    return values[:1]


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("small", "large", "autoattack", "pgd-100"))
    parser.add_argument("--size", choices=SIZES, default="full")
    given = parser.parse_args()
    size = SIZES[given.size]
    print(f"{device_name(chosen_device())}, torch {torch.__version__}, bsk {bsk.__version__}", flush=True)
    if given.part in ("small", "large"):
        updates(size, getattr(size, given.part))
    else:
        evaluations(size, given.part)


if __name__ == "__main__":
    main()
