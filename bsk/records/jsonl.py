"""JSONL records: one JSON object per line, appended atomically; readers ignore a truncated last line."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from bsk.errors import InputError
from bsk.records.atomic import appending, naming_the_file, write_all
from bsk.records.locks import locked
from bsk.records.words import printable

SCHEMA = 1
BEST_ON_TEST = "best-on-test"  # a value of `selected`: the epoch was chosen on test images, as in the paper
LATER_FLAGS = {  # the values of flags that came later, for trainings that are older than them
    "select": "val",
    "log_divergence": False,
    "noise": 2.0,
    "bound": 1.0,
    "replays": 1,
    "ramp": False,
    "ema": 0.0,
    "label_smoothing": 0.0,
    "awp": 0.0,
    "warmup": 0.0,
    "on_collapse": "warn",
    "save_every": 0,
    "init": None,
    "extra": None,
    "extra_fraction": None,
    "compile": "off",
}
Record = dict[str, Any]
_CONTROLS = re.compile("[\x7f-\x9f\u2028\u2029]")  # valid in JSON strings, but interpreted by terminals
_HALVES = re.compile("[\ud800-\udfff]")
_SPACE = b" \t\r\n"
_LARGEST = 1 << 1000  # limit for integers, which must be convertible to float


def dumps(record: Record) -> str:
    """Return the record as a line of JSON without newline, with control characters escaped; refuse NaN and infinity."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def append(path: Path, record: Record) -> None:
    """Append one record to the file at `path`, under a lock and synced.

    A truncated last line, left by a killed process, is removed first.

    Raises:
        InputError: the file cannot be written.
    """
    with naming_the_file(path), appending(path) as file, locked(file, path):
        write_line(file, record)


def write_line(file: IO[bytes], record: Record) -> None:
    """Write one record at the end of a file opened by `appending`, after removing a truncated last line; synced.

    A last record that only lacks its newline gets it. A file that is not JSONL is not changed.
    """
    end = whole_length(file)
    file.seek(end)
    tail = file.read()
    line = (dumps(record) + "\n").encode()
    if tail and _is_record(tail):
        end, line = end + len(tail), b"\n" + line
    elif tail and not tail.lstrip().startswith(b"{"):
        raise OSError(None, "its last line is not a JSON record")
    file.truncate(end)
    file.seek(end)
    try:
        write_all(file, line)
        os.fsync(file.fileno())
    except OSError:
        file.truncate(end)  # if the disk is full, no partial line remains
        raise


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def whole_length(file: IO[bytes]) -> int:
    """Return the number of bytes up to and including the last newline of an open binary file."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def read(path: Path, most: int | None = None) -> list[Record]:
    """Return the records of a file, or its first `most`, without a truncated last line.

    Raises:
        InputError: see `stream`.
    """
    return [record for _, record in islice(stream(path), most)]


def stream(path: Path, notice: Callable[[str], None] | None = None) -> Iterator[tuple[int, Record]]:
    """Yield the line number and record of each line of a file, holding one line in memory at a time.

    `notice` is called with a line of text if the last record is left out, see `numbered`.

    Raises:
        InputError: the file is missing, or one of its complete lines is not a JSON object.
    """
    try:
        with path.open("rb") as file:
            yield from numbered(file, str(path), notice)
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}; give a JSONL file that bsk wrote") from error


def check_no_records(path: Path) -> None:
    """Check that the first record of a file, if there is one, is none of bsk, which must not be replaced.

    Raises:
        InputError: it does.
    """
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            first = next(parse(file, str(path)), {})
    except (OSError, InputError):
        return
    if "kind" in first:
        raise InputError(f"{path}: has records of bsk, which this file would replace; choose another name")


def parse(lines: Iterable[bytes], name: str) -> Iterator[Record]:
    """Yield the records of `numbered`, without line numbers."""
    return (record for _, record in numbered(lines, name))


def numbered(
    lines: Iterable[bytes], name: str, notice: Callable[[str], None] | None = None
) -> Iterator[tuple[int, Record]]:
    """Yield the number and record of each line; a last line without newline is left out if it does not parse.

    A command that was killed leaves such a line, and writes the record again when it is repeated.

    Raises:
        InputError: a complete line is not a JSON object with unique keys and finite numbers.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = decode(line)
            if not isinstance(record, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            if not line.endswith(b"\n"):
                if notice:
                    notice(f"{printable(name)}:{number}: cut off, so this record is left out")
                return
            where = f"{printable(name)}:{number}"
            foreign = number == 1 and not line.lstrip().startswith(b"{")  # a checkpoint, say
            advice = "give JSONL of bsk train or evaluate, or remove the line" if foreign else "remove the line"
            raise InputError(f"{where}: not a JSON record ({reason(error)}); {advice}") from error
        yield number, record


def decode(text: bytes) -> Any:
    """Return decoded JSON from an untrusted source.

    msgspec decodes it if it can. Otherwise the slower `json` does, with precise errors.

    Raises:
        ValueError, RecursionError: it is not JSON with unique keys and finite numbers; `reason` gives one line.
    """
    import msgspec  # imported here to keep bsk --help fast

    try:
        value = msgspec.json.decode(text)
        if text.count(b'":') == _keys([value]) and not _is_spaced(text.strip(_SPACE)):
            return value
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    value = None  # frees memory, which hostile input may have filled
    return json.loads(text, object_pairs_hook=_checked)


def _is_spaced(text: bytes) -> bool:
    """Return whether there may be white space before a colon (of white space, JSON strings can contain only blanks)."""
    return b" :" in text or b"\t" in text or b"\r" in text or b"\n" in text


def _keys(value: Any) -> float:
    """Return the number of keys in decoded JSON, NaN if a number is too large.

    msgspec silently keeps the last of two equal keys. The text without white space before colons contains `":` at
    least once per key, so if it occurs as often as there are decoded keys, no key was duplicated.
    """
    is_object = type(value) is dict
    found: float = len(value) if is_object else 0
    for each in value.values() if is_object else value:
        kind = type(each)
        if kind is dict or kind is list:
            found += _keys(each)
        elif kind is int and abs(each) >= _LARGEST:
            return math.nan
    return found


def reason(error: Exception) -> str:
    """Return why a text is not JSON, without the position in the text."""
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}; check the path") from error


def _checked(pairs: list[tuple[str, Any]]) -> Record:
    record: Record = {}
    for key, value in pairs:
        if key in record:
            raise ValueError(f"duplicate key {key[:40]!r}")
        if wrong := _wrong(key) or _wrong(value):  # checked here, where the key is known
            raise ValueError(f"{key[:40]!r}: {wrong}")
        record[key] = value
    return record


def _wrong(value: object) -> str | None:
    """Return why a value that is valid JSON cannot be used, or None; objects inside have been checked before.

    `1e999` decodes to infinity, an integer of 400 digits exceeds a float, and a lone surrogate cannot be encoded.
    """
    if isinstance(value, list):
        return next(filter(None, map(_wrong, value)), None)
    if isinstance(value, str):
        return None if value.isascii() or not _HALVES.search(value) else "a lone surrogate"
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    return "a number too large" if isinstance(value, int) and abs(value) >= _LARGEST else None
