"""One safetensors file holds a dataset: its pixels, labels, splits, and what is customary for it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open

from bsk.data.order import Images, Labels, Rows, balanced_order
from bsk.errors import InputError
from bsk.records.atomic import replacing
from bsk.records.fields import FieldError, convert
from bsk.records.header_schema import DATA, HEADERS
from bsk.records.headers import BYTES, head, load_header, opening, tensor_start
from bsk.records.jsonl import sha256
from bsk.version import VERSION

if TYPE_CHECKING:
    from torch import Tensor

Shapes = dict[str, tuple[str, list[int]]]  # dtype and shape of tensors by name
SPLITS = ("train", "val", "test")
CHUNK = 1 << 22  # bytes of pixels gathered at a time
DTYPES = {"images": "U8", "labels": "I64", "index": "I64"}
ORDER = (*(f"{name}_{part}" for name in SPLITS for part in ("labels", "index")), *(f"{name}_images" for name in SPLITS))
WORDS = {"U8": "uint8", "I64": "int64", "F32": "float32", "F64": "float64", "F16": "float16", "BF16": "bfloat16"}
CONTENT = "content"  # in a header: records name these data by `identity`; without it, by the SHA-256 of the file
IDENTITY_VERSION = "0.1.0"  # of the bsk whose data files this identity was the SHA-256 of
PUBLISHED = {  # the files of the sources that have a name of their own, as `identity` says them for any copy
    "digits": (
        "sklearn.datasets.load_digits",
        "sha256:0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382",
    ),
    "cifar10": ("cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a"),
    "cifar100": ("cifar-100-python.tar.gz", "md5:eb9058c3a382ffc7106e4002c42a8d85"),
    "tiny-imagenet": ("tiny-imagenet-200.zip", "md5:90528d7ca1a48142e341f4ef8d21d0de"),
}


@dataclass(frozen=True)
class Info:
    """What a data file says of itself; `eps` in pixel units of [0, 1], `mean` and `std` one a channel."""

    name: str
    classes: list[str]
    eps: float
    mean: list[float]
    std: list[float]
    augment: str = "none"
    model: str = "cnn"
    source: dict[str, Any] = field(default_factory=dict)
    val_rule: str = ""
    limits: dict[str, Any] = field(default_factory=dict)

    @property
    def corrupted(self) -> dict[str, Any]:
        """Return which corruption the images have and how severe, as fields of records; none where they have none."""
        found = {name: self.source.get(name) for name in ("corruption", "severity")}
        fits = isinstance(found["corruption"], str) and type(found["severity"]) is int and found["severity"] > 0
        return found if fits else {}

    def said(self) -> dict[str, Any]:
        """Return these fields alone, by name, of what may have more."""
        return {each.name: getattr(self, each.name) for each in fields(Info)}


def problem(info: Info) -> str | None:
    """Return what cannot be in this description, in a few words, or None."""
    try:
        convert({"kind": DATA, **info.said()}, HEADERS[DATA])
    except FieldError as error:
        return f"{error.place} {error.found!r:.40}, expected {error.expected}"
    return None if len(info.mean) == len(info.std) else "mean and std must be one number a channel"


def data_path(dataset: str) -> Path:
    """Return where prepared data of a name are."""
    return Path("data") / f"{dataset}.safetensors"


@dataclass(frozen=True)
class Part:
    """Some rows of labelled images, which become one split; all rows where `rows` is None.

    images (N, C, H, W) uint8, or in memory fp32 in [0, 1]; labels (N,) int64; rows (M,): positions in them, in any
    order; `as_given` keeps that order; `hashes`, where they are known, are those of all N images.
    """

    images: Images
    labels: Labels
    rows: Rows | None = None
    as_given: bool = False
    hashes: Sequence[bytes] | None = field(default=None, repr=False)

    def ordered(self) -> Rows:
        """Return the rows in class-balanced order, the order of a data file."""
        rows = np.arange(len(self.labels)) if self.rows is None else self.rows
        if self.as_given:
            return rows
        rows = np.sort(rows)
        return rows[balanced_order(self.labels[rows])]


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) uint8, or fp32 as in `Part`; labels, index (N,) int64: the place in the official order."""

    images: Tensor
    labels: Tensor
    index: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of an image."""
        return tuple(self.images.shape[1:])

    def take(self, rows: Tensor) -> Tensor:
        """Return the images of some rows, (K, C, H, W) uint8."""
        return self.images[rows]


@dataclass(frozen=True)
class Stream:
    """A split whose images stay in the file until they are taken, so that any number of them fits into memory."""

    path: Path
    start: int
    shape: tuple[int, ...]
    labels: Tensor
    index: Tensor

    def take(self, rows: Tensor) -> Tensor:
        """Return the images of some rows, (K, C, H, W) uint8.

        Raises:
            InputError: the file cannot be read any more.
        """
        import torch

        size = math.prod(self.shape)
        images = np.empty((len(rows), size), np.uint8)
        with opening(self.path, _again(self.path)), self.path.open("rb") as file:
            for image, row in zip(images, rows.tolist(), strict=True):
                file.seek(self.start + row * size)
                if file.readinto(image.data) != size:
                    raise InputError(f"{self.path}: has changed while it was read; {_again(self.path)}")
        return torch.from_numpy(images).view(-1, *self.shape)


@dataclass(frozen=True)
class DataFile(Info):
    """An opened data file: what it says of itself, and its splits, read when asked for."""

    path: Path = Path()
    counts: dict[str, int] = field(default_factory=dict)
    version: str = VERSION
    named_by: str = CONTENT

    @cached_property
    def sha256(self) -> str:
        """What records name these data by: their `identity`, or the SHA-256 of a file of before there was one."""
        return self.identity if self.named_by == CONTENT else sha256(self.path)

    @cached_property
    def identity(self) -> str:
        """The SHA-256 of tensors, classes and customs, whatever they were made of and called, in hexadecimal."""
        return identity(self._shapes(), self, self._bytes())

    def _shapes(self) -> Shapes:
        with opening(self.path, _again(self.path)), safe_open(self.path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in ORDER}
            return {name: (each.get_dtype(), list(each.get_shape())) for name, each in slices.items()}

    def _bytes(self) -> Iterator[bytes | memoryview]:
        shapes = self._shapes()
        with opening(self.path, _again(self.path)), self.path.open("rb") as file:
            for name in ORDER:
                file.seek(tensor_start(self.path, name))
                left = math.prod(shapes[name][1]) * BYTES[shapes[name][0]]
                while left:
                    found = file.read(min(left, CHUNK))
                    if not found:
                        raise InputError(f"{self.path}: has changed while it was read; {_again(self.path)}")
                    yield found
                    left -= len(found)

    def split(self, name: str, limit: int | None = None) -> Split:
        """Return a split ("train", "val" or "test"), or its first `limit` examples, on the CPU.

        The order is class-balanced and fixed, so that a smaller limit gives the first examples of a larger one.

        Raises:
            InputError: the file cannot be read any more, or has no such examples.
        """
        n = self._count(name, limit)
        with opening(self.path, _again(self.path)), safe_open(self.path, framework="pt") as file:
            return Split(**{part: file.get_slice(f"{name}_{part}")[:n] for part in DTYPES})

    def stream(self, name: str, limit: int | None = None) -> Stream | Split:
        """Return the same examples as `split`, with their images left in the file.

        Raises:
            InputError: the file cannot be read any more, or has no such examples.
        """
        n = self._count(name, limit)
        with opening(self.path, _again(self.path)), safe_open(self.path, framework="pt") as file:
            labels, index = (file.get_slice(f"{name}_{part}")[:n] for part in ("labels", "index"))
            shape = tuple(file.get_slice(f"{name}_images").get_shape()[1:])
        return Stream(self.path, tensor_start(self.path, f"{name}_images"), shape, labels, index)

    def _count(self, name: str, limit: int | None) -> int:
        n = self.counts[name] if limit is None else min(limit, self.counts[name])
        if n <= 0:
            there = ", ".join(f"{self.counts[split]} {split}" for split in SPLITS)
            raise InputError(
                f"{self.path}: no {name} examples to take of {there}; take another split, or raise the limit"
            )
        return n


def write(path: Path, parts: Mapping[str, Part], info: Info) -> None:
    """Write a data file, whole or not at all; the same input gives the same bytes.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        for piece in content(parts, info):
            file.write(piece)


