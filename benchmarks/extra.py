"""Whether training on a part with the rest as extra images equals training on all.

Usage: python -m benchmarks.extra natural 25
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import bsk
from bsk.data.arrays import from_arrays
from bsk.data.store import write
from documentation.results import in_quarters

OWN, EPOCHS = 400, 8  # of the digits' 1,200 training images; of all of them
FLAGS: dict[str, Any] = {"schedule": "cyclic", "batch_size": 100, "model": "cnn-8", "precision": "fp32"}


def main(method: str, seeds: int) -> None:
    """Print the mean training loss in each quarter of a training both ways, and the t statistic of the difference."""
    torch.set_num_threads(1)
    data = bsk.prepare("digits", progress=False)
    train, val = ((each.images.numpy(), each.labels.numpy()) for each in map(data.split, ("train", "val")))
    rest = from_arrays((train[0][OWN:], train[1][OWN:]), (val[0][:10], val[1][:10]), classes=list(data.classes))
    whole, parts = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rest.safetensors"
        write(path, rest.parts, rest)
        some: dict[str, Any] = {"limit": OWN, "extra": str(path), "extra_fraction": 1 - OWN / len(train[1])}
        for seed in range(1, seeds + 1):
            both: dict[str, Any] = {"seed": seed, "progress": False, **FLAGS}
            whole.append(_losses(bsk.train(data, method, epochs=EPOCHS, **both).log))
            parts.append(_losses(bsk.train(data, method, epochs=EPOCHS * len(train[1]) // OWN, **some, **both).log))
    a, b = np.array(whole), np.array(parts)
    for name, each in (("all", a), ("extra", b)):
        print(
            name,
            *(f"{mean:.4f} (sd {sd:.4f})" for mean, sd in zip(each.mean(0), each.std(0, ddof=1), strict=True)),
            sep="\t",
        )
    print("t", *(b.mean(0) - a.mean(0)) / np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / seeds), sep="\t")


def _losses(log: list[dict[str, Any]]) -> NDArray[np.float64]:
    return in_quarters([record["loss"] for record in log if record["kind"] == "epoch"])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
