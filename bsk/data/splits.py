"""What a reader of some layout is asked for and hands back, and the splits of a data file that are made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsk.data.order import held_out, image_hashes
from bsk.data.store import Info, Part
from bsk.errors import InputError

Progress = Callable[[int, int | None], None]  # bytes downloaded or read, and of all where known
Notice = Callable[[str], None]
Parts = Mapping[str, Part]
VAL_RULE = "of each class the train images of the smallest SHA-256 of their pixels, none that has an identical copy"
VAL, MOST = 1000, 0.1  # images held out of train, and at most this share of it
EPS = 0.031  # the paper's, where the data say nothing else
TEST = 0.2  # of the images, where there is no test split
LARGE = 32  # pixels of a side from which on a ResNet is what one trains


@dataclass(frozen=True)
class Request:
    """Where to read from (a path, a URL, or None for the official place) and whom to tell.

    `labels` are tables of the labels of `folder`, or the column or array that has them; `test_split` is the split of
    the source that becomes the test split.
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
        """Pass one line on to whoever listens."""
        if self.notice:
            self.notice(text)


@dataclass(frozen=True)
class Contents:
    """A dataset as its source splits it: what there is to train with, and to test with.

    `files` maps the name of each file read to its checksum; `official` says whether all are the published ones;
    `val` is the source's own, if it has one; `customs` is what is customary for the data, by the names of `Info`;
    `origin` is what else there is to say of the source.
    """

    classes: list[str]
    train: Part
    test: Part
    files: dict[str, str]
    official: bool
    val: Part | None = None
    customs: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)


def assembled(
    request: Request, place: str, classes: list[str], parts: Mapping[str, Part], files: dict[str, str]
) -> Contents:
    """Return the splits that anybody's data have, test held out of train where it has no images of its own.

    Without train they are data to evaluate on. With `request.test_split` val or none no test split is needed.

    Args:
        request: who is told.
        place: what messages begin with.
        classes: their names.
        parts: images by split, at least one.
        files: see `Contents`.

    Raises:
        InputError: there is a val split alone, or train has too few images.
    """
    train, val, test = (parts.get(name) for name in ("train", "val", "test"))
    given = next(part for part in (train, val, test) if part is not None)
    none = Part(given.images[:0], given.labels[:0])
    if train is None:
        if test is None and request.test_split != "val":
            raise InputError(f"{place}: has a val split alone; pass --test-split val to evaluate on it")
        request.say(f"{place}: has no train split; this is data to evaluate on")
    elif test is None and request.test_split == "test":
        train, test = _halves(request, place, train)
    return Contents(classes, train or none, test or none, files, official=False, val=val)


def _halves(request: Request, place: str, part: Part) -> tuple[Part, Part]:
    n, hashes = len(part.labels), image_hashes(part.images)
    test = held_out(hashes, part.labels, max(1, round(TEST * n)))
    train = np.setdiff1d(np.arange(n), test)
    if not len(test) or not len(train):
        raise InputError(f"{place}: {n} images are too few to split, or all the same; add images")
    request.say(f"{place}: no test split; {len(test)} of {n} images become it")
    return Part(part.images, part.labels, train, hashes=hashes), Part(part.images, part.labels, test, hashes=hashes)


def split_up(contents: Contents, asked: int | None, val: int, most: float, start: str) -> Parts:
    """Return train, val and test; val is the source's own, or held out of train.

    Args:
        contents: what the source has.
        asked: how many images to hold out, or None for `val`, but at most the share `most` of train.
        val: see `asked`.
        most: see `asked`.
        start: what a message begins with.

    Raises:
        InputError: train cannot spare so many.
    """
    train, test = contents.train, contents.test
    if contents.val is not None or not len(train.labels):
        return {"train": train, "val": contents.val or Part(train.images[:0], train.labels[:0]), "test": test}
    rows = np.arange(len(train.labels)) if train.rows is None else np.sort(train.rows)
    n = max(1, min(val, int(most * len(rows)))) if asked is None else asked
    hashes = image_hashes(train.images, rows) if train.hashes is None else [train.hashes[row] for row in rows]
    chosen = held_out(hashes, train.labels[rows], n)
    if len(chosen) < (asked or 1):
        found = f"{len(rows)} train images can spare {len(chosen)} for val, expected {n}"
        raise InputError(f"{start}: {found} (copies stay, and one of each class); pass a smaller --val")
    held = Part(train.images, train.labels, rows[chosen])
    return {"train": Part(train.images, train.labels, np.delete(rows, chosen)), "val": held, "test": test}


def limited(parts: Parts, limits: Mapping[str, int | None]) -> tuple[Parts, dict[str, int | None]]:
    """Return the first so many examples of each split, and the limits that cut anything.

    One that cuts nothing is none, so that the same images are the same file.
    """
    rows = {name: part.ordered() for name, part in parts.items()}
    cut = {name: limit if limit is not None and limit < len(rows[name]) else None for name, limit in limits.items()}
    kept = {name: Part(part.images, part.labels, rows[name][: cut.get(name)]) for name, part in parts.items()}
    return kept, cut


def described(name: str, contents: Contents, parts: Parts, limits: dict[str, Any]) -> Info:
    """Return what a data file says of itself; mean and std are measured on train where nobody says them."""
    shape = parts["train"].images.shape[1:]
    customs = dict(contents.customs)
    if customs.get("mean") is None or customs.get("std") is None:
        customs["mean"], customs["std"] = mean_and_std(parts["train"])
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
    """Return mean and standard deviation of the pixels of each channel, in [0, 1], rounded to 4 places.

    They are taken from counts of the values of bytes, so that no float copy of the images is made. A channel of one
    value alone gets the standard deviation 1, and so does one without pixels, with the mean 0.
    """
    rows = part.ordered()
    if not len(rows):
        return (0.0,) * part.images.shape[1], (1.0,) * part.images.shape[1]
    counts = np.zeros((part.images.shape[1], 256), np.int64)
    if part.images.dtype != np.uint8:  # the images in memory are floats already
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
