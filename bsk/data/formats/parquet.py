"""Parquet files with an image and a label column, as in Hugging Face datasets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bsk.data.archive import open_tree, unfit
from bsk.data.arrays import labels_of
from bsk.data.formats.cifar import NAMES
from bsk.data.formats.columns import Columns, columns_of
from bsk.data.formats.layout import HIDDEN, SPLIT, split_of
from bsk.data.formats.npz import checked
from bsk.data.official import located
from bsk.data.order import Images, Labels
from bsk.data.pictures import FILE, BytesRead, Shape, stacked
from bsk.data.splits import Contents, Request, tested
from bsk.data.store import SPLITS
from bsk.data.tree import believable, printable, reading, too_large
from bsk.errors import InputError, UsageError

MAGIC, SUFFIX = b"PAR1", ".parquet"
ROWS = 100  # rows read at once: repeated values are small in the file but not in memory


@dataclass
class _Split:
    """The rows of a split in one or more files, and the labels of the rows read so far."""

    files: list[Any]
    columns: Columns
    labels: list[Any] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(file.metadata.num_rows for _, file in self.files)

    @property
    def size(self) -> int:
        """Bytes of its columns after decompression."""
        return sum(_unpacked(file) for _, file in self.files)

    def images(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name of each image in messages and the content of its file; store its label."""
        at = self.columns
        for path, file in self.files:
            row = 0
            with reading(str(path)):
                for batch in file.iter_batches(ROWS, columns=[at.leaf, at.label], use_threads=False):
                    pictures = batch.column(at.image)
                    pictures = pictures if at.leaf == at.image else pictures.field("bytes")
                    self.labels += batch.column(at.label).to_pylist()
                    if len(self.labels) > self.rows:
                        raise InputError(f"{path}: more rows than its footer says; check it, or replace it")
                    for data in pictures.to_pylist():
                        yield f"{path}: row {row}", _checked(data, path, row)
                        row += 1


def read(request: Request) -> Contents:
    """Return images (N, C, H, W) from a .parquet file or a folder of them, in the order of file names and rows.

    The split of a file comes from its name or its folder, else it is train; without test, a fifth of the images is
    held out. Class names come from Hugging Face's metadata, else from the labels. `request.labels` names the label
    column if there are several; the default for CIFAR-100 is the fine labels.

    Raises:
        UsageError: pyarrow is not installed.
        InputError: no column, or more than one, is images or labels; or an image or label is missing.
    """
    assert request.source  # the format was detected from it
    path = located(request, request.source)
    splits = _splits(request, path)
    found: dict[str, Any] = {}
    for name, split in splits.items():
        pixels = _pixels(request, path, split, [*found.values()])
        found[name] = pixels, split.labels
        others = [each for each in split.files[0][1].schema_arrow.names if each not in _used(split.columns)]
        unused = f"; columns not used: {printable(', '.join(others))[:100]}" if others else ""
        request.say(
            f"{path}: {name} has {len(pixels)} images {pixels.shape[1:]}, labels are {split.columns.label}{unused}"
        )
    classes = _class_names(request, path, splits)
    for name, (pixels, labels) in found.items():
        found[name] = pixels, _numbers(path, name, labels, classes or [])
    return checked(request, path, found, classes)


def _used(columns: Columns) -> tuple[str, ...]:
    return columns.image, columns.label


def _splits(request: Request, path: Path) -> dict[str, _Split]:
    found: dict[str, _Split] = {}
    for each in _files(path):
        inside = each.relative_to(path).with_suffix("").parts if path.is_dir() else (path.stem,)
        name = next(filter(None, map(split_of, (*inside[::-1], path.stem))), "train")
        file = _opened(each)
        split = found.setdefault(name, _Split([], columns_of(request, each, file.schema_arrow)))
        if split.columns != columns_of(request, each, file.schema_arrow):
            raise InputError(f"{each}: has other columns or classes than other files of {name}; give one dataset")
        if split.files and split.files[0][0].parent != each.parent:  # as several configurations of a dataset
            both = " and ".join(f"{one.parent.relative_to(path)}/" for one in (split.files[0][0], each))
            raise InputError(f"{path}: {name} is in two folders, {both}; give one dataset")
        if file.metadata.num_rows:
            _refuse_several_splits(each, file)
            split.files.append((each, file))
    kept = {name: found[name] for name in SPLITS if name in found and found[name].files}
    if not kept:
        raise InputError(f"{path}: no rows in its parquet files; check --from")
    return tested(request, str(path), kept)


