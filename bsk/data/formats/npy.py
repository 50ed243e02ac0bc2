"""Arrays in numpy's .npy format, read from start to end, a few megabytes at a time."""

from __future__ import annotations

import ast
import contextlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bsk.data.arrays import channels_last, images_of
from bsk.data.order import Images, bytes_of
from bsk.data.store import CHUNK
from bsk.data.tree import Tree
from bsk.errors import InputError

MAGIC = b"\x93NUMPY"
HEADER = 10_000  # bytes of a header, at most, as in numpy
_LENGTH = {1: 2, 2: 4, 3: 4}  # bytes of the header length, by format version


@dataclass(frozen=True)
class ArrayFile:
    """An array that can be read once, from start to end; `where` is the beginning of messages."""

    where: str
    file: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    def blocks(self, n: int) -> Iterator[NDArray[Any]]:
        """Yield blocks of at most n rows; an array in Fortran order is read completely first.

        Raises:
            InputError: the file is truncated.
        """
        if self.fortran:
            whole = self._next(self.shape[::-1]).T
            yield from (whole[start : start + n] for start in range(0, len(whole), n))
            return
        for start in range(0, self.shape[0], n):
            yield self._next((min(n, self.shape[0] - start), *self.shape[1:]))

    def whole(self) -> NDArray[Any]:
        """Return the whole array; see `blocks`."""
        return next(self.blocks(max(1, self.shape[0])), np.empty(self.shape, self.dtype))

    def _next(self, shape: tuple[int, ...]) -> NDArray[Any]:
        size = math.prod(shape) * self.dtype.itemsize
        found = self.file.read(size)
        if len(found) != size:
            raise InputError(f"{self.where}: ends too early; check it, or replace it")
        return np.frombuffer(found, self.dtype).reshape(shape)


@contextlib.contextmanager
def open_array(tree: Tree, name: str) -> Iterator[ArrayFile]:
    """Open an array of numbers or text; only its header is read at first.

    Raises:
        InputError: it is not an array, corrupt, has Python objects, or its size differs from its header.
    """
    where = tree.where(name)
    with tree.open(name) as file:
        shape, fortran, dtype, length = _header(file, where)
        if dtype.hasobject:
            found = f"{where}: has Python objects, which need pickle"
            raise InputError(f"{found}; pickles are not read, save it as an array of numbers")
        expected = math.prod(shape) * dtype.itemsize
        if tree.sizes[name] - length != expected or min(shape, default=0) < 0:
            found = f"{where}: its header says {shape} of {dtype}, but it has {tree.sizes[name] - length} bytes"
            raise InputError(f"{found}; check it, or save it again")
        yield ArrayFile(where, file, shape, dtype, fortran)


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, Fortran order, type and header size of an array."""
    magic = file.read(8)
    version = magic[6] if magic.startswith(MAGIC) and len(magic) == 8 else 0
    if version not in _LENGTH:
        raise InputError(f"{where}: not an array written by numpy.save; save it again")
    length = file.read(_LENGTH[version])
    size = int.from_bytes(length, "little")
    if size > HEADER:
        raise InputError(f"{where}: a header of {size} bytes, expected at most {HEADER}; save it again")
    try:
        text = file.read(size).decode("utf-8" if version == 3 else "latin1")
        found = ast.literal_eval(re.sub(r"(?<=\d)L", "", text))  # Python 2 wrote long integers this way
        shape, fortran, dtype = found["shape"], found["fortran_order"], npy.descr_to_dtype(found["descr"])
    except (ValueError, TypeError, SyntaxError, LookupError, RecursionError, MemoryError) as error:
        raise InputError(f"{where}: its header is invalid; save it again with numpy.save") from error
    if not isinstance(shape, tuple) or not all(type(each) is int for each in shape) or type(fortran) is not bool:
        raise InputError(f"{where}: its header is invalid; save it again with numpy.save")
    return shape, fortran and len(shape) > 1, dtype, len(magic) + len(length) + size


def pixels_of(array: ArrayFile) -> Images:
    """Return images (N, C, H, W) uint8 from an array (N, C, H, W), (N, H, W, C) or (N, H, W), uint8 or in [0, 1].

    The array is converted block by block, so peak memory is little more than the result.

    Raises:
        InputError: see `bsk.data.arrays.images_of`.
    """
    if len(array.shape) not in (3, 4) or 0 in array.shape:
        raise InputError(f"{array.where}: shape {array.shape}, expected (N, C, H, W), (N, H, W, C) or (N, H, W)")
    n, *sides = array.shape
    last = len(sides) == 3 and channels_last(array.shape, array.where)
    sides = [sides[2], *sides[:2]] if last else [1, *sides][-3:]
    whole, done = np.empty((n, *sides), np.uint8), 0
    for block in array.blocks(max(1, CHUNK // (math.prod(sides) * array.dtype.itemsize))):
        if array.dtype != np.uint8:
            block = bytes_of(images_of(block, array.where))
        elif last:
            block = block.transpose(0, 3, 1, 2)
        whole[done : done + len(block)] = block.reshape(-1, *sides)
        done += len(block)
    return whole
