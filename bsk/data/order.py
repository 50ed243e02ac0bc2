"""The order of examples and the choice of held-out images, as functions of labels and pixels only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Rows = NDArray[np.int64]
Images = NDArray[np.uint8]


def bytes_of(images: NDArray[Any]) -> Images:
    """Return images as uint8; floats in [0, 1] are rounded to 256 levels."""
    return images if images.dtype == np.uint8 else np.rint(images * 255).astype(np.uint8)


def balanced_order(labels: Labels) -> Rows:
    """Return the rows, (N,), sorted by (occurrence number within the class, class).

    Every prefix is as balanced as the classes allow: the k-th example of each class comes before the (k+1)-th of any
    class.
    """
    return np.lexsort((labels, occurrence(labels))).astype(np.int64)


def occurrence(labels: Labels) -> Rows:
    """Return for each row the number of earlier rows with the same label, (N,)."""
    by_class = np.argsort(labels, kind="stable")
    grouped = labels[by_class]
    numbers = np.empty(len(labels), np.int64)
    numbers[by_class] = np.arange(len(labels)) - np.searchsorted(grouped, grouped)
    return numbers


def image_hashes(images: Images, rows: Iterable[int] | None = None) -> list[bytes]:
    """Return the SHA-256 of the pixels of each image (N, C, H, W), or of the given rows only."""
    chosen = range(len(images)) if rows is None else rows
    return [sha256(images[row].tobytes()).digest() for row in chosen]


def held_out(hashes: Sequence[bytes], labels: Labels, n: int) -> Rows:
    """Return the rows, ascending, of up to n images to hold out: those with the smallest hashes in each class.

    Each class contributes equally, but a small class at most twice its proportional share of n, and never its last
    image. An image that occurs more than once is never held out, so that no copy stays in train. If these rules leave
    fewer than n images, fewer are returned.
    """
    copies = Counter(hashes)
    once = sorted((row for row in range(len(hashes)) if copies[hashes[row]] == 1), key=hashes.__getitem__)
    rows = np.array(once, np.int64)
    found = labels[rows]
    twice = -(-2 * n * np.bincount(found) // max(1, len(rows)))
    most = np.minimum(twice, np.bincount(labels)[: len(twice)] - 1)
    rows = rows[occurrence(found) < most[found]]
    return np.sort(rows[balanced_order(labels[rows])][:n])
