"""Numbers of numpy in the pickles of torch.save, read without numpy's own unpickling.

Training scripts store `best_acc` as a numpy.float64, or a confusion matrix, beside the weights. torch's safe reader
builds them with the functions of this module, which accept only numbers; `rehearse` checks beforehand that nothing else
is requested.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Collection
from io import BytesIO
from typing import Any

import numpy as np

from bsk.compat import python_unpickler

NUMBERS = re.compile(r"[biuf][1248]")  # dtypes, as b1 and f8
NUMPY = re.compile(
    r"numpy (dtype|ndarray)|numpy\._?core\.multiarray (scalar|_reconstruct)|_codecs encode|(builtins|__builtin__) bytes"
)
CALLS = "torch._tensor _rebuild_from_type_v2"  # calls its argument
ENCODE = ("_codecs", "encode")  # the bytes of a number as text; torch calls Python's own function, with any codec
BYTES = 1 << 20  # maximum of all numbers in a pickle, since one text in it can be encoded again and again


class Dtype:
    """Stands in for numpy.dtype, restricted to numbers."""

    def __init__(self, code: object, *_: object) -> None:
        """Take a code such as f8.

        Raises:
            pickle.UnpicklingError: it is not the code of a number.
        """
        if not isinstance(code, str) or not NUMBERS.fullmatch(code):
            raise pickle.UnpicklingError(f"numpy's {code!r:.20}, which is not a numeric dtype")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take the byte order from numpy's state of a dtype."""
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("numbers with an unknown byte order")
        self.order = state[1]

    def read(self, raw: object) -> np.ndarray[Any, Any]:
        """Return the numbers stored in some bytes, without copying."""
        if not isinstance(raw, bytes):
            raise pickle.UnpicklingError("numbers that are not stored as bytes")
        return np.frombuffer(raw, np.dtype(self.order + self.code))


class Array:
    """Stands in for numpy.ndarray.

    Attributes:
        numbers: the array.
    """

    numbers: np.ndarray[Any, Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take numpy's state of an array of numbers."""
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, Dtype):
            raise pickle.UnpicklingError("an array without a dtype")
        self.numbers = dtype.read(raw).reshape(shape, order="F" if fortran else "C")


def scalar(dtype: Dtype, raw: object) -> bool | int | float:
    """Return the Python number of a numpy scalar with these bytes."""
    number: bool | int | float = dtype.read(raw).reshape(()).item()
    return number


def reconstruct(*_: object) -> Array:
    """Return an empty array, whose state follows in the pickle."""
    return Array()


def no_bytes() -> bytes:
    """Return the bytes of an empty array, which pickle protocol 2 writes as a call of `bytes`."""
    return b""


STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): Dtype,
    ("numpy", "ndarray"): Array,
    ("builtins", "bytes"): no_bytes,
    ("__builtin__", "bytes"): no_bytes,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    STAND_INS[_module, "scalar"] = scalar
    STAND_INS[_module, "_reconstruct"] = reconstruct


class _Anything:
    """Stands in for any object that torch creates."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Dict(_Anything, dict[Any, Any]):
    """Stands in for an OrderedDict or a Counter."""


class _Rehearsal(python_unpickler()):  # type: ignore[misc] # the type is private
    """Reads a pickle as torch will, with stand-ins for everything except numbers."""

    def __init__(self, text: bytes) -> None:
        super().__init__(BytesIO(text), encoding="bytes")
        self.left = BYTES

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for any name; the names have been checked before."""
        if (module, name) == ENCODE:
            return self._encode
        return STAND_INS.get((module, name), _Dict if module == "collections" else _Anything)

    def persistent_load(self, pid: object) -> _Anything:
        """Return a stand-in for a storage."""
        return _Anything()

    def _encode(self, text: object, codec: object) -> bytes:
        """Return bytes that pickle protocol 2 stores as text, up to the size limit."""
        if type(text) is not str or codec not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError("bytes that are not encoded as Latin-1")
        self.left -= len(text)
        if self.left < 0:
            raise pickle.UnpicklingError(f"numbers of more than {BYTES} bytes")
        return text.encode("latin1")


def refused(names: Collection[str]) -> str | None:
    """Return which of a pickle's names, as `module name`, is not allowed with the others: bytes only with numpy."""
    of_bytes = [name for name in names if NUMPY.fullmatch(name) and not name.startswith("numpy")]
    if not any(name.startswith("numpy") for name in names):
        return min(of_bytes, default=None)
    return CALLS if CALLS in names else None


def rehearse(text: bytes) -> None:
    """Read one pickle, whose names are all allowed, without torch, numpy's functions or anything that could run code.

    Raises:
        pickle.UnpicklingError: it uses numpy's names for anything but numbers; a corrupt pickle can raise any error.
    """
    _Rehearsal(text).load()
