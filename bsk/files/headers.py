"""The JSON header of a safetensors file: what it is, read without its tensors and without torch."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from bsk.errors import InputError
from bsk.files.records import SCHEMA, parse

KEY = "bsk"  # the one metadata key: several would be written in random order
HEADER_LIMIT = 1 << 24  # bytes of header that are still believed
AGAIN = "give one that bsk wrote"
BYTES = {"U8": 1, "I64": 8, "F32": 4}  # of a number of the types that are streamed


def load_header(path: Path, kind: str | tuple[str, ...], again: str = AGAIN) -> dict[str, Any]:
    """Return the header of a file of one of these kinds; `again` is the next step that messages end with.

    Raises:
        InputError: the file is missing, torn, not of bsk, of another kind or of another schema.
    """
    with opening(path, again):
        _check_size(path, again)
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise InputError(f"{path}: a safetensors file, but not written by bsk; {again}")
    header = next(parse([text.encode() + b"\n"], f"{path}: header"), {})
    kinds = (kind,) if isinstance(kind, str) else kind
    if header.get("kind") not in kinds:
        found = header.get("kind")
        raise InputError(f"{path}: expected a {' or '.join(kinds)} file, found a {found} file; {again}")
    if header.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema {header.get('schema')}, this bsk reads {SCHEMA}; {again}")
    return header


def head(shapes: Mapping[str, tuple[str, list[int]]], text: str) -> bytes:
    """Return the head of a safetensors file of tensors (dtype, shape) that follow in this order, with JSON in it."""
    entries: dict[str, Any] = {"__metadata__": {KEY: text}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        start, end = end, end + math.prod(shape) * BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    packed = json.dumps(entries, separators=(",", ":")).encode()
    packed += b" " * (-len(packed) % 8)
    return len(packed).to_bytes(8, "little") + packed


def tensor_start(path: Path, name: str) -> int:
    """Return where in a whole safetensors file the bytes of a tensor begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return 8 + length + int(json.loads(file.read(length))[name]["data_offsets"][0])


@contextlib.contextmanager
def opening(path: Path, again: str = AGAIN) -> Iterator[None]:
    """Turn what goes wrong while reading a safetensors file into one line."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a .safetensors file; {again}")
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; {again}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror or error}; check the path") from error
    except (SafetensorError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0][:80]
        raise InputError(f"{path}: not a whole safetensors file ({reason}); {again}") from error


def check_replaceable(path: Path, kind: str, force: bool) -> None:
    """Raise if something other than a file of this kind stands at `path`, unless forced.

    Raises:
        InputError: it does.
    """
    if path.exists() and not force:
        try:
            load_header(path, kind)
        except InputError as error:
            raise InputError(f"{path}: exists and is no {kind} file; choose another --out, or --force") from error


def _check_size(path: Path, again: str) -> None:
    """Refuse an absurd header before the library reads it."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > HEADER_LIMIT:
        raise InputError(f"{path}: not a whole safetensors file (a header of {length} bytes); {again}")
