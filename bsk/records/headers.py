"""The JSON header of a safetensors file, read without its tensors and without torch."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from bsk.errors import InputError, first_line
from bsk.records.fields import FieldError, convert
from bsk.records.header_schema import HEADERS
from bsk.records.jsonl import SCHEMA, decode, parse, reason

KEY = "bsk"  # the only metadata key, since safetensors writes several in random order
HEADER_LIMIT = 1 << 22  # bytes, to bound memory: as objects a header can be 25 times as large
AGAIN = "give one that bsk wrote"
BYTES = {"U8": 1, "I64": 8, "F32": 4}  # per number, for the types that bsk streams


def load_header(path: Path, kind: str | tuple[str, ...], again: str = AGAIN) -> dict[str, Any]:
    """Return the header of a file whose kind is one of `kind`; `again` is the next step at the end of messages.

    Raises:
        InputError: the file is missing, truncated, not written by bsk, of another kind or schema, or one of its fields
            has a wrong type or range.
    """
    with opening(path, again):
        check_head(path, again)
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise InputError(f"{path}: a safetensors file, but not written by bsk; {again}")
    header = next(parse([text.encode() + b"\n"], f"{path}: header"), {})
    kinds = (kind,) if isinstance(kind, str) else kind
    if header.get("kind") not in kinds:
        found = header.get("kind")
        wanted, article = " or ".join(kinds), "an" if kinds[0][0] in "aeiou" else "a"
        raise InputError(f"{path}: expected {article} {wanted} file, found a {found} file; {again}")
    if header.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema {header.get('schema')}, this bsk reads {SCHEMA}; {again}")
    try:
        if struct := HEADERS.get(header["kind"]):
            convert(header, struct)
    except FieldError as error:
        wrong = f"{error.place} is {error.found!r:.40}, expected {error.expected}"
        raise InputError(f"{path}: header: {wrong}; {again}") from error
    return header


def metadata(header: Mapping[str, Any]) -> dict[str, str]:
    """Return a header as safetensors metadata; the same content gives the same text."""
    return {KEY: json.dumps({"schema": SCHEMA, **header}, sort_keys=True, allow_nan=False)}


def head(shapes: Mapping[str, tuple[str, list[int]]], header: Mapping[str, Any]) -> bytes:
    """Return the first bytes of a safetensors file, for tensors (dtype, shape) that follow in this order."""
    entries: dict[str, Any] = {"__metadata__": metadata(header)}
    end = 0
    for name, (dtype, shape) in shapes.items():
        start, end = end, end + math.prod(shape) * BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    packed = json.dumps(entries, separators=(",", ":")).encode()
    packed += b" " * (-len(packed) % 8)
    return len(packed).to_bytes(8, "little") + packed


def tensor_start(path: Path, name: str) -> int:
    """Return the offset of a tensor's data in a complete safetensors file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return 8 + length + int(json.loads(file.read(length))[name]["data_offsets"][0])


def check_head(path: Path, again: str = AGAIN) -> None:
    """Reject a header that the safetensors library would accept: too long, a duplicate name, or an absurd shape.

    Raises:
        InputError: it is one of these. Other defects are left to the library.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= HEADER_LIMIT else b""
        size = file.seek(0, os.SEEK_END)
    wrong = f"a header of {length} bytes" if length > HEADER_LIMIT else None
    if len(text) == length > 0:  # not truncated
        wrong = _hostile(text, size)
    if wrong:
        raise InputError(f"{path}: not a whole safetensors file ({wrong}); {again}")


def _hostile(text: bytes, size: int) -> str | None:
    """Return what is wrong with the JSON header of a file of `size` bytes, or None."""
    try:
        entries = decode(text)
    except (ValueError, RecursionError) as error:
        return reason(error)
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        shape = entry.get("shape") if isinstance(entry, dict) else None
        # A tensor with a dimension of size 0 has no bytes, so the file size does not bound its other dimensions.
        if isinstance(shape, list) and any(isinstance(each, int) and each > size for each in shape):
            return f"{name[:40]!r} of shape {str(shape)[:40]}"
    return None


@contextlib.contextmanager
def opening(path: Path, again: str = AGAIN) -> Iterator[None]:
    """Turn errors while reading a safetensors file into InputErrors of one line."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a .safetensors file; {again}")
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; {again}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror or error}; check the path") from error
    except (SafetensorError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({first_line(error, 80)}); {again}") from error


def check_replaceable(path: Path, kind: str, force: bool) -> None:
    """Check that `path` is free or has a file of this kind; with `force` anything may be there.

    Raises:
        InputError: something else is there.
    """
    if path.exists() and not force:
        try:
            load_header(path, kind)
        except InputError as error:
            raise InputError(f"{path}: exists and is no {kind} file; choose another --out, or --force") from error
