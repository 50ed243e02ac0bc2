"""From a dataset's name and where it lies to one data file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bsk.data import arrays, cifar, digits, folder, tiny_imagenet
from bsk.data.arrays import ArrayData
from bsk.data.splits import EPS, MOST, VAL, Contents, Notice, Progress, Request, described, limited, split_up
from bsk.data.store import SPLITS, DataFile, data_path, open_data, write
from bsk.errors import InputError, UsageError, nearest
from bsk.plugins import is_plugin
from bsk.records.jsonl import SCHEMA


@dataclass(frozen=True)
class Dataset:
    """A row of the table of datasets; mean and std are measured on the train split where they are None.

    Where `model` is "", the data say themselves what is customary for them.
    `train`, `test`, `shape` (channels, height, width) and `classes` are those of the official files.
    """

    read: Callable[[Request], Contents]
    eps: float = EPS
    augment: str = "none"
    model: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    val: int = VAL
    most: float = MOST  # of the train images, unless a number is asked for
    train: int = 0
    test: int = 0
    shape: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10


# Source: mean and std are those of the authors' data_loader.py; ImageNet's for Tiny ImageNet
_CIFAR10 = Dataset(
    cifar.read,
    0.031,
    "crop-flip",
    "resnet18",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2471, 0.2435, 0.2616),
    train=50_000,
    test=10_000,
)
_CIFAR100 = replace(_CIFAR10, mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761), classes=100)
DATASETS = {
    "digits": Dataset(
        digits.read, 0.2, "none", "cnn", val=200, most=0.5, train=1400, test=digits.TEST, shape=(1, 8, 8)
    ),
    "cifar10": _CIFAR10,
    "cifar100": _CIFAR100,
    "tiny-imagenet": Dataset(
        tiny_imagenet.read,
        0.031,
        "flip",
        "resnet50",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
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
    size: int | None = None,
    download_to: Path | None = None,
    progress: Progress | None = None,
    notice: Notice | None = None,
    **counts: int | None,
) -> dict[str, Any]:
    """Read a dataset as `read` does, write `out`, and return its record.

    `download_to` is the folder of `out` by default; `counts` are val, train_limit and test_limit of `read`.

    Raises:
        UsageError: an unknown name, or a number that cannot be.
        InputError: the source is missing, torn, hostile or not of this dataset; `out` cannot be written.
    """
    start = time.perf_counter()
    request = Request(name, source, download_to or out.parent, size, progress, notice)
    found = read(request, **counts)
    write(out, found.parts, found)
    data = open_data(out)
    return {
        "schema": SCHEMA,
        "kind": "data",
        "name": data.name,
        "path": str(out),
        "sha256": data.sha256,
        **{split: data.counts[split] for split in SPLITS},
        "classes": len(data.classes),
        "eps": data.eps,
        "official": found.source["official"],
        "seconds": round(time.perf_counter() - start, 3),
    }


def read(
    request: Request, *, val: int | None = None, train_limit: int | None = None, test_limit: int | None = None
) -> ArrayData:
    """Read a dataset from a file, folder or https URL, hold out val, and limit its splits.

    `request.source` None means the official archive, downloaded into `request.downloads`. `val` images are held out
    of train first; `train_limit` is the number left in train after that, and `test_limit` the number of test images;
    both keep the classes balanced. `request.size` resizes the images of `folder` to size x size.

    Raises:
        UsageError: an unknown name, or a number that cannot be.
        InputError: the source is missing, torn, hostile or not of this dataset.
    """
    name, dataset = request.name, _dataset(request.name)
    numbers = {"--val": val, "--train-limit": train_limit, "--test-limit": test_limit, "--size": request.size}
    for flag, number in numbers.items():
        if number is not None and number < 1:
            raise UsageError(f"{flag} {number}: expected a number above 0")
    if request.size and name != "folder":
        raise UsageError(f"--size: {name} has images of one size; drop it, or prepare the images as folder")
    contents = dataset.read(request)
    if contents.val is not None and val is not None:
        raise UsageError(f"--val {val}: {name} has a val split of its own; leave --val out")
    customs = {"eps": dataset.eps, "augment": dataset.augment, "model": dataset.model}
    customs |= {"mean": dataset.mean, "std": dataset.std} if dataset.mean and dataset.std else {}
    contents = replace(contents, customs={**customs, **contents.customs} if dataset.model else contents.customs)
    parts = split_up(contents, val, dataset.val, dataset.most, request.source or name)
    kept, cut = limited(parts, {"train": train_limit, "test": test_limit})
    info = described(name.rpartition(":")[2], contents, parts, cut)
    return arrays.in_memory(kept, info, name)


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


def open_dataset(dataset: str, path: Path | None = None) -> DataFile:
    """Return the prepared data of a name, or of a path.

    Raises:
        InputError: it is not there, or not what it should be.
        UsageError: there is no data set of that name.
    """
    found = path or data_path(dataset)
    if path is None and not found.exists():
        if dataset not in DATASETS:
            raise UsageError(f"--dataset {dataset}: no {found}; {nearest(dataset, list(DATASETS))}")
        raise InputError(f"{found}: no such file; run bsk prepare-data {dataset}")
    return open_data(found)


def _dataset(name: str) -> Dataset:
    if is_plugin(name):
        return Dataset(arrays.from_outside)
    if name not in DATASETS:
        raise UsageError(f"{name}: no such dataset; {nearest(name, list(DATASETS))}")
    return DATASETS[name]


def opened(data: str | Path | DataFile) -> DataFile:
    """Return prepared data by name, by the path of their file, or opened already.

    Raises:
        InputError: they are not there, or not what they should be.
        UsageError: there is no data set of that name.
    """
    if isinstance(data, DataFile):
        return data
    named = isinstance(data, str) and not data.endswith(".safetensors")
    return open_dataset(str(data)) if named else open_data(Path(data))