def _refuse_several_splits(path: Path, file: Any) -> None:
    """Raise if a column says that the rows of a file belong to several splits.

    Raises:
        InputError: it does.
    """
    for name in (each for each in file.schema_arrow.names if SPLIT.fullmatch(re.sub("[^a-z]", "", each.lower()))):
        found: set[str | None] = set()
        with reading(str(path)):
            for batch in file.iter_batches(ROWS, columns=[name], use_threads=False):
                found |= {split_of(each) for each in batch.column(0).to_pylist() if isinstance(each, str)}
        if len(found - {None}) > 1:
            advice = "write each split to a file of its own, without this column"
            raise InputError(f"{path}: column {printable(name)[:40]} has several splits; {advice}")


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        with open_tree(path) as tree:
            names = [each for each in tree.sizes if each.lower().endswith(SUFFIX) and not HIDDEN.search(each)]
        return [path / name for name in sorted(names)]
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            raise InputError(f"{path}: parquet files in an archive; unpack it and give the folder")
    return [path]


def _opened(path: Path) -> Any:
    """Open a file; only its footer is read."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(f"{path}: parquet needs pyarrow, which is not installed; pip install pyarrow") from error
    with path.open("rb") as content:
        start = content.read(512)
    if not start.startswith(MAGIC):
        raise unfit(path, start)
    with reading(str(path)):
        file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)  # otherwise a whole column is buffered
    if _unpacked(file) > believable(path.stat().st_size):
        raise too_large(str(path))
    return file


def _unpacked(file: Any) -> int:
    groups = range(file.metadata.num_row_groups)
    return sum(max(0, file.metadata.row_group(i).total_byte_size) for i in groups)


def _checked(data: bytes | None, path: Path, row: int) -> bytes:
    if data is None:
        raise InputError(
            f"{path}: row {row} has no image data, at most a path; give the folder of the images, or save them with it"
        )
    if len(data) > FILE:
        raise InputError(f"{path}: row {row} has {len(data)} bytes, expected at most {FILE}; remove it")
    return data


def _pixels(request: Request, path: Path, split: _Split, before: list[Any]) -> Images:
    """Return the images of a split, with the size and colour of the splits before."""
    shape = Shape(request.size, request.size, resize=True) if request.size else None
    if before and shape is None:
        shape = Shape(*before[0][0].shape[2:])
    most = believable(sum(each.stat().st_size for each, _ in split.files))
    colour = any(pixels.shape[1] == 3 for pixels, _ in before)
    report = request.progress and BytesRead(request.progress, split.size)
    pixels = stacked(split.images(), split.rows, str(path), most, shape, colour, report)
    if len(split.labels) != len(pixels):
        raise InputError(
            f"{path}: {len(split.labels)} rows, but its footer says {len(pixels)}; check it, or replace it"
        )
    return pixels


def _class_names(request: Request, path: Path, splits: dict[str, _Split]) -> list[str] | None:
    """Return class names from the metadata, text labels or the known dataset; None for numbers."""
    first = next(iter(splits.values()))
    if any(split.columns != first.columns for split in splits.values()):
        raise InputError(f"{path}: its splits differ in columns or classes; give one dataset")
    if any(isinstance(label, str) for label in first.labels):
        return sorted({str(label) for label in first.labels})
    if first.columns.names:
        return list(first.columns.names)
    return None if "coarse" in first.columns.label.lower() else NAMES.get(request.name)


def _numbers(path: Path, split: str, labels: list[Any], classes: list[str]) -> Labels:
    """Return the labels of a split as integers, (N,)."""
    number = {name: i for i, name in enumerate(classes)}
    found = [number.get(label, label) if isinstance(label, str) else label for label in labels]
    wrong = next((i for i, each in enumerate(found) if each is None or isinstance(each, str) or each < 0), None)
    if wrong is not None:
        said = (
            "no label" if found[wrong] is None else f"the label {str(found[wrong])[:40]!r}, which train does not have"
        )
        raise InputError(f"{path}: {split} row {wrong} has {said}; remove such rows, or their file")
    return labels_of(np.array(found, np.uint64), len(found), f"{path}: {split} labels")
