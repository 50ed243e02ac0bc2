"""A prepared dataset in one safetensors file: images, labels, splits and defaults."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open

from bsk.data.order import Images, Labels, Rows, balanced_order
from bsk.data.unchanged import Unchanged
from bsk.errors import InputError, UsageError, nearest
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
CONTENT = "content"  # in a header: records name the data by `identity`; otherwise by the SHA-256 of the file
IDENTITY_VERSION = "0.1.0"  # the version of bsk whose data files had this identity as their SHA-256
PUBLISHED = {  # the files of official sources, as `identity` names them for every copy
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
    """The description in a data file; `eps` is for pixels in [0, 1], `mean` and `std` have one number per channel."""

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
        """The fields `corruption` and `severity` of records, or an empty dict for images without a corruption."""
        found = {name: self.source.get(name) for name in ("corruption", "severity")}
        fits = isinstance(found["corruption"], str) and type(found["severity"]) is int and found["severity"] > 0
        return found if fits else {}

    def said(self) -> dict[str, Any]:
        """Return the fields of Info by name, without those of a subclass."""
        return {each.name: getattr(self, each.name) for each in fields(Info)}


def problem(info: Info) -> str | None:
    """Return what is invalid in a description, in a few words, or None."""
    try:
        convert({"kind": DATA, **info.said()}, HEADERS[DATA])
    except FieldError as error:
        found = " ".join(f"{error.found!r}".split())  # that of an array has several lines
        return f"{error.place} {found:.40}, expected {error.expected}"
    return None if len(info.mean) == len(info.std) else "mean and std must have one number per channel"


def data_path(dataset: str) -> Path:
    """Return the path of prepared data by name."""
    return Path("data") / f"{dataset}.safetensors"


@dataclass(frozen=True)
class Part:
    """Rows of labelled images that form one split.

    Attributes:
        images: (N, C, H, W) uint8, or fp32 in [0, 1] in memory.
        labels: (N,) int64.
        rows: positions of the split's images, (M,) in any order; None for all.
        as_given: whether to keep that order.
        hashes: hashes of all N images, if known.
    """

    images: Images
    labels: Labels
    rows: Rows | None = None
    as_given: bool = False
    hashes: Sequence[bytes] | None = field(default=None, repr=False)

    def ordered(self) -> Rows:
        """Return the rows in the order of a data file, which is class-balanced unless `as_given`."""
        rows = np.arange(len(self.labels)) if self.rows is None else self.rows
        if self.as_given:
            return rows
        rows = np.sort(rows)
        return rows[balanced_order(self.labels[rows])]


@dataclass(frozen=True)
class Split:
    """A split: images (N, C, H, W), uint8 or fp32 in [0, 1]; labels (N,) and index (N,), the row in the source.

    The tensors of a data file are mapped from it; then `file` can tell whether they are still the same.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    file: Unchanged | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image: (channels, height, width)."""
        return tuple(self.images.shape[1:])

    def take(self, rows: Tensor) -> Tensor:
        """Return the images of rows (K,), as (K, C, H, W)."""
        return self.images[rows]


@dataclass(frozen=True)
class Stream:
    """A split whose images stay in the file until they are taken, so that it need not fit into memory."""

    path: Path
    start: int
    shape: tuple[int, ...]
    labels: Tensor
    index: Tensor
    file: Unchanged = field(repr=False)

    def take(self, rows: Tensor) -> Tensor:
        """Return the images of rows (K,), as (K, C, H, W) uint8.

        Raises:
            InputError: the file can no longer be read, or has changed.
        """
        import torch

        size = math.prod(self.shape)
        images = np.empty((len(rows), size), np.uint8)
        with opening(self.path, _advice(self.path)), self.path.open("rb") as file:
            self.file.check(os.fstat(file.fileno()))
            for image, row in zip(images, rows.tolist(), strict=True):
                file.seek(self.start + row * size)
                if file.readinto(image.data) != size:
                    raise InputError(f"{self.path}: has changed while it was read; {_advice(self.path)}")
        return torch.from_numpy(images).view(-1, *self.shape)


@dataclass(frozen=True, repr=False)
class DataFile(Info):
    """An opened data file: its description, and its splits, which are read on demand."""

    path: Path = Path()
    counts: dict[str, int] = field(default_factory=dict)
    version: str = VERSION
    named_by: str = CONTENT

    def __repr__(self) -> str:
        """Return name, sizes and default radius in one line."""
        return f"{type(self).__name__}({self.name}: {self._sizes()}, {len(self.classes)} classes, eps {self.eps})"

    def _sizes(self) -> str:
        return ", ".join(f"{self.counts[split]} {split}" for split in SPLITS)

    @cached_property
    def sha256(self) -> str:
        """The name of these data in records: their `identity`, or the SHA-256 of an older file."""
        return self.identity if self.named_by == CONTENT else sha256(self.path)

    @cached_property
    def identity(self) -> str:
        """The SHA-256 of tensors, classes and defaults in hexadecimal, independent of source and name."""
        return identity(self._shapes(), self, self._bytes())

    def _shapes(self) -> Shapes:
        with opening(self.path, _advice(self.path)), safe_open(self.path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in ORDER}
            return {name: (each.get_dtype(), list(each.get_shape())) for name, each in slices.items()}

    def _bytes(self) -> Iterator[bytes | memoryview]:
        shapes = self._shapes()
        with opening(self.path, _advice(self.path)), self.path.open("rb") as file:
            self.file.check(os.fstat(file.fileno()))
            for name in ORDER:
                file.seek(tensor_start(self.path, name))
                left = math.prod(shapes[name][1]) * BYTES[shapes[name][0]]
                while left:
                    found = file.read(min(left, CHUNK))
                    if not found:
                        raise InputError(f"{self.path}: has changed while it was read; {_advice(self.path)}")
                    yield found
                    left -= len(found)

    def split(self, name: str, limit: int | None = None) -> Split:
        """Return a split ("train", "val" or "test"), or its first `limit` examples, on the CPU.

        The order is class-balanced and fixed, so that a smaller limit gives the first examples of a larger one.

        Raises:
            UsageError: there is no such split, or the limit is no whole number.
            InputError: the file can no longer be read, or the split is empty.
        """
        n = self._count(name, limit)
        with opening(self.path, _advice(self.path)), safe_open(self.path, framework="pt") as file:
            return Split(**{part: file.get_slice(f"{name}_{part}")[:n] for part in DTYPES}, file=self._unchanged())

    def stream(self, name: str, limit: int | None = None) -> Stream | Split:
        """Return the same examples as `split`, with their images left in the file.

        Raises:
            InputError: the file can no longer be read, or the split is empty.
        """
        n = self._count(name, limit)
        with opening(self.path, _advice(self.path)), safe_open(self.path, framework="pt") as file:
            labels, index = (file.get_slice(f"{name}_{part}")[:n].clone() for part in ("labels", "index"))
            shape = tuple(file.get_slice(f"{name}_images").get_shape()[1:])
        return Stream(self.path, tensor_start(self.path, f"{name}_images"), shape, labels, index, self._unchanged())

    @cached_property
    def file(self) -> Unchanged:
        """The file as it was when it was opened."""
        return Unchanged(self.path, self._known, self._reread)

    def _unchanged(self) -> Unchanged:
        self.file.check(self.path.stat())
        return self.file

    def _known(self) -> str | None:
        found: str | None = vars(self).get("sha256")  # not self.sha256, which would read the file now
        return found

    def _reread(self) -> str:
        return open_data(self.path).sha256

    def _count(self, name: str, limit: int | None) -> int:
        if not isinstance(name, str) or name not in self.counts:
            raise UsageError(f"split {name!r:.40}: no such split; {nearest(str(name), list(self.counts))}")
        if not isinstance(limit, Integral | None):
            raise UsageError(f"limit {limit!r:.40}: expected a whole number")
        n = self.counts[name] if limit is None else min(limit, self.counts[name])
        if n <= 0:
            raise InputError(
                f"{self.path}: no {name} examples (it has {self._sizes()}); choose another split, or raise the limit"
            )
        return n


def write(path: Path, parts: Mapping[str, Part], info: Info) -> None:
    """Write a data file atomically; the same input gives the same bytes.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        for piece in content(parts, info):
            file.write(piece)


