"""Test whether training on a part of the images, with the rest as extra images, equals training on all of them.

Usage: python -m benchmarks.extra METHOD SEEDS [--cifar10 ARCHIVE] [--model NAME], for example natural 25.
"""

from __future__ import annotations

import argparse
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

FLAGS: dict[str, Any] = {"schedule": "cyclic", "batch_size": 100}


def main(method: str, seeds: int, cifar10: str | None, model: str) -> None:
    """Print the mean loss in each quarter of training, for both ways of training, and the t statistics.

    Trained are 8 epochs of the digits' 1,200 images, 400 of them as the part, or 4 of 9,000 of CIFAR-10, 4,000 of them.
    """
    torch.set_num_threads(1)
    own, epochs, flags = (4_000, 4, {"precision": "auto"}) if cifar10 else (400, 8, {"precision": "fp32"})
    if cifar10:
        data = bsk.prepare("cifar10", source=cifar10, val=200, train_limit=9_000, progress=False)
    else:
        data = bsk.prepare("digits", progress=False)
    train, val = ((each.images.numpy(), each.labels.numpy()) for each in map(data.split, ("train", "val")))
    rest = from_arrays((train[0][own:], train[1][own:]), (val[0][:10], val[1][:10]), classes=list(data.classes))
    whole, parts = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rest.safetensors"
        write(path, rest.parts, rest)
        some: dict[str, Any] = {"limit": own, "extra": str(path), "extra_fraction": 1 - own / len(train[1])}
        for seed in range(1, seeds + 1):
            both: dict[str, Any] = {"seed": seed, "progress": False, "model": model, **FLAGS, **flags}
            whole.append(_losses(bsk.train(data, method, epochs=epochs, **both).log))
            parts.append(_losses(bsk.train(data, method, epochs=epochs * len(train[1]) // own, **some, **both).log))
    a, b = np.array(whole), np.array(parts)
    print(f"{method}, {model}, {data.name}, {seeds} seeds, torch {torch.__version__}; t of the difference")
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method")
    parser.add_argument("seeds", type=int)
    parser.add_argument("--cifar10", help="its official archive; default: the digits")
    parser.add_argument("--model", default="cnn-8")
    given = parser.parse_args()
    main(given.method, given.seeds, given.cifar10, given.model)
