"""From a dataset's name and where it lies to one data file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsk.data import cifar, digits, folder, tiny_imagenet
from bsk.data.contents import Contents, Notice, Progress, Request
from bsk.data.order import held_out, image_hashes
from bsk.data.store import DataFile, Info, Part, open_data, write
from bsk.errors import InputError, UsageError, nearest
from bsk.records.jsonl import SCHEMA

VAL_RULE = "of each class the train images of the smallest SHA-256 of their pixels, none that has an identical copy"


@dataclass(frozen=True)
class Dataset:
    """A row of the table of datasets; mean and std are measured on the train split where they are None.

    `train`, `test`, `shape` (channels, height, width) and `classes` are those of the official files.
    """

    read: Callable[[Request], Contents]
    eps: float
    augment: str
    model: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    val: int = 1000
    most: float = 0.1  # of the train images, unless a number is asked for
    train: int = 0
    test: int = 0
    shape: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10


# Source: mean and std are those of the authors' data_loader.py; ImageNet's for Tiny ImageNet
DATASETS = {
    "digits": Dataset(
        digits.read, 0.2, "none", "cnn", val=200, most=0.5, train=1400, test=digits.TEST, shape=(1, 8, 8)
    ),
    "cifar10": Dataset(
        cifar.read,
        0.031,
        "crop-flip",
        "resnet18",
        (0.4914, 0.4822, 0.4465),
        (0.2471, 0.2435, 0.2616),
        train=50_000,
        test=10_000,
    ),
    "cifar100": Dataset(
        cifar.read,
        0.031,
        "crop-flip",
        "resnet18",
        (0.5071, 0.4867, 0.4408),
        (0.2675, 0.2565, 0.2761),
        train=50_000,
        test=10_000,
        classes=100,
    ),
    "tiny-imagenet": Dataset(
        tiny_imagenet.read,
        0.031,
        "flip",
        "resnet50",
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        train=100_000,
        test=10_000,
        shape=(3, 64, 64),
        classes=200,
    ),
    "folder": Dataset(folder.read, 0.031, "crop-flip", "resnet18"),
}


def prepare(
    name: str,
    source: str | None,
    out: Path,
    *,
    val: int | None = None,
    train_limit: int | None = None,
    test_limit: int | None = None,
    size: int | None = None,
    download_to: Path | None = None,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> dict[str, Any]:
    """Read a dataset from a file, folder or https URL, hold out val, write `out`, and return its record.

    `source` None means the official archive, downloaded into `download_to` (default: the folder of `out`).
    `val` images are held out of train first; `train_limit` is the number left in train after that, and
    `test_limit` the number of test images; both keep the classes balanced. `size` resizes the images of
    `folder` to size x size.

    Raises:
        UsageError: an unknown name, or a number that cannot be.
        InputError: the source is missing, torn, hostile or not of this dataset; `out` cannot be written.
    """
    start = time.perf_counter()
    dataset = _dataset(name)
    _check({"--val": val, "--train-limit": train_limit, "--test-limit": test_limit, "--size": size})
    if size and name != "folder":
        raise UsageError(f"--size: {name} has images of one size; drop it, or prepare the images as folder")
    request = Request(name, source, download_to or out.parent, size, progress, notice)
    contents = dataset.read(request)
    train, held = _split(contents.train, dataset, val, source or name)
    limits = {"train": _cutting(train, train_limit), "test": _cutting(contents.test, test_limit)}
    parts = {"train": _limited(train, train_limit), "val": held, "test": _limited(contents.test, test_limit)}
    info = _describe(name, dataset, contents, train, limits)
    write(out, parts, info)
    data = open_data(out)
    return {
        "schema": SCHEMA,
        "kind": "data",
        "name": name,
        "path": str(out),
        "sha256": data.sha256,
        "train": data.counts["train"],
        "val": data.counts["val"],
        "test": data.counts["test"],
        "classes": len(data.classes),
        "eps": data.eps,
        "official": contents.official,
        "seconds": round(time.perf_counter() - start, 3),
    }


def expected(name: str, path: Path, train_limit: int | None = None, test_limit: int | None = None) -> DataFile:
    """Return what `prepare` would make at `path` of the official files, unread; only its pixels are not there.

    Raises:
        UsageError: an unknown name, or one whose size nobody knows beforehand.
    """
    dataset = _dataset(name)
    if not dataset.train:
        raise UsageError(f"{path}: {name} can have any size; run bsk prepare-data {name} first")
    val = min(dataset.val, int(dataset.most * dataset.train))
    counts = {"train": dataset.train - val, "val": val, "test": dataset.test}
    for split, limit in (("train", train_limit), ("test", test_limit)):
        counts[split] = min(counts[split], limit or counts[split])
    channels = dataset.shape[0]
    return DataFile(
        name=name,
        classes=[str(each) for each in range(dataset.classes)],
        eps=dataset.eps,
        mean=list(dataset.mean or [0.5] * channels),
        std=list(dataset.std or [0.5] * channels),
        augment=dataset.augment,
        model=dataset.model,
        path=path,
        counts=counts,
    )


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise UsageError(f"{name}: no such dataset; {nearest(name, list(DATASETS))}")
    return DATASETS[name]


def _check(numbers: dict[str, int | None]) -> None:
    for flag, number in numbers.items():
        if number is not None and number < 1:
            raise UsageError(f"{flag} {number}: expected a number above 0")


def _split(train: Part, dataset: Dataset, asked: int | None, place: str) -> tuple[Part, Part]:
    """Return train without val, and val."""
    rows = np.arange(len(train.labels)) if train.rows is None else np.sort(train.rows)
    n = max(1, min(dataset.val, int(dataset.most * len(rows)))) if asked is None else asked
    chosen = held_out(image_hashes(train.images, rows), train.labels[rows], n)
    if len(chosen) < (asked or 1):
        found = f"{len(rows)} train images can spare {len(chosen)} for val, expected {n}"
        raise InputError(f"{place}: {found} (copies stay, and one of each class); pass a smaller --val")
    rest = np.delete(rows, chosen)
    return Part(train.images, train.labels, rest), Part(train.images, train.labels, rows[chosen])


def _cutting(part: Part, limit: int | None) -> int | None:
    """Return a limit that cuts; one that cuts nothing is none, so that the same images are the same file."""
    return limit if limit is not None and limit < len(part.ordered()) else None


def _limited(part: Part, limit: int | None) -> Part:
    return Part(part.images, part.labels, part.ordered()[:limit])


def _describe(name: str, dataset: Dataset, contents: Contents, train: Part, limits: dict[str, int | None]) -> Info:
    mean, std = dataset.mean, dataset.std
    if mean is None or std is None:
        mean, std = mean_and_std(train)
    return Info(
        name=name,
        classes=contents.classes,
        eps=dataset.eps,
        mean=list(mean),
        std=list(std),
        augment=dataset.augment,
        model=dataset.model,
        source={"files": contents.files, "official": contents.official},
        val_rule=VAL_RULE,
        limits=limits,
    )


def mean_and_std(part: Part) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of the pixels of each channel, in [0, 1], rounded to 4 places.

    They are taken from counts of the 256 values, so that no float copy of the images is made. A channel of one
    value alone gets the standard deviation 1.
    """
    counts = np.zeros((part.images.shape[1], 256), np.int64)
    rows = part.ordered()
    for start in range(0, len(rows), 100):
        some = part.images[rows[start : start + 100]]
        counts += [np.bincount(channel.ravel(), minlength=256) for channel in some.swapaxes(0, 1)]
    values: NDArray[np.float64] = np.arange(256) / 255
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
    return tuple(round(float(m), 4) for m in mean), tuple(round(float(s), 4) or 1.0 for s in std)
