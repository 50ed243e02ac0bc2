"""Datasets from arrays or tensors: in memory, or returned by a user's function.

The contract of `bsk prepare-data module:function`: the function is called without arguments and returns a dict
`{"train": (images, labels), "test": (images, labels)}`. Optional keys are "val" (otherwise val is held out of train),
"classes" (names; otherwise "0", "1", ...), and the defaults of the data: "eps", "augment", "model", "mean", "std".
Images are (N, C, H, W), (N, H, W, C) or (N, H, W), uint8 or floats in [0, 1]; labels (N,) or (N, 1) are integers from
0. A data file holds uint8 images, so floats are rounded to 256 levels there; in memory they are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bsk.data.duplicates import Duplicates, examined, report_duplicates
from bsk.data.order import Labels, bytes_of
from bsk.data.splits import EPS, MOST, VAL, Contents, Notice, Parts, Request, described, split_up
from bsk.data.store import SPLITS, DataFile, Info, Part, Shapes, Split, problem, shapes_of, tensors_of
from bsk.errors import BskError, InputError, UsageError, first_line, kind_of, nearest, out_of_memory
from bsk.plugins import load, outside
from bsk.records.header_schema import CLASSES
from bsk.terminal import note
from bsk.values import SPREAD, exact

if TYPE_CHECKING:
    from torch import Tensor

Array = Any  # anything that numpy converts to an array, or a tensor on any device
Pair = tuple[Array, Array]
CHANNELS = (1, 3, 4)  # common numbers of channels
TEXT_LABELS = "convert them: classes, labels = numpy.unique(labels, return_inverse=True)"
PILLOW = ("1", "L", "RGB")  # modes of images that are pixels and nothing else
DARK = 64  # if no level reaches it, the images may have been scaled wrongly
CUSTOMS = ("eps", "augment", "model", "mean", "std")


@dataclass(frozen=True, repr=False)
class ArrayData(DataFile):
    """A dataset in memory, with the interface of an opened data file; `path` is its name."""

    parts: Parts = field(default_factory=dict)
    duplicates: Duplicates = Duplicates()
    rows: str = "the arrays"  # what the indices refer to

    def _shapes(self) -> Shapes:
        return shapes_of(self.parts)

    def _bytes(self) -> Iterator[bytes | memoryview]:
        return tensors_of(self.parts)

    def split(self, name: str, limit: int | None = None) -> Split:
        """Return a split, or its first `limit` examples, as `DataFile.split`; images are uint8 or fp32 in [0, 1].

        Raises:
            InputError: the split is empty.
        """
        import torch

        n = self._count(name, limit)
        part = self.parts[name]
        rows = part.ordered()[:n]
        images, labels, index = map(torch.from_numpy, (part.images[rows], part.labels[rows], rows))
        return Split(images, labels, index)

    def stream(self, name: str, limit: int | None = None) -> Split:
        """Return the same as `split`."""
        return self.split(name, limit)


def in_memory(parts: Parts, info: Info, start: str) -> ArrayData:
    """Return a dataset of the parts for each of SPLITS, described by `info`; messages begin with `start`.

    Raises:
        InputError: the description is invalid.
    """
    if wrong := problem(info):
        raise InputError(f"{start}: {wrong}")
    channels = parts["test"].images.shape[1]
    if len(info.mean) != channels:
        raise InputError(
            f"{start}: mean and std have {len(info.mean)} numbers, expected one for each of {channels} channels"
        )
    counts = {name: len(parts[name].ordered()) for name in SPLITS}
    return ArrayData(**info.said(), path=Path(info.name), counts=counts, parts=parts)


def from_arrays(
    train: Pair | None = None,
    val: Pair | None = None,
    test: Pair | None = None,
    *,
    classes: list[str] | None = None,
    name: str = "arrays",
    eps: float = 0.031,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    augment: str = "none",
    model: str | None = None,
    val_images: int | None = None,
) -> ArrayData:
    """Return images and labels as a dataset for `bsk.train` and `bsk.evaluate`.

    Images are (N, C, H, W), (N, H, W, C) or (N, H, W), uint8 or floats in [0, 1]; labels (N,) or (N, 1) are integers
    from 0.

    Args:
        train: images and labels; at least one of the three splits must be given.
        val: images and labels; without them `val_images` images are held out of train, as `bsk prepare-data` does.
        test: images and labels.
        classes: class names; default: "0", "1", ...
        name: name of the dataset for logs and records: letters, digits and ._+-.
        eps: default radius for pixels in [0, 1].
        mean: normalisation, one number per channel; default: measured on train.
        std: likewise.
        augment: "crop-flip", "flip" or "none".
        model: default network of a training.
        val_images: number of images held out of train; default: 1000, but at most a tenth.

    Raises:
        InputError: images, labels or a number are invalid.
    """
    pairs = {"train": train, "val": val, "test": test}
    given: dict[str, Any] = {key: pair for key, pair in pairs.items() if pair is not None}
    customs = {"eps": eps, "augment": augment, "model": model, "mean": mean, "std": std, "classes": classes}
    given |= {key: value for key, value in customs.items() if value is not None}
    return arranged(given, name, val_images, notice=note)


def arranged(
    given: Mapping[str, Any],
    name: str,
    val_images: int | None = None,
    in_bytes: bool = False,
    drop_leaks: bool = False,
    notice: Notice | None = None,
) -> ArrayData:
    """Return a dataset of the images and labels in a dict that follows the contract above.

    Raises:
        InputError: see `contents_of`; or train has too few images to hold out val.
    """
    found, duplicates = examined(contents_of(given, name, in_bytes), drop_leaks, name)
    report_duplicates(duplicates, name, notice, "bsk.prepare(..., drop_leaks=True)")
    if notice:
        for said in oddities(found):
            notice(f"{name}: {said}")
    parts = split_up(found, val_images, VAL, MOST, name)
    return replace(in_memory(parts, described(name, found, parts, {}), name), duplicates=duplicates)


def oddities(contents: Contents) -> Iterator[str]:
    """Yield what may be a mistake in a source: classes without training images, few levels, an alpha channel."""
    labels, images = contents.train.labels[contents.train.ordered()], contents.train.images
    there = set(labels.tolist())
    empty = [name for number, name in enumerate(contents.classes) if number not in there]
    if there and empty:
        some = f"{', '.join(empty[:3])}{', ...' if len(empty) > 3 else ''}"
        yield f"{len(empty)} of {len(contents.classes)} classes have no image in train ({some})"
    if not len(images):
        return
    most = round(float(images.max()) * (1 if images.dtype == np.uint8 else 255))
    if most < DARK:
        yield f"train has no level above {most} of 255; rescale the images, since eps is relative to 255"
    if images.shape[1] == 4 and float(np.ptp(images[:, 3])) == 0:
        yield "the fourth channel has one value, as alpha does, and attacks would change it; give 3 channels"


def examples(x: Array, y: Array, classes: list[str] | None = None, name: str = "arrays", eps: float = EPS) -> ArrayData:
    """Return a dataset whose test split has the given images and labels, in the given order.

    Raises:
        InputError: see `images_of` and `labels_of`; or a label exceeds the number of classes.
    """
    images = images_of(x, "x")
    test = Part(images, labels_of(y, len(images), "y"), as_given=True)
    empty = Part(images[:0], test.labels[:0])
    channels = images.shape[1]
    info = Info(name, _classes(classes, {"test": test}, "y"), eps, [0.0] * channels, [1.0] * channels)
    return in_memory({"train": empty, "val": empty, "test": test}, info, name)


def from_outside(request: Request) -> Contents:
    """Return the data from the function that `request.name` names as `module:function`.

    Raises:
        UsageError: there is no such function, or it fails.
        InputError: its result violates the contract.
    """
    if request.source is not None:
        raise UsageError(f"--from {request.source}: {request.name} finds its own data; leave --from out")
    plugin = load(request.name, "prepare-data")
    with outside(f"prepare-data {request.name}", "check the module and function"):
        found = plugin.function()
        found = dict(found) if isinstance(found, Mapping) else found
    if not isinstance(found, Mapping):
        expected = 'a dict {"train": (images, labels), "test": (images, labels)}'
        raise InputError(f"{request.name}: expected {expected}, found {kind_of(found)}; check the function")
    for name in ("train", "test"):
        if name not in found:
            raise InputError(f"{request.name}: no {name} split; return (images, labels) for train and test")
    contents = contents_of(found, request.name, in_bytes=True)
    for name, part in {"train": contents.train, "test": contents.test}.items():
        request.say(f"{request.name}: {name} has {len(part.labels)} images {part.images.shape[1:]}")
    return replace(contents, files={request.name: f"sha256:{plugin.sha256}"})


def contents_of(found: Mapping[str, Any], start: str, in_bytes: bool = False) -> Contents:
    """Return checked splits of images and labels; a missing split is empty.

    Args:
        found: a dict that follows the contract above.
        start: the beginning of messages.
        in_bytes: whether to round float images to uint8.

    Raises:
        InputError: the dict violates the contract.
    """
    names = [*SPLITS, "classes", *CUSTOMS]
    for name in found:
        if name not in names:
            raise InputError(f"{start}: {name!r} is unknown; {nearest(str(name), names)}")
    parts = {name: _part(found[name], f"{start}: {name}", in_bytes) for name in SPLITS if name in found}
    if not parts:
        raise InputError(f"{start}: no images; give train or test")
    shapes = {part.images.shape[1:] for part in parts.values()}
    if len(shapes) > 1:
        text = ", ".join(f"{name} {part.images.shape[1:]}" for name, part in parts.items())
        raise InputError(f"{start}: image shapes differ ({text}); use one size")
    empty = Part(np.zeros((0, *shapes.pop()), np.uint8), np.zeros(0, np.int64))
    return Contents(
        classes=_classes(found.get("classes"), parts, start),
        train=parts.get("train", empty),
        test=parts.get("test", empty),
        val=parts.get("val"),
        files={},
        official=False,
        customs={name: _custom(found[name], name, start) for name in CUSTOMS if found.get(name) is not None},
    )


def _custom(value: Any, name: str, start: str) -> Any:
    """Return a default of the data; a mean or std may also be an array or tensor."""
    if name not in ("mean", "std"):
        return exact(value.item() if name == "eps" and getattr(value, "shape", None) == () else value)
    numbers = _array(value, f"{start}: {name}")
    if numbers.ndim != 1 or numbers.dtype.kind not in "iuf":
        raise InputError(f"{start}: {name}: expected a list with one number per channel")
    if numbers.size and numbers.max() > (1 if name == "mean" else SPREAD):
        raise InputError(f"{start}: {name} {numbers.max():g}: expected values for pixels in [0, 1]; divide by 255")
    return numbers.astype(float).tolist()


def _part(pair: Any, start: str, in_bytes: bool) -> Part:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise InputError(f"{start}: expected (images, labels), found {kind_of(pair)}; return two arrays")
    images = images_of(pair[0], f"{start} images")
    images = bytes_of(images) if in_bytes else images
    return Part(images, labels_of(pair[1], len(images), f"{start} labels"))


def images_of(x: Array | Tensor, start: str) -> NDArray[Any]:
    """Return images (N, C, H, W): uint8 if that is exact, else float32 in [0, 1].

    Raises:
        InputError: shape, type or range is invalid.
    """
    images = _array(x, start)
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(f"{start}: shape {images.shape}, expected (N, C, H, W), (N, H, W, C) or (N, H, W)")
    images = images.transpose(0, 3, 1, 2) if channels_last(images.shape, start) else images
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype.kind != "f":
        advice = "convert levels from 0 to 255 with astype('uint8')" if images.dtype.kind in "iu" else "convert them"
        raise InputError(f"{start}: {images.dtype}, expected uint8, or float in [0, 1]; {advice}")
    least, most = float(images.min()), float(images.max())
    if not (least >= 0 and most <= 1):
        raise InputError(f"{start}: values from {least:.9g} to {most:.9g}, expected floats in [0, 1]; rescale them")
    exact = np.ascontiguousarray(images, np.float32)
    levels = np.rint(exact * 255).astype(np.uint8)
    return levels if np.array_equal(levels / np.float32(255), exact) else exact


def channels_last(shape: tuple[int, ...], start: str) -> bool:
    """Return whether images of a shape (N, ...) have their channels last.

    Raises:
        InputError: the shape is ambiguous.
    """
    _, first, middle, last = shape
    if first in CHANNELS or last in CHANNELS:
        return first not in CHANNELS
    if (first == middle) == (middle == last):
        raise InputError(
            f"{start}: shape {shape} does not show which axis has the channels; give (N, C, H, W) with 1 or 3"
        )
    return first == middle


def labels_of(y: Array | Tensor, n: int, start: str) -> Labels:
    """Return labels (N,) int64 from an array (N,) or (N, 1).

    Raises:
        InputError: they are not n integers from 0, or as large as no number of a class.
    """
    labels = _array(y, start)
    check_one_each(labels.shape, start)
    labels = labels.reshape(-1)
    if labels.shape != (n,):
        raise InputError(f"{start}: shape {labels.shape}, expected ({n},), one label per image")
    if labels.dtype.kind not in "iu":
        advice = TEXT_LABELS if labels.dtype.kind in "US" else "convert them with astype(int)"
        raise InputError(f"{start}: {type_name(labels.dtype)}, expected integers from 0; {advice}")
    if int(labels.min()) < 0:
        raise InputError(f"{start}: {labels.min()}, expected integers from 0; shift them")
    if int(labels.max()) >= CLASSES:
        raise InputError(f"{start}: {labels.max()}, expected integers below {CLASSES}; {TEXT_LABELS}")
    return labels.astype(np.int64)


def check_one_each(shape: tuple[int, ...], start: str) -> None:
    """Raise an InputError unless labels of a shape are (N,) or (N, 1)."""
    if not shape or shape[1:] not in ((), (1,)):
        wrong = f"{start}: shape {shape}, expected one label per image, (N,) or (N, 1)"
        raise InputError(
            f"{wrong}; convert one-hot labels with labels.argmax(1); several labels per image are not supported"
        )


def type_name(dtype: np.dtype[Any]) -> str:
    """Return a readable name of a type: "text", "bool", "float64"."""
    return "text" if dtype.kind in "US" else str(dtype)


def _array(values: Array | Tensor, start: str) -> NDArray[Any]:
    modes = {getattr(each, "mode", None) for each in values} if isinstance(values, (list, tuple)) else set()
    if odd := next((each for each in modes if isinstance(each, str) and each not in PILLOW), None):
        found = "with a palette" if odd in ("P", "PA") else f"of mode {odd}"
        advice = f"convert them with image.convert('{'L' if odd == 'LA' else 'RGB'}')"
        if odd.startswith(("I", "F")):
            advice = "divide by the largest level and give an array of floats in [0, 1]"
        raise InputError(f"{start}: images of Pillow {found}; {advice}")
    if np.ma.is_masked(values):
        raise InputError(f"{start}: some values are masked; fill them, by filled()")
    try:
        if not hasattr(values, "detach"):
            return np.asarray(values)
        tensor = values.detach().cpu()
        return np.asarray((tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy())
    except Exception as error:  # lazy arrays run their own code
        if isinstance(error, BskError) or out_of_memory(error):
            raise
        raise InputError(f"{start}: not an array ({first_line(error, 80)})") from error


def _classes(names: Any, parts: Mapping[str, Part], start: str) -> list[str]:
    most = max(int(part.labels.max()) for part in parts.values())
    if names is None:
        return [str(each) for each in range(most + 1)]
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{start}: classes must be a list of names")
    for name in names:
        if not name.isprintable():
            raise InputError(f"{start}: the class name {ascii(name):.60} is not printable; rename it")
    if twice := next((name for name in names if list(names).count(name) > 1), None):
        raise InputError(f"{start}: two classes are named {twice!r}; names must be unique")
    if most >= len(names):
        raise InputError(f"{start}: a label is {most}, but there are {len(names)} classes; count labels from 0")
    return list(names)