def content(parts: Mapping[str, Part], info: Info) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a data file, of one Part for each of SPLITS."""
    shapes = shapes_of(parts)
    counts = {name: shapes[f"{name}_labels"][1][0] for name in SPLITS}
    yield head(shapes, {"kind": DATA, "version": VERSION, "counts": counts, "named_by": CONTENT, **info.said()})
    yield from tensors_of(parts)


def shapes_of(parts: Mapping[str, Part]) -> Shapes:
    """Return dtype and shape of the tensors of a data file; int64 ones come first, so that each starts aligned."""
    counts = {name: len(parts[name].ordered()) for name in SPLITS}
    shapes = {name: (DTYPES[name.partition("_")[2]], [counts[name.partition("_")[0]]]) for name in ORDER}
    for name in SPLITS:
        dtype = "F32" if parts[name].images.dtype == np.float32 else DTYPES["images"]  # fp32 is in memory alone
        shapes[f"{name}_images"] = (dtype, [counts[name], *parts[name].images.shape[1:]])
    return shapes


def tensors_of(parts: Mapping[str, Part]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of these tensors, pixels a few megabytes at a time, so that nothing large is copied."""
    rows = {name: parts[name].ordered() for name in SPLITS}
    for name in SPLITS:
        yield parts[name].labels[rows[name]].astype("<i8").data
        yield rows[name].astype("<i8").data
    for name in SPLITS:
        yield from (images.data for images in _gather(parts[name].images, rows[name]))


