"""The request to a reader, the contents that it returns, and the splits of a data file made from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bsk.data.order import held_out, image_hashes
from bsk.data.store import Info, Part
from bsk.errors import InputError, UsageError
from bsk.values import whole

Progress = Callable[[int, int | None], None]  # bytes downloaded or read, and the total if known
Notice = Callable[[str], None]
Parts = Mapping[str, Part]
T = TypeVar("T")
VAL_RULE = "of each class the train images of the smallest SHA-256 of their pixels, none that has an identical copy"
VAL, MOST = 1000, 0.1  # images held out of train, and at most this share of it
EPS = 0.031  # the default radius, from the paper
TEST = 0.2  # share of the images that becomes test if there is no test split
LARGE = 32  # from this image size in pixels the default network is a ResNet


@dataclass(frozen=True)
class Request:
    """What to read.

    Attributes:
        name: name of the dataset, or `module:function`.
        source: a path or URL; None for the official archive.
        downloads: folder for downloads.
        size: resize images to this side, None to keep their size.
        progress: called with bytes done and in total.
        notice: called with lines for the user.
        labels: CSV files of labels for `folder`, or the name of the label column or array.
        test_split: the split of the source that becomes test, or "none".
        drop_leaks: whether to remove training images that are also in val or test.
    """

    name: str
    source: str | None
    downloads: Path
    size: int | None = None
    progress: Progress | None = None
    notice: Notice | None = None
    labels: tuple[str, ...] = ()
    test_split: str = "test"
    drop_leaks: bool = False

    def say(self, text: str) -> None:
        """Send a line to the user, if `notice` is set."""
        if self.notice:
            self.notice(text)


@dataclass(frozen=True)
class Contents:
    """A dataset with the splits of its source.

    Attributes:
        classes: class names.
        train, test: images and labels, possibly none.
        files: checksum of each file read, by name.
        official: whether all files are the published ones.
        val: the val split of the source, if it has one.
        customs: defaults of the data, by field name of `Info`.
        origin: other facts about the source.
    """

    classes: list[str]
    train: Part
    test: Part
    files: dict[str, str]
    official: bool
    val: Part | None = None
    customs: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)


def tested(request: Request, place: str, splits: dict[str, T]) -> dict[str, T]:
    """Return the splits of a source, without test if val is tested on.

    Raises:
        UsageError: there is no val split to test on.
    """
    if request.test_split != "val":
        return splits
    if "val" not in splits:
        raise UsageError(f"--test-split val: {place} has no val split; leave it out")
    return {name: each for name, each in splits.items() if name != "test"}


def assembled(
    request: Request, place: str, classes: list[str], parts: Mapping[str, Part], files: dict[str, str]
) -> Contents:
    """Return the contents of a user's own data; test is held out of train if there is no test split.

    Without train, the data are for evaluation only. With `request.test_split` val or none, no test split is needed.

    Args:
        request: the request.
        place: the beginning of messages.
        classes: class names.
        parts: images by split, at least one.
        files: see `Contents`.

    Raises:
        InputError: there is only a val split, or no images can be held out of train.
    """
    train, val, test = (parts.get(name) for name in ("train", "val", "test"))
    given = next(part for part in (train, val, test) if part is not None)
    none = Part(given.images[:0], given.labels[:0])
    if train is None:
        if test is None and request.test_split != "val":
            raise InputError(f"{place}: has only a val split; pass --test-split val to evaluate on it")
        request.say(f"{place}: has no train split, so the data are for evaluation only")
    elif test is None and request.test_split == "test":
        train, test = _train_and_test(request, place, train)
    return Contents(classes, train or none, test or none, files, official=False, val=val)


def _train_and_test(request: Request, place: str, part: Part) -> tuple[Part, Part]:
    """Return train and test; test is held out of the given images."""
    n, hashes = len(part.labels), image_hashes(part.images)
    test = held_out(hashes, part.labels, max(1, round(TEST * n)))
    train = np.setdiff1d(np.arange(n), test)
    if not len(test) or not len(train):
        alike = n > 1 and min(Counter(hashes).values()) > 1
        reason = f"each of its {n} images has an identical copy" if alike else f"its {n} images are too few"
        advice = "add images, or pass --test-split none to make all of them train"
        raise InputError(f"{place}: has no test split, and none can be held out because {reason}; {advice}")
    request.say(f"{place}: has no test split; {len(test)} of {n} images become test")
    return Part(part.images, part.labels, train, hashes=hashes), Part(part.images, part.labels, test, hashes=hashes)


def split_up(contents: Contents, asked: int | None, val: int, most: float, start: str) -> Parts:
    """Return train, val and test; val is that of the source, or held out of train.

    Args:
        contents: the contents of the source.
        asked: number of images to hold out; None for `val`, but at most the share `most` of train.
        val: see `asked`.
        most: see `asked`.
        start: the beginning of messages.

    Raises:
        UsageError: `asked` is not a whole number above 0.
        InputError: train has too few images.
    """
    train, test = contents.train, contents.test
    if contents.val is not None or not len(train.labels):
        return {"train": train, "val": contents.val or Part(train.images[:0], train.labels[:0]), "test": test}
    asked = whole(f"{start}: images to hold out:", asked)
    rows = np.arange(len(train.labels)) if train.rows is None else np.sort(train.rows)
    n = max(1, min(val, int(most * len(rows)))) if asked is None else asked
    hashes = image_hashes(train.images, rows) if train.hashes is None else [train.hashes[row] for row in rows]
    chosen = held_out(hashes, train.labels[rows], n)
    if len(chosen) < (asked or 1):
        found = f"{len(chosen)} of {len(rows)} train images can be held out for val, expected {n}"
        raise InputError(f"{start}: {found} (copies and one image per class stay); pass a smaller --val")
    held = Part(train.images, train.labels, rows[chosen])
    return {"train": Part(train.images, train.labels, np.delete(rows, chosen)), "val": held, "test": test}


def limited(parts: Parts, limits: Mapping[str, int | None]) -> tuple[Parts, dict[str, int | None]]:
    """Return the splits with limited numbers of examples, and the limits that had an effect.

    A limit without effect becomes None, so that the same images give the same file.
    """
    rows = {name: part.ordered() for name, part in parts.items()}
    cut = {name: limit if limit is not None and limit < len(rows[name]) else None for name, limit in limits.items()}
    kept = {name: Part(part.images, part.labels, rows[name][: cut.get(name)]) for name, part in parts.items()}
    return kept, cut


def described(name: str, contents: Contents, parts: Parts, limits: dict[str, Any]) -> Info:
    """Return the description of a data file; mean and std are measured on train unless given."""
    shape = parts["train"].images.shape[1:]
    customs = dict(contents.customs)
    if not {"mean", "std"} <= customs.keys():
        customs = dict(zip(("mean", "std"), mean_and_std(parts["train"]), strict=True)) | customs
    model = "resnet18" if min(shape[1:]) >= LARGE else "cnn"
    source = {"files": contents.files, "official": contents.official, **contents.origin}
    return Info(
        name=name,
        classes=contents.classes,
        eps=customs.get("eps", EPS),
        mean=list(customs["mean"]),
        std=list(customs["std"]),
        augment=customs.get("augment", "none"),
        model=customs.get("model", model),
        source=source,
        val_rule=VAL_RULE if contents.val is None else "the source's own",
        limits=limits,
    )


def mean_and_std(part: Part) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, for pixels in [0, 1], rounded to 4 places.

    They are computed from histograms, so that no float copy of uint8 images is made. A constant channel gets the
    standard deviation 1; without images, the mean is 0 and the standard deviation 1.
    """
    rows = part.ordered()
    if not len(rows):
        return (0.0,) * part.images.shape[1], (1.0,) * part.images.shape[1]
    counts = np.zeros((part.images.shape[1], 256), np.int64)
    if part.images.dtype != np.uint8:  # images in memory may be floats
        pixels = part.images[rows].astype(np.float64)
        return _rounded(pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)))
    for start in range(0, len(rows), 100):
        some = part.images[rows[start : start + 100]]
        counts += [np.bincount(channel.ravel(), minlength=256) for channel in some.swapaxes(0, 1)]
    values: NDArray[np.float64] = np.arange(256) / 255
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ values
    return _rounded(mean, np.sqrt((share * (values - mean[:, None]) ** 2).sum(1)))


def _rounded(mean: NDArray[np.float64], std: NDArray[np.float64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(round(float(m), 4) for m in mean), tuple(round(float(s), 4) or 1.0 for s in std)
