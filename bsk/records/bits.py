"""Outcomes with one bit per example (which examples a model gets right), as text in a record."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bsk.errors import InputError


def encode_correct(correct: NDArray[np.bool_]) -> str:
    """Return (n,) booleans as base64 of `numpy.packbits`: eight examples per byte, the first in the highest bit."""
    return base64.b64encode(np.packbits(np.asarray(correct, dtype=bool)).tobytes()).decode("ascii")


def decode_correct(text: str, n: int) -> NDArray[np.bool_]:
    """Return the (n,) booleans that `encode_correct` encoded.

    Raises:
        InputError: the text is not base64, or not of n examples.
    """
    try:
        packed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("correct: expected base64, found other characters; evaluate again") from error
    check_packed(packed, n)
    (correct,) = unpacked([packed], n)
    return np.asarray(correct)


def check_packed(packed: bytes, n: int) -> None:
    """Check that packed bytes are those of n examples.

    Raises:
        InputError: the number of bytes is wrong, or bits are set after the last example.
    """
    if len(packed) != -(-n // 8):
        raise InputError(f"correct: expected {-(-n // 8)} bytes for {n} examples, found {len(packed)}; evaluate again")
    if n % 8 and packed[-1] & (255 >> n % 8):
        raise InputError(f"correct: bits are set after the last of {n} examples; evaluate again")


def unpacked(rows: Sequence[bytes], n: int) -> NDArray[np.bool_]:
    """Return the (k, n) booleans of k packed rows of n examples."""
    packed = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), -1)
    return np.unpackbits(packed, axis=1, count=n).view(np.bool_)