def identity(shapes: Shapes, info: Info, tensors: Iterable[bytes | memoryview]) -> str:
    """Return the SHA-256 of a data file of these tensors, classes and customs, with all else in it set.

    What is set is what bsk wrote for official archives, and for arrays, so that records that name their files by
    SHA-256 still do. `val_rule` and `limits` only say how the tensors came about, but older files of these had them.
    """
    published = PUBLISHED.get(info.name)
    source = {"files": dict([published] if published else []), "official": published is not None}
    told = info.said() | {"name": info.name, "source": source if info.source else {}}
    if not published:
        told |= {"name": "arrays", "limits": {}}
    counts = {name: shapes[f"{name}_labels"][1][0] for name in SPLITS}
    digest = hashlib.sha256(head(shapes, {"kind": DATA, "version": IDENTITY_VERSION, "counts": counts, **told}))
    for piece in tensors:
        digest.update(piece)
    return digest.hexdigest()


def _gather(images: Images, rows: Rows) -> Iterator[Images]:
    step = max(1, CHUNK // max(1, math.prod(images.shape[1:])))
    for start in range(0, len(rows), step):
        yield np.ascontiguousarray(images[rows[start : start + step]])


def open_data(path: Path) -> DataFile:
    """Open a data file and check all of it but the pixels; nothing large is read.

    Raises:
        InputError: it is missing, torn, not a data file of bsk, or does not hold what it says.
    """
    header = load_header(path, DATA, _again(path))
    with opening(path, _again(path)), safe_open(path, framework="np") as file:
        shapes = {name: _shape(path, file, name) for name in SPLITS}
        data = _described(path, header)
        _check_shapes(data, shapes)
        for name in SPLITS:
            _check_labels(data, name, file.get_tensor(f"{name}_labels"))
    return data


def _shape(path: Path, file: Any, name: str) -> list[int]:
    """Return the shape of a split's images, after checking the types and shapes of its three tensors."""
    shapes = {}
    for part, expected in DTYPES.items():
        tensor = f"{name}_{part}"
        if tensor not in file.keys():  # noqa: SIM118 - not a dict
            raise InputError(f"{path}: {tensor} is missing; {_again(path)}")
        found = file.get_slice(tensor).get_dtype()
        if found != expected:
            wanted = "uint8 in [0, 255]" if part == "images" else "int64"
            raise InputError(f"{path}: {tensor} are {WORDS.get(found, found)}, expected {wanted}; {_again(path)}")
        shapes[part] = list(file.get_slice(tensor).get_shape())
    images = shapes["images"]
    if len(images) != 4 or shapes["labels"] != images[:1] or shapes["index"] != images[:1]:
        text = ", ".join(f"{part} {tuple(shape)}" for part, shape in shapes.items())
        raise InputError(f"{path}: {name} has {text}, expected (N, C, H, W), (N,), (N,); {_again(path)}")
    return images


def _described(path: Path, header: dict[str, Any]) -> DataFile:
    """Return the header as a DataFile, or say what it lacks."""
    names = {each.name for each in fields(DataFile)} - {"path", "named_by"}
    missing = sorted(names - header.keys())
    if missing:
        raise InputError(f"{path}: the header lacks {', '.join(missing)}; {_again(path)}")
    if len(header["mean"]) != len(header["std"]):
        raise InputError(f"{path}: header: mean and std must be one number a channel; {_again(path)}")
    return DataFile(path=path, named_by=header.get("named_by", "file"), **{name: header[name] for name in names})


def _check_shapes(data: DataFile, shapes: Mapping[str, list[int]]) -> None:
    """The counts are the header's; all images have one size, and as many channels as the header has means."""
    counts = {name: shape[0] for name, shape in shapes.items()}
    if data.counts != counts:
        raise InputError(f"{data.path}: header: counts {data.counts}, the tensors have {counts}; {_again(data.path)}")
    sizes = {tuple(shape[1:]) for shape in shapes.values()}
    size = sizes.pop()
    if sizes or size[0] != len(data.mean) or 0 in size:
        text = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise InputError(
            f"{data.path}: images are {text}, expected one size of {len(data.mean)} channels; {_again(data.path)}"
        )


def _check_labels(data: DataFile, name: str, labels: Labels) -> None:
    most = len(data.classes) - 1
    if len(labels) and not (labels.min() >= 0 and labels.max() <= most):
        wrong = int(labels.min() if labels.min() < 0 else labels.max())
        raise InputError(f"{data.path}: {name} label {wrong} is outside 0..{most}; {_again(data.path)}")


def _again(path: Path) -> str:
    if path.stem in PUBLISHED:
        return f"make it with: bsk prepare-data {path.stem}"
    return f"check the path, or make it with: bsk prepare-data folder --from FOLDER --out {path}"
