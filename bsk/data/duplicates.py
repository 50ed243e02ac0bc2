"""Duplicate images, within a split or across splits, such as training images that are also test images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bsk.data.order import Labels, bytes_of, image_hashes
from bsk.data.splits import Contents, Notice
from bsk.data.store import Part
from bsk.errors import InputError
from bsk.records.words import counted


@dataclass(frozen=True)
class Copies:
    """The number of images that repeat another one pixel by pixel, and how many of them have a different label."""

    images: int
    relabelled: int


@dataclass(frozen=True)
class Duplicates:
    """The duplicates of a dataset.

    Attributes:
        counts: copies within "train", "val" and "test", and across "train val", "train test" and "val test". Within
            a split, the first of several equal images is not a copy.
        dropped: images removed from train and val; None if this was not requested.
    """

    counts: Mapping[str, Copies] = field(default_factory=dict)
    dropped: int | None = None

    def line(self, advice: str = "--drop-leaks") -> str:
        """Return one readable line, or "" if there are no duplicates; `advice` is what removes those across splits."""
        found = []
        for name, each in self.counts.items():
            own, _, other = name.partition(" ")
            labels = f" ({each.relabelled} with a different label)" if each.relabelled else ""
            where = f"of {other} also in {own}" if other else f"repeated within {own}"
            found.append(f"{where}: {counted(each.images, 'image')}{labels}")
        if any(" " in name for name in self.counts):
            removed = (
                f"{self.dropped} removed from train and val"
                if self.dropped is not None
                else f"{advice} removes these from train and val"
            )
            found.append(removed)
        return "; ".join(found)


def examined(contents: Contents, drop: bool, start: str) -> tuple[Contents, Duplicates]:
    """Return the contents of a source with the hashes of its images, and its duplicates.

    With `drop`, training images that are also in val or test are removed; messages begin with `start`.

    Raises:
        InputError: no training images are left.
    """
    splits = {"train": contents.train, "val": contents.val, "test": contents.test}
    given = {name: part for name, part in splits.items() if part is not None}
    mixed = len({part.images.dtype for part in given.values() if len(part.labels)}) > 1
    hashed = {name: _hashed(part, mixed) for name, part in given.items()}
    found = {name: _within(*_rows(part)) for name, part in hashed.items()}
    for name in [each for each in hashed if each != "train"]:
        found[f"train {name}"] = _across(*_rows(hashed[name]), *_rows(hashed["train"]))
    if "val" in hashed:
        found["val test"] = _across(*_rows(hashed["test"]), *_rows(hashed["val"]))
    counts = {name: copies for name, copies in found.items() if copies.images}
    contents = replace(contents, train=hashed["train"], test=hashed["test"], val=hashed.get("val"))
    if not drop:
        return contents, Duplicates(counts)
    train, dropped = _without(hashed["train"], [part for name, part in hashed.items() if name != "train"])
    if dropped and not len(train.ordered()):
        raise InputError(
            f"{start}: all training images are also test images; leave --drop-leaks out, or give other images"
        )
    val, more = (None, 0) if "val" not in hashed else _without(hashed["val"], [hashed["test"]])
    val = None if val is not None and more and not len(val.ordered()) else val  # then val is held out of train
    return replace(contents, train=train, val=val), Duplicates(counts, dropped + more)


def report_duplicates(duplicates: Duplicates, start: str, notice: Notice | None, advice: str = "--drop-leaks") -> None:
    """Report duplicates in one line, if there are any."""
    if notice and (line := duplicates.line(advice)):
        notice(f"{start}: {line}")


def _hashed(part: Part, mixed: bool) -> Part:
    return part if part.hashes is not None else replace(part, hashes=_all_hashes(part, mixed))


def _all_hashes(part: Part, mixed: bool) -> list[bytes]:
    """Return a hash per image of the array, empty for images that are not in the part.

    Images of floats and of bytes are `mixed` among the splits: then floats are compared by their levels.
    """
    found = [b""] * len(part.labels)
    rows, images = _own(part), bytes_of(part.images) if mixed else part.images
    for row, each in zip(rows, image_hashes(images, rows), strict=True):
        found[row] = each
    return found


def _own(part: Part) -> Sequence[int]:
    return range(len(part.labels)) if part.rows is None else np.sort(part.rows).tolist()


def _rows(part: Part) -> tuple[list[bytes], Labels]:
    """Return the hashes and labels of a part's images, in their order in the source."""
    assert part.hashes is not None
    rows = _own(part)
    return [part.hashes[row] for row in rows], part.labels[list(rows)]


def _within(hashes: Sequence[bytes], labels: Labels) -> Copies:
    first: dict[bytes, int] = {}
    copies = [(row, first[each]) for row, each in enumerate(hashes) if first.setdefault(each, row) != row]
    return Copies(len(copies), sum(int(labels[row] != labels[before]) for row, before in copies))


def _across(hashes: Sequence[bytes], labels: Labels, others: Sequence[bytes], their: Labels) -> Copies:
    known: dict[bytes, set[int]] = defaultdict(set)
    for each, label in zip(others, their.tolist(), strict=True):
        known[each].add(label)
    shared = [(known[each], int(label)) for each, label in zip(hashes, labels, strict=True) if each in known]
    return Copies(len(shared), sum(label not in theirs for theirs, label in shared))


def _without(part: Part, others: Sequence[Part]) -> tuple[Part, int]:
    """Return the part without images that are in one of the others, and how many are removed."""
    assert part.hashes is not None
    known = {each for other in others for each in _rows(other)[0]}
    rows = _own(part)
    kept = [row for row in rows if part.hashes[row] not in known]
    return replace(part, rows=np.array(kept, np.int64)), len(rows) - len(kept)
