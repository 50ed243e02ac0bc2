"""From the name and source of a dataset to one data file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bsk.data import arrays
from bsk.data.arrays import ArrayData
from bsk.data.datasets import DATASETS, Dataset, dataset_named
from bsk.data.duplicates import examined, report_duplicates
from bsk.data.formats import corruptions, forms
from bsk.data.splits import Contents, Notice, Progress, Request, described, limited, split_up
from bsk.data.store import SPLITS, DataFile, Part, data_path, open_data, write
from bsk.errors import InputError, UsageError, kind_of, nearest
from bsk.records.header_schema import DATA
from bsk.records.headers import check_replaceable
from bsk.records.jsonl import SCHEMA
from bsk.values import one_of, whole


def prepare(
    name: str,
    source: str | None,
    out: Path,
    *,
    size: int | None = None,
    labels: Sequence[str] = (),
    test_split: str = "test",
    drop_leaks: bool = False,
    force: bool = False,
    download_to: Path | None = None,
    progress: Progress | None = None,
    notice: Notice | None = None,
    **counts: int | None,
) -> dict[str, Any]:
    """Read a dataset as `read` does, write it to `out`, and return its record.

    An existing file with the same data is left unchanged. `download_to` is the folder of `out` by default; `labels`,
    `test_split`, `size` and `drop_leaks` are fields of `Request`; `counts` are val, train_limit and test_limit of
    `read`.

    Raises:
        UsageError: an unknown name, or a number out of range.
        InputError: the source is missing, corrupt, unsafe or of another dataset; `out` cannot be written, or has other
            data and `force` is not given.
    """
    start = time.perf_counter()
    check_replaceable(out, DATA, force)
    folder = download_to or out.parent
    request = Request(name, source, folder, size, progress, notice, tuple(labels), test_split, drop_leaks)
    found = read(request, **counts)
    record = _kept(found, out, force, start)
    there = " ".join(f"{split}_index" for split in SPLITS if record[split])
    advice = "; train your own networks on the rows of train_index only" if record["train"] else ""
    request.say(f"{out}: {there} number the rows of {found.rows}{advice}")
    return record


def prepare_each(
    name: str,
    source: str | None,
    out: Path,
    *,
    test_limit: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> Iterator[dict[str, Any]]:
    """Read corrupted test images, as `prepare` does, and yield the record of each file written to `out`.

    A file is CORRUPTION-SEVERITY.safetensors; its header has both.

    Raises:
        UsageError: no source is given.
        InputError: the source is missing, corrupt or of another format; a file cannot be written, or has other data.
    """
    request, dataset = Request(name, source, out.parent, None, progress, notice), dataset_named(name)
    for contents in corruptions.each_set(request):
        start = time.perf_counter()
        path = out / "{corruption}-{severity}.safetensors".format(**contents.origin)
        check_replaceable(path, DATA, force)
        yield _kept(_split(request, dataset, contents, {"test_limit": test_limit}), path, force, start)


def keep(found: ArrayData, out: Path, force: bool) -> None:
    """Write data unless the file already has them.

    Raises:
        InputError: it has others, and `force` is not given; or it cannot be written.
    """
    if not _same(out, found, force):
        write(out, found.parts, found)


def _kept(found: ArrayData, out: Path, force: bool, start: float) -> dict[str, Any]:
    """Write data unless the file already has them, and return their record."""
    keep(found, out, force)
    data = open_data(out)
    return {
        "schema": SCHEMA,
        "kind": "data",
        "name": data.name,
        "path": str(out),
        "sha256": data.sha256,
        **{split: data.counts[split] for split in SPLITS},
        "classes": len(data.classes),
        "class_names": data.classes,
        "eps": data.eps,
        "official": found.source["official"],
        **data.corrupted,
        "duplicates": {name: asdict(copies) for name, copies in found.duplicates.counts.items()},
        **({"dropped": found.duplicates.dropped} if found.duplicates.dropped is not None else {}),
        "seconds": round(time.perf_counter() - start, 3),
    }


def _same(out: Path, found: DataFile, force: bool) -> bool:
    """Return whether a file already has these data; raise an InputError if it has others, unless `force` is given."""
    try:
        old = open_data(out) if out.exists() else None
    except InputError:  # only replaced by force, else check_replaceable has raised
        old = None
    if old is None or old.identity == found.identity:
        return old is not None
    if not force:
        counts = " and ".join(", ".join(f"{split} {each.counts[split]}" for split in SPLITS) for each in (old, found))
        raise InputError(f"{out}: has other data ({counts} images); choose another --out, or pass --force")
    return False


def read(
    request: Request, *, val: int | None = None, train_limit: int | None = None, test_limit: int | None = None
) -> ArrayData:
    """Read a dataset from a file, folder or https URL, hold out val if it has none, and limit its splits.

    If `request.source` is None, the official archive is downloaded to `request.downloads`. First, `val` images are
    held out of train; then train is limited to `train_limit` images and test to `test_limit`, class-balanced.
    `request.size` resizes the images of `folder` to size x size pixels.

    Raises:
        UsageError: an unknown name, or a number out of range.
        InputError: the source is missing, corrupt, unsafe or of another dataset.
    """
    name, dataset = request.name, dataset_named(request.name)
    val, train_limit = whole("--val", val), whole("--train-limit", train_limit)
    test_limit, _ = whole("--test-limit", test_limit), whole("--size", request.size)
    if request.source == "":
        raise UsageError("--from: is empty; give an archive, a folder or a URL")
    one_of("test-split", request.test_split, ["test", "val", "none"])
    other = forms.reader(request) if dataset.any_form else None
    contents, request = _contents(request, dataset, other)
    if request.test_split == "val":
        if contents.val is None:
            raise UsageError(f"--test-split val: {request.source or name} has no val split; leave it out")
        contents = replace(contents, test=contents.val, val=None)
    if request.test_split == "none":
        if val is not None:
            raise UsageError(f"--val {val}: --test-split none leaves only train; leave one of the two out")
        _report_left_out(request, contents)
        nothing = Part(contents.train.images[:0], contents.train.labels[:0])
        contents = replace(contents, test=nothing, val=nothing)
    if contents.val is not None and val is not None:
        raise UsageError(f"--val {val}: {name} has a val split of its own; leave --val out")
    for flag, number in (("--val", val), ("--train-limit", train_limit)):
        if number is not None and not len(contents.train.labels):
            raise UsageError(f"{flag} {number}: {request.source or name} has no train split; leave {flag} out")
    counts = {"val": val, "train_limit": train_limit, "test_limit": test_limit}
    rows = "each split of the source, in their order" if other else dataset.rows
    return replace(_split(request, dataset, contents, counts), rows=rows)


def _split(request: Request, dataset: Dataset, contents: Contents, counts: Mapping[str, int | None]) -> ArrayData:
    """Return the splits of a source, limited to the counts, with the defaults of the dataset."""
    name, start = request.name, request.source or request.name
    customs = {"eps": dataset.eps, "augment": dataset.augment, "model": dataset.model}
    customs |= {"mean": dataset.mean, "std": dataset.std} if dataset.mean and dataset.std else {}
    contents = replace(contents, customs={**customs, **contents.customs} if dataset.model else contents.customs)
    contents, duplicates = examined(contents, request.drop_leaks, start)
    report_duplicates(duplicates, start, request.notice)
    for said in arrays.oddities(contents):
        request.say(f"{start}: {said}")
    _report_order(request, contents.classes, start)
    parts = split_up(contents, counts.get("val"), dataset.val, dataset.most, start)
    kept, cut = limited(parts, {split: counts.get(f"{split}_limit") for split in ("train", "test")})
    info = described(name.rpartition(":")[2], contents, parts, cut)
    return replace(arrays.in_memory(kept, info, name), duplicates=duplicates)


def _report_left_out(request: Request, contents: Contents) -> None:
    """Print a notice that all images are train images, apart from the val and test splits of the source.

    Raises:
        UsageError: there are no train images.
    """
    start = request.source or request.name
    if not len(contents.train.labels):
        raise UsageError(f"--test-split none: {start} has no train split; leave it out")
    parts = {"val": contents.val, "test": contents.test}
    left = [f"{len(part.labels)} {split}" for split, part in parts.items() if part is not None and len(part.labels)]
    there = f"without its {' and '.join(left)} images, all" if left else "all images"
    request.say(f"{start}: {there} are train images; use them with bsk train --extra")


def _report_order(request: Request, classes: Sequence[str], start: str) -> None:
    """Print a notice if all class names are numbers, but not in their order: 0, 1, 10, 11, 2, ..."""
    numbers = [int(name) for name in classes if name.isascii() and name.isdecimal() and len(name) < 19]
    if len(numbers) == len(classes) and numbers != sorted(numbers):
        place = next(i for i, number in enumerate(numbers) if number != sorted(numbers)[i])
        request.say(
            f"{start}: the class names are numbers in the order of text, so that class {place} is {classes[place]!r}; "
            "for a network whose outputs are in their own order use bsk evaluate --class-order"
        )


def _contents(request: Request, dataset: Dataset, other: forms.Reader | None) -> tuple[Contents, Request]:
    """Return the contents of the source, read by `other` if given, and the request with its test split."""
    name = request.name
    for flag, given in {"--size": request.size, "--labels": request.labels and other is None}.items():
        if given and name != "folder" and not (flag == "--labels" and name == "cifar100"):
            raise UsageError(
                f"{flag}: {name} has labels and a fixed image size; leave it out, or prepare the source as folder"
            )
    if other is None:
        return dataset.read(request), request
    if dataset.tested_on != "test":
        request = replace(request, test_split=dataset.tested_on)
    contents = other(request)
    shape = contents.train.images.shape[1:]
    known = len(contents.classes) == dataset.classes or request.labels
    if dataset.train and not (shape == dataset.shape and known):
        found = f"{len(contents.classes)} classes of images {shape}, expected {dataset.classes} of {dataset.shape}"
        raise InputError(f"{request.source}: {found} for {name}; use: bsk prepare-data folder --from {request.source}")
    return contents, request


def expected(name: str, path: Path, train_limit: int | None = None, test_limit: int | None = None) -> DataFile:
    """Return what `prepare` would write to `path` for the official files, without reading them and without images.

    Raises:
        UsageError: an unknown name, or a dataset whose size is not known beforehand.
    """
    dataset = dataset_named(name)
    if not dataset.train:
        raise UsageError(f"{path}: the size of {name} is not known beforehand; run bsk prepare-data {name} first")
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


def open_dataset(dataset: str, path: Path | None = None, flag: str = "--dataset") -> DataFile:
    """Return prepared data by name, given by `flag`, or by path if one is given.

    Raises:
        InputError: the file is missing or invalid.
        UsageError: there is no dataset of that name.
    """
    found = path or data_path(dataset)
    if path is None and not found.exists() and dataset not in DATASETS:
        raise UsageError(f"{flag} {dataset}: no {found}; {nearest(dataset, list(DATASETS))}")
    return open_data(found)


def opened(data: str | Path | DataFile, flag: str = "--dataset") -> DataFile:
    """Return prepared data, given by name, by path, or opened already; messages about a name begin with `flag`.

    Raises:
        InputError: the file is missing or invalid.
        UsageError: there is no dataset of that name, or it is neither of these.
    """
    if isinstance(data, DataFile):
        return data
    if not isinstance(data, (str, Path)):
        raise UsageError(f"data: {kind_of(data)}, expected prepared data; bsk.from_arrays makes it of arrays")
    named = isinstance(data, str) and not data.endswith(".safetensors") and not Path(data).is_file()
    return open_dataset(str(data), flag=flag) if named else open_data(Path(data))
