"""The digits of scikit-learn: 1,797 real images of 8x8 pixels that need no download."""

from __future__ import annotations

import hashlib

import numpy as np

from bsk.data.order import held_out, image_hashes
from bsk.data.splits import Contents, Request
from bsk.data.store import PUBLISHED, Part
from bsk.errors import UsageError

TEST = 397
NAME, OFFICIAL = PUBLISHED["digits"]  # OFFICIAL is a hash of the pixels, then the labels


def read(request: Request) -> Contents:
    """Return the digits, images (N, 1, 8, 8): 397 test images, chosen by smallest hash, and the rest as train.

    Pixel values v in 0..16 become round(v * 255 / 16).
    Source: Alpaydin and Kaynak 1998, UCI; `sklearn.datasets.load_digits`.

    Raises:
        UsageError: a source is given.
    """
    if request.source is not None:
        raise UsageError("--from: the digits come with scikit-learn; leave it out, or prepare another dataset")
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    hashes = image_hashes(images)
    test = held_out(hashes, labels, TEST)
    train = np.setdiff1d(np.arange(len(labels)), test)
    found = f"sha256:{hashlib.sha256(images.tobytes() + labels.astype('<i8').tobytes()).hexdigest()}"
    return Contents(
        classes=[str(digit) for digit in range(10)],
        train=Part(images, labels, train, hashes=hashes),
        test=Part(images, labels, test, hashes=hashes),
        files={NAME: found},
        official=found == OFFICIAL,
    )
