"""Which examples come first, and which are held out: functions of labels and pixels alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Rows = NDArray[np.int64]
Images = NDArray[np.uint8]


def balanced_order(labels: Labels) -> Rows:
    """Return the rows, (N,), sorted by (occurrence number within the class, class).

    Any prefix is as balanced as the classes allow: the k-th example of every class comes before the (k+1)-th
    of any.
    """
    return np.lexsort((labels, occurrence(labels))).astype(np.int64)


def occurrence(labels: Labels) -> Rows:
    """Return how many earlier rows have the same label, (N,)."""
    by_class = np.argsort(labels, kind="stable")
    grouped = labels[by_class]
    numbers = np.empty(len(labels), np.int64)
    numbers[by_class] = np.arange(len(labels)) - np.searchsorted(grouped, grouped)
    return numbers


def image_hashes(images: Images, rows: Iterable[int] | None = None) -> list[bytes]:
    """Return the SHA-256 of the pixel bytes of each image, or of those of some rows; images (N, C, H, W)."""
    chosen = range(len(images)) if rows is None else rows
    return [sha256(images[row].tobytes()).digest() for row in chosen]


def held_out(hashes: Sequence[bytes], labels: Labels, n: int) -> Rows:
    """Return the rows, ascending, of up to n images to hold out: in each class those of the smallest hash.

    Every class gives the same number, but a small class at most twice its share of n, and never its last image.
    An image of which the set holds an identical copy is never taken, so that no copy of a held-out image stays
    behind. Where all this leaves fewer than n, fewer are returned.
    """
    copies = Counter(hashes)
    once = sorted((row for row in range(len(hashes)) if copies[hashes[row]] == 1), key=hashes.__getitem__)
    rows = np.array(once, np.int64)
    found = labels[rows]
    twice = -(-2 * n * np.bincount(found) // max(1, len(rows)))
    most = np.minimum(twice, np.bincount(labels)[: len(twice)] - 1)
    rows = rows[occurrence(found) < most[found]]
    return np.sort(rows[balanced_order(labels[rows])][:n])