def content(parts: Mapping[str, Part], info: Info) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a data file with one Part for each of SPLITS."""
    shapes = shapes_of(parts)
    counts = {name: shapes[f"{name}_labels"][1][0] for name in SPLITS}
    yield head(shapes, {"kind": DATA, "version": VERSION, "counts": counts, "named_by": CONTENT, **info.said()})
    yield from tensors_of(parts)


def shapes_of(parts: Mapping[str, Part]) -> Shapes:
    """Return dtype and shape of the tensors of a data file; int64 ones come first, so that all are aligned."""
    counts = {name: len(parts[name].ordered()) for name in SPLITS}
    shapes = {name: (DTYPES[name.partition("_")[2]], [counts[name.partition("_")[0]]]) for name in ORDER}
    for name in SPLITS:
        dtype = "F32" if parts[name].images.dtype == np.float32 else DTYPES["images"]  # fp32 occurs in memory only
        shapes[f"{name}_images"] = (dtype, [counts[name], *parts[name].images.shape[1:]])
    return shapes


def tensors_of(parts: Mapping[str, Part]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of the tensors; images come a few megabytes at a time, so that nothing large is copied."""
    rows = {name: parts[name].ordered() for name in SPLITS}
    for name in SPLITS:
        yield parts[name].labels[rows[name]].astype("<i8").data
        yield rows[name].astype("<i8").data
    for name in SPLITS:
        yield from (images.data for images in _gather(parts[name].images, rows[name]))


