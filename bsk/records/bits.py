"""One bit an example: which examples a model got right, as text in a record."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray

from bsk.errors import InputError


def encode_correct(correct: NDArray[np.bool_]) -> str:
    """Return the (n,) booleans as base64 of `numpy.packbits`: eight examples a byte, the first in the highest bit."""
    return base64.b64encode(np.packbits(np.asarray(correct, dtype=bool)).tobytes()).decode("ascii")


def decode_correct(text: str, n: int) -> NDArray[np.bool_]:
    """Return the n booleans that `encode_correct` wrote.

    Raises:
        InputError: it is not base64, or not of n examples.
    """
    try:
        packed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("correct: expected base64, found other characters; evaluate again") from error
    if len(packed) != -(-n // 8):
        raise InputError(f"correct: expected {-(-n // 8)} bytes for {n} examples, found {len(packed)}; evaluate again")
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8))
    if bits[n:].any():
        raise InputError(f"correct: bits are set after the last of {n} examples; evaluate again")
    return bits[:n].astype(bool)
