"""The table of datasets: the reader and the defaults of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bsk.data import arrays
from bsk.data.formats import cifar, cifar10_1, corruptions, digits, folder, tiny_imagenet
from bsk.data.splits import EPS, MOST, VAL, Contents, Request
from bsk.errors import UsageError, nearest
from bsk.plugins import is_plugin


@dataclass(frozen=True)
class Dataset:
    """A dataset and its defaults.

    Attributes:
        read: the reader.
        eps, augment, model: defaults of training; with model "" the data have their own.
        mean, std: normalisation; None to measure it on train.
        val: images held out of train.
        most: the largest share of train that is held out, unless a number is requested.
        train, test, shape, classes: those of the official files; shape is (channels, height, width).
        rows: what the indices of a split refer to.
        tested_on: the split whose labels are public.
        any_form: whether parquet and numpy files are accepted too.
    """

    read: Callable[[Request], Contents]
    eps: float = EPS
    augment: str = "none"
    model: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    val: int = VAL
    most: float = MOST
    train: int = 0
    test: int = 0
    shape: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10
    rows: str = "the official batches of its train or test, in their order"
    tested_on: str = "test"
    any_form: bool = True


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
        digits.read,
        0.2,
        "none",
        "cnn",
        val=200,
        most=0.5,
        train=1400,
        test=digits.TEST,
        shape=(1, 8, 8),
        rows="sklearn.datasets.load_digits(), whose customary splits are others",
        any_form=False,
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
        rows="the train images by class and name, or of val_annotations.txt",
        tested_on="val",
    ),
    "cifar10.1": replace(_CIFAR10, read=cifar10_1.read, train=0, test=0, any_form=False, rows="its arrays"),
    "cifar10-c": replace(_CIFAR10, read=corruptions.read, train=0, test=0, any_form=False),
    "cifar100-c": replace(_CIFAR100, read=corruptions.read, train=0, test=0, any_form=False),
    "folder": Dataset(folder.read, 0.031, "crop-flip", "resnet18", rows="its images sorted by class and name"),
}


def dataset_named(name: str) -> Dataset:
    """Return the dataset of a name, which may be `module:function`.

    Raises:
        UsageError: there is no dataset of that name.
    """
    if is_plugin(name):
        return Dataset(arrays.from_outside, rows="the arrays that it returned", any_form=False)
    if name not in DATASETS:
        raise UsageError(f"{name}: no such dataset; {nearest(name, list(DATASETS))}")
    return DATASETS[name]
