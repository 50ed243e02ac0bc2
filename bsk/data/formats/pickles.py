"""The pickles of CIFAR, read without running anything: only what those files hold is admitted."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import IO, Any, ClassVar

import numpy as np

from bsk.compat import python_unpickler
from bsk.data.order import Images
from bsk.errors import InputError

LIBRARY: Any = python_unpickler().dispatch  # opcode -> what it does
OPCODES = (
    *("PROTO", "STOP", "MARK", "POP", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"),
    *("STRING", "SHORT_BINSTRING", "BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES"),
    *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "REDUCE", "BUILD"),
)
GROWTH, ROOM = 2, 1 << 20  # bytes that a pickle may make: so many times its own, and so many more
OPCODE = 128  # bytes charged for any opcode, of which the dearest make a dictionary or an entry of the memo
MAKING = ("UNICODE", "REDUCE")  # opcodes that are charged what they make too: it may be more than they read
LINE = 4096  # bytes of a text argument


class Array:
    """Stands in for a numpy array while unpickling: it keeps the state it is given and does nothing."""

    state: Any = None


class Dtype:
    """Stands in for a numpy dtype in the same way."""

    def __init__(self, code: object) -> None:
        """Keep the code, such as u1."""
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
    """The interpreter of Python's library in Python, left with the opcodes and callables of CIFAR's files.

    The one in C allocates what a pickle says rather than what it holds, and hashes nested keys without a limit.
    """

    dispatch: ClassVar[Any] = {}  # opcode -> what it does; below
    stack: list[Any]  # of the library: what was read since the last mark
    read: Callable[[int], bytes]

    def __init__(self, file: IO[bytes], size: int) -> None:
        """Read a pickle of `size` bytes, which bound what it may make."""
        super().__init__(_Reader(file, size), encoding="bytes")
        self.left = GROWTH * size + ROOM

    def charge(self, made: int) -> None:
        """Take the bytes of what was made from those that are left."""
        self.left -= made
        if self.left < 0:
            raise pickle.UnpicklingError("it makes more than any data file of CIFAR")

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for what CIFAR's pickles name; refuse everything else."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'!r:.60}, which no image data needs")
        return ALLOWED[module, name]


def _build(self: Unpickler) -> None:
    state, made = self.stack.pop(), self.stack[-1]
    if isinstance(made, Array):
        made.state = state
    elif not isinstance(made, Dtype):
        raise pickle.UnpicklingError("it sets the state of something that is no array")


def _binunicode(self: Unpickler) -> None:
    """Refuse characters beyond U+00FF before they are decoded: one among many makes each of them take four bytes."""
    text = self.read(int.from_bytes(self.read(4), "little"))
    if not text.isascii() and np.frombuffer(text, np.uint8).max() > 0xC3:
        raise pickle.UnpicklingError("a text that is not of Latin-1")
    self.stack.append(str(text, "utf-8"))


def _only_text(keys: list[Any]) -> None:
    """Refuse other keys before they are hashed: a deeply nested one would exhaust the stack."""
    if not all(type(key) in (str, bytes) for key in keys):
        raise pickle.UnpicklingError("a key that is no text")


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
    """Return an opcode and what it does, which is charged for."""
    code: int = getattr(pickle, name)[0]
    act = OWN.get(name, LIBRARY[code])

    def charged(self: Unpickler) -> None:
        act(self)
        self.charge(OPCODE + (sys.getsizeof(self.stack[-1]) if name in MAKING else 0))

    return code, charged


Unpickler.dispatch.update(map(_charged, OPCODES))


class _Reader:
    """Reads what is there, whatever is announced."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size = file, size

    def read(self, n: int) -> bytes:
        if not 0 <= n <= self.size:
            raise pickle.UnpicklingError("it holds more than any data file of CIFAR")
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
        InputError: the pickle is torn, asks to run something, or is no dictionary; `place` names it.
    """
    try:
        found = Unpickler(file, size).load()
    except InputError:
        raise
    except Exception as error:  # hostile bytes can raise anything
        reason = f"opcode {error}" if isinstance(error, KeyError) else f"{error}".split("\n")[0][:120]
        raise InputError(f"{place}: not a pickle of CIFAR ({reason}); take the official archive") from error
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise InputError(f"{place}: expected a pickled dictionary, found {kind}; take the official archive")
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in found.items()}


def pixels(array: object, place: str) -> Images:
    """Return the array (N, 3072) uint8 that a pickle held, without copying it.

    Raises:
        InputError: it is not such an array.
    """
    try:
        if isinstance(array, Array):
            _, (n, width), dtype, fortran, raw = array.state
            if width == 3072 and dtype.code in (b"u1", "u1") and isinstance(raw, bytes):
                return np.frombuffer(raw, np.uint8).reshape((n, width), order="F" if fortran else "C")
    except (AttributeError, TypeError, ValueError):
        pass
    raise InputError(f"{place}: data is not an array (N, 3072) of uint8; take the official archive")
