"""Images that a data set has more than once, in one split or in two, and training images that are test images too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bsk.data.order import Labels, image_hashes
from bsk.data.splits import Contents, Notice
from bsk.data.store import Part
from bsk.errors import InputError
from bsk.records.words import counted


@dataclass(frozen=True)
class Copies:
    """How many images repeat others, pixel by pixel, and how many of these have another label than they."""

    images: int
    relabelled: int


@dataclass(frozen=True)
class Duplicates:
    """Copies by "train", "val" or "test", within each, and by "train val", "train test" and "val test": also in both.

    Within a split the first of equal images is no copy. `dropped` counts the images that were left out of train and
    val; None where nobody asked for it.
    """

    counts: Mapping[str, Copies] = field(default_factory=dict)
    dropped: int | None = None

    def line(self) -> str:
        """Return what a person should hear of them, "" where there is nothing."""
        found = []
        for name, each in self.counts.items():
            own, _, other = name.partition(" ")
            labels = f" ({each.relabelled} under another label)" if each.relabelled else ""
            where = f"of {other} also in {own}" if other else f"repeated within {own}"
            found.append(f"{where}: {counted(each.images, 'image')}{labels}")
        if any(" " in name for name in self.counts):
            left = (
                f"{self.dropped} left out of train and val"
                if self.dropped is not None
                else "--drop-leaks leaves these out of train and val"
            )
            found.append(left)
        return "; ".join(found)


def examined(contents: Contents, drop: bool, start: str) -> tuple[Contents, Duplicates]:
    """Return what a source has, its images hashed once for all that asks for it, and which of them repeat others.

    With `drop` the training images that are also in val or test are left out; messages begin with `start`.

    Raises:
        InputError: no training images are left.
    """
    splits = {"train": contents.train, "val": contents.val, "test": contents.test}
    hashed = {name: _hashed(part) for name, part in splits.items() if part is not None}
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
        raise InputError(f"{start}: all training images are test images too; leave --drop-leaks out, or give others")
    val, more = (None, 0) if "val" not in hashed else _without(hashed["val"], [hashed["test"]])
    val = None if val is not None and more and not len(val.ordered()) else val  # then one is held out of train
    return replace(contents, train=train, val=val), Duplicates(counts, dropped + more)


def tell(duplicates: Duplicates, start: str, notice: Notice | None) -> None:
    """Pass on in one line which images repeat others, if anything does."""
    if notice and (line := duplicates.line()):
        notice(f"{start}: {line}")


def _hashed(part: Part) -> Part:
    return part if part.hashes is not None else replace(part, hashes=_all_hashes(part))


def _all_hashes(part: Part) -> list[bytes]:
    """Return a hash for each image of the array, empty where the part has not the image."""
    found = [b""] * len(part.labels)
    rows = _own(part)
    for row, each in zip(rows, image_hashes(part.images, rows), strict=True):
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
    """Return the images of a part that are in none of the others, and how many are left out."""
    assert part.hashes is not None
    known = {each for other in others for each in _rows(other)[0]}
    rows = _own(part)
    kept = [row for row in rows if part.hashes[row] not in known]
    return replace(part, rows=np.array(kept, np.int64)), len(rows) - len(kept)
