"""The pickles of CIFAR, read without running code: only what these files contain is allowed."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import IO, Any, ClassVar

import numpy as np

from bsk.compat import python_unpickler
from bsk.data.order import Images
from bsk.errors import InputError

LIBRARY: Any = python_unpickler().dispatch  # opcode -> implementation
OPCODES = (
    *("PROTO", "STOP", "MARK", "POP", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"),
    *("STRING", "SHORT_BINSTRING", "BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES"),
    *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "REDUCE", "BUILD"),
)
GROWTH, ROOM = 2, 1 << 20  # a pickle may allocate GROWTH times its size, plus ROOM bytes
OPCODE = 128  # bytes charged per opcode; the most expensive make a dictionary or a memo entry
MAKING = ("UNICODE", "REDUCE")  # opcodes that are also charged for their result, which may exceed what they read
LINE = 4096  # bytes of a text argument, at most


class Array:
    """A stand-in for a numpy array during unpickling, which only stores its state."""

    state: Any = None


class Dtype:
    """A stand-in for a numpy dtype."""

    def __init__(self, code: object) -> None:
        """Store the type code, such as u1."""
        self.code = code


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes as {encoding!r:.40}")
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): lambda *_: Array(),
    ("numpy", "dtype"): lambda code, *_: Dtype(code),
    ("_codecs", "encode"): _latin1,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    ALLOWED[_module, "_reconstruct"] = lambda *_: Array()


class Unpickler(python_unpickler()):  # type: ignore[misc] # its type is not public
    """Python's pure-Python unpickler, restricted to the opcodes and callables of CIFAR's files.

    The C implementation allocates what a pickle announces rather than what it contains, and hashes nested keys
    without a limit.
    """

    dispatch: ClassVar[Any] = {}  # opcode -> implementation, filled below
    stack: list[Any]  # of the library: what was read since the last mark
    read: Callable[[int], bytes]

    def __init__(self, file: IO[bytes], size: int) -> None:
        """Read a pickle of `size` bytes, which limit what it may allocate."""
        super().__init__(_Reader(file, size), encoding="bytes")
        self.left = GROWTH * size + ROOM

    def charge(self, made: int) -> None:
        """Subtract allocated bytes from the budget."""
        self.left -= made
        if self.left < 0:
            raise pickle.UnpicklingError("it allocates more than any data file of CIFAR")

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for what CIFAR's pickles name; raise an error for everything else."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'!r:.60}, which no image data needs")
        return ALLOWED[module, name]


def _build(self: Unpickler) -> None:
    state, made = self.stack.pop(), self.stack[-1]
    if isinstance(made, Array):
        made.state = state
    elif not isinstance(made, Dtype):
        raise pickle.UnpicklingError("it sets the state of something that is not an array")


def _binunicode(self: Unpickler) -> None:
    """Reject characters beyond U+00FF before decoding: a single one makes every character take four bytes."""
    text = self.read(int.from_bytes(self.read(4), "little"))
    if not text.isascii() and np.frombuffer(text, np.uint8).max() > 0xC3:
        raise pickle.UnpicklingError("a text outside Latin-1")
    self.stack.append(str(text, "utf-8"))


def _only_text(keys: list[Any]) -> None:
    """Reject other keys before they are hashed: a deeply nested key would exhaust the stack."""
    if not all(type(key) in (str, bytes) for key in keys):
        raise pickle.UnpicklingError("a key that is not text")


def _setitem(self: Unpickler) -> None:
    _only_text(self.stack[-2:-1])
    LIBRARY[pickle.SETITEM[0]](self)


def _setitems(self: Unpickler) -> None:
    _only_text(self.stack[::2])
    LIBRARY[pickle.SETITEMS[0]](self)


def _dict(self: Unpickler) -> None:
    _only_text(self.stack[::2])
    LIBRARY[pickle.DICT[0]](self)


OWN: dict[str, Callable[[Unpickler], None]] = {
    "BUILD": _build,
    "BINUNICODE": _binunicode,
    "SETITEM": _setitem,
    "SETITEMS": _setitems,
    "DICT": _dict,
}


def _charged(name: str) -> tuple[int, Callable[[Unpickler], None]]:
    """Return an opcode and its implementation, which charges the budget."""
    code: int = getattr(pickle, name)[0]
    act = OWN.get(name, LIBRARY[code])

    def charged(self: Unpickler) -> None:
        act(self)
        self.charge(OPCODE + (sys.getsizeof(self.stack[-1]) if name in MAKING else 0))

    return code, charged


Unpickler.dispatch.update(map(_charged, OPCODES))


class _Reader:
    """Reads no more than the file contains, whatever the pickle announces."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size = file, size

    def read(self, n: int) -> bytes:
        if not 0 <= n <= self.size:
            raise pickle.UnpicklingError("it announces more than any data file of CIFAR")
        found = self.file.read(n)
        if len(found) < n:
            raise pickle.UnpicklingError("it ends too early")
        return found

    def readline(self) -> bytes:
        found = self.file.readline(LINE)
        if not found.endswith(b"\n"):
            raise pickle.UnpicklingError("a line without an end")
        return found


def load(file: IO[bytes], size: int, place: str) -> dict[str, Any]:
    """Return the dictionary that a pickle of `size` bytes holds; arrays as `Array`, old strings as bytes.

    Raises:
        InputError: the pickle is corrupt, asks to run code, or is not a dictionary; `place` names the file.
    """
    try:
        found = Unpickler(file, size).load()
    except InputError:
        raise
    except Exception as error:  # hostile bytes can raise anything
        reason = f"opcode {error}" if isinstance(error, KeyError) else f"{error}".split("\n")[0][:120]
        raise InputError(f"{place}: not a pickle of CIFAR ({reason}); use the official archive") from error
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise InputError(f"{place}: expected a pickled dictionary, found {kind}; use the official archive")
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in found.items()}


def pixels(array: object, place: str) -> Images:
    """Return an array (N, 3072) uint8 from a pickle without copying it.

    Raises:
        InputError: it is another array.
    """
    try:
        if isinstance(array, Array):
            _, (n, width), dtype, fortran, raw = array.state
            if width == 3072 and dtype.code in (b"u1", "u1") and isinstance(raw, bytes):
                return np.frombuffer(raw, np.uint8).reshape((n, width), order="F" if fortran else "C")
    except (AttributeError, TypeError, ValueError):
        pass
    raise InputError(f"{place}: data is not an array (N, 3072) of uint8; use the official archive")