def identity(shapes: Shapes, info: Info, tensors: Iterable[bytes | memoryview]) -> str:
    """Return the SHA-256 of a data file with these tensors, classes and defaults, and fixed values for all else.

    The fixed values are those that bsk wrote for official archives and for arrays, so that records that name such
    files by SHA-256 stay valid. That is why `val_rule` and `limits` are included, although they only tell how the
    tensors were chosen.
    """
    published = PUBLISHED.get(info.name)
    source = {"files": dict([published] if published else []), "official": published is not None}
    description = info.said() | {"name": info.name, "source": source if info.source else {}}
    if not published:
        description |= {"name": "arrays", "limits": {}}
    counts = {name: shapes[f"{name}_labels"][1][0] for name in SPLITS}
    digest = hashlib.sha256(head(shapes, {"kind": DATA, "version": IDENTITY_VERSION, "counts": counts, **description}))
    for piece in tensors:
        digest.update(piece)
    return digest.hexdigest()


def _gather(images: Images, rows: Rows) -> Iterator[Images]:
    step = max(1, CHUNK // max(1, math.prod(images.shape[1:])))
    for start in range(0, len(rows), step):
        yield np.ascontiguousarray(images[rows[start : start + step]])


def open_data(path: Path) -> DataFile:
    """Open a data file and check everything except the pixels; nothing large is read.

    Raises:
        InputError: it is missing, corrupt, not a data file of bsk, or inconsistent with its header.
    """
    header = load_header(path, DATA, _advice(path))
    with opening(path, _advice(path)), safe_open(path, framework="np") as file:
        shapes = {name: _shape(path, file, name) for name in SPLITS}
        data = _described(path, header)
        _check_shapes(data, shapes)
        for name in SPLITS:
            _check_labels(data, name, file.get_tensor(f"{name}_labels"))
        _ = data.file  # as it is now
    return data


def _shape(path: Path, file: Any, name: str) -> list[int]:
    """Return the shape of a split's images, after checking type and shape of its three tensors."""
    shapes = {}
    for part, expected in DTYPES.items():
        tensor = f"{name}_{part}"
        if tensor not in file.keys():  # noqa: SIM118 - not a dict
            raise InputError(f"{path}: {tensor} is missing; {_advice(path)}")
        found = file.get_slice(tensor).get_dtype()
        if found != expected:
            wanted = "uint8 in [0, 255]" if part == "images" else "int64"
            raise InputError(f"{path}: {tensor} are {WORDS.get(found, found)}, expected {wanted}; {_advice(path)}")
        shapes[part] = list(file.get_slice(tensor).get_shape())
    images = shapes["images"]
    if len(images) != 4 or shapes["labels"] != images[:1] or shapes["index"] != images[:1]:
        text = ", ".join(f"{part} {tuple(shape)}" for part, shape in shapes.items())
        raise InputError(f"{path}: {name} has {text}, expected (N, C, H, W), (N,), (N,); {_advice(path)}")
    return images


def _described(path: Path, header: dict[str, Any]) -> DataFile:
    """Return the header as a DataFile; raise an InputError if fields are missing."""
    names = {each.name for each in fields(DataFile)} - {"path", "named_by"}
    missing = sorted(names - header.keys())
    if missing:
        raise InputError(f"{path}: the header lacks {', '.join(missing)}; {_advice(path)}")
    if len(header["mean"]) != len(header["std"]):
        raise InputError(f"{path}: header: mean and std must have one number per channel; {_advice(path)}")
    return DataFile(path=path, named_by=header.get("named_by", "file"), **{name: header[name] for name in names})


def _check_shapes(data: DataFile, shapes: Mapping[str, list[int]]) -> None:
    """Raise an InputError unless counts, image sizes and channels agree with the header."""
    counts = {name: shape[0] for name, shape in shapes.items()}
    if data.counts != counts:
        raise InputError(f"{data.path}: header: counts {data.counts}, the tensors have {counts}; {_advice(data.path)}")
    sizes = {tuple(shape[1:]) for shape in shapes.values()}
    size = sizes.pop()
    if sizes or size[0] != len(data.mean) or 0 in size:
        text = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise InputError(
            f"{data.path}: images are {text}, expected one size with {len(data.mean)} channels; {_advice(data.path)}"
        )


def _check_labels(data: DataFile, name: str, labels: Labels) -> None:
    most = len(data.classes) - 1
    if len(labels) and not (labels.min() >= 0 and labels.max() <= most):
        wrong = int(labels.min() if labels.min() < 0 else labels.max())
        raise InputError(f"{data.path}: {name} label {wrong} is outside 0..{most}; {_advice(data.path)}")


def _advice(path: Path) -> str:
    if path.stem in PUBLISHED:
        return f"make it with: bsk prepare-data {path.stem}"
    if path.exists() and path.suffix != ".safetensors":
        return f"convert it first: bsk prepare-data folder --from {path}"
    return f"check the path, or make it with: bsk prepare-data folder --from FOLDER --out {path}"
