"""What the benchmarks run on: real images and a published model where they are at hand, and a model of `bsk train`."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import bsk
from benchmarks.attacks import small_cnn
from benchmarks.steps import CIFAR, CPU
from bsk.data.order import Images
from bsk.data.sources import prepare
from bsk.data.store import DataFile, Info, Part, Split, open_data, write
from bsk.models.foreign import foreign_model

SHARED = Path(os.environ.get("BSK_SHARED", Path(__file__).parents[2] / "shared"))  # as for the tests
ARCHIVE = SHARED / "data" / "cifar10-subset-exact-python.tar.gz"
PUBLISHED = {"cnn-a": "cnn_a_adv.model", "resnet2b": "resnet2b.pth", "resnet20": "resnet20.th"}
COUNTS = {"train": 2000, "val": 200, "test": 256}  # of random images; few to validate on, for speed
EPOCHS, TRAINED_AT = 1, "8/255"


@dataclass(frozen=True)
class Model:
    """A model in eval mode, its file, and what a row of figures calls it and its images."""

    name: str
    model: nn.Module
    path: Path


@dataclass(frozen=True)
class Material:
    """A data file in a folder where more may be written, and what a row says of its images: nothing of real ones."""

    folder: Path
    data: DataFile
    said: str

    def images(self, n: int) -> Split:
        """Return the first n test images, (n, 3, 32, 32) uint8."""
        return self.data.split("test", n)

    def small(self) -> Model:
        """Return the adversarially trained cnn_a where it is at hand, else the same network untrained."""
        path, name = SHARED / "models" / PUBLISHED["cnn-a"], "cnn_a"
        if not path.exists():
            path, name = self.folder / "small.pt", "small CNN, untrained"
            torch.save(small_cnn().state_dict(), path)
        return Model(name + self.said, published("cnn-a", path), path)

    def trained(self) -> Model:
        """Return a resnet18-16 as `bsk train` makes it in a minute, by Fast AT at 8/255."""
        path = self.folder / "trained.safetensors"
        flags = f"--method fast-at --model resnet18-16 --eps {TRAINED_AT} --epochs {EPOCHS} --schedule cyclic --lr 0.2"
        command = [sys.executable, "-m", "bsk", "train", "--data", self.data.path, *flags.split(), "--out", path]
        subprocess.run([*map(str, command), "--quiet"], check=True, stdout=subprocess.DEVNULL)
        return Model(f"resnet18-16, fast-at, {EPOCHS} epoch" + self.said, bsk.load(path, device="cpu"), path)


def material(folder: Path) -> Material:
    """Prepare the real CIFAR-10 images at hand, or random ones of their size, in a folder."""
    path = folder / "cifar10.safetensors"
    if ARCHIVE.exists():
        prepare("cifar10", str(ARCHIVE), path, val=COUNTS["val"])
        return Material(folder, open_data(path), "")
    random, parts = np.random.default_rng(0), {}
    for name, n in COUNTS.items():
        images: Images = random.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
        parts[name] = Part(images, np.arange(n, dtype=np.int64) % 10)
    write(path, parts, Info("random", [str(i) for i in range(10)], 8 / 255, CIFAR.mean, CIFAR.std))
    return Material(folder, open_data(path), ", random images")


def published(name: str, path: Path) -> nn.Module:
    """Return a network for CIFAR-10 with the weights that others published."""
    return foreign_model(name, path, classes=10, channels=3, size=32, device=CPU).model
