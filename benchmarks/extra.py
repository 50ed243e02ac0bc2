"""Test whether training on a part of the images, with the rest as extra images, equals training on all of them.

Usage: python -m benchmarks.extra METHOD SEEDS, for example natural 25.
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
from bsk.comparison.statistics import quarter_means
from bsk.data.arrays import from_arrays
from bsk.data.store import write

OWN, EPOCHS = 400, 8  # training images in the part, of the digits' 1,200; epochs over all of them
FLAGS: dict[str, Any] = {"schedule": "cyclic", "batch_size": 100, "model": "cnn-8", "precision": "fp32"}


def main(method: str, seeds: int) -> None:
    """Print the mean loss in each quarter of training, for both ways of training, and the t statistics."""
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
    return quarter_means([record["loss"] for record in log if record["kind"] == "epoch"])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
