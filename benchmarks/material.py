"""Data and models for the benchmarks: CIFAR-10 images and a published model if available, else the digits."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from torch import nn

import bsk
from benchmarks.steps import CPU
from bsk.data.sources import prepare
from bsk.data.store import DataFile, Split, open_data
from bsk.models.foreign import foreign_model

SHARED = Path(os.environ.get("BSK_SHARED", Path(__file__).parents[2] / "shared"))  # as in the tests
ARCHIVE = SHARED / "data" / "cifar10-subset-exact-python.tar.gz"
PUBLISHED = {"cnn-a": "cnn_a_adv.model", "resnet2b": "resnet2b.pth", "resnet20": "resnet20.th"}
FAST_AT = "--method fast-at --model resnet18-16 --schedule cyclic --lr 0.2"  # takes a minute on CIFAR-10


@dataclass(frozen=True)
class Model:
    """A model in eval mode, with its file, its name in the output, and the radius at which it is attacked."""

    name: str
    model: nn.Module
    path: Path
    eps: float

    def words(self, data: DataFile) -> list[str]:
        """Return the arguments of `bsk evaluate` for the model and the data."""
        own = self.path.suffix == ".safetensors"
        named = [str(self.path)] if own else ["--model", "cnn-a", "--weights", str(self.path)]
        return [*named, "--data", str(data.path), "--eps", str(self.eps)]


@dataclass(frozen=True)
class Material:
    """A data file, and a folder for models; `real` is True for CIFAR-10 images and the published model."""

    folder: Path
    data: DataFile
    real: bool

    def images(self, n: int) -> Split:
        """Return the first n test images, (n, C, H, W) uint8."""
        return self.data.split("test", n)

    def small(self) -> Model:
        """Return the adversarially trained cnn_a at 2/255 if it is available, else a small CNN for the digits."""
        path = SHARED / "models" / PUBLISHED["cnn-a"]
        if self.real and path.exists():
            return Model("cnn_a", published("cnn-a", path), path, 2 / 255)
        return self._trained("small", "cnn, bs, digits", "--method bs --epochs 20 --schedule cyclic")

    def trained(self) -> Model:
        """Return a resnet18-16 trained by Fast AT at the default radius of the data."""
        name, epochs = ("1 epoch", 1) if self.real else ("10 epochs, digits", 10)
        return self._trained("trained", f"resnet18-16, fast-at, {name}", f"{FAST_AT} --epochs {epochs}")

    def _trained(self, file: str, name: str, flags: str) -> Model:
        path = self.folder / f"{file}.safetensors"
        command = [sys.executable, "-m", "bsk", "train", "--data", self.data.path, *flags.split(), "--out", path]
        subprocess.run([*map(str, command), "--quiet"], check=True, stdout=subprocess.DEVNULL)
        return Model(name, bsk.load(path, device="cpu"), path, self.data.eps)


def material(folder: Path, real: bool = ARCHIVE.exists()) -> Material:
    """Prepare the available CIFAR-10 images, or the digits, in a folder."""
    name, source, val = ("cifar10", str(ARCHIVE), 200) if real else ("digits", None, None)  # a small val, for speed
    path = folder / f"{name}.safetensors"
    prepare(name, source, path, val=val)
    return Material(folder, open_data(path), real)


def published(name: str, path: Path) -> nn.Module:
    """Return a network for CIFAR-10 with published weights."""
    return foreign_model(name, path, classes=10, channels=3, size=32, device=CPU).model
