"""Reading a field of a record that may be hostile: of the right type and range, or one line that says where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bsk.errors import InputError
from bsk.records.jsonl import SCHEMA, Record, parse
from bsk.records.words import printable

T = TypeVar("T")
LARGEST = 1e15  # of any number: whole numbers are exact in a float up to here
LONGEST_SPLIT = 10**6  # examples; ten times the largest there is, since a bit becomes bytes in a comparison
MOST_OUTCOMES = 2 * 10**7  # of all records together


class Located(NamedTuple):
    """A record, and the file and line where it stands."""

    source: str
    line: int
    record: Record

    @property
    def where(self) -> str:
        """Return "results.jsonl:3"."""
        return f"{self.source}:{self.line}"


def read(path: Path, most: int | None = None) -> list[Located]:
    """Return the records of a JSONL file with their lines, or the first so many; a torn last line is left out.

    Raises:
        InputError: the file cannot be read, or a line is not a JSON object.
    """
    try:
        with path.open("rb") as file:
            return list(islice(located(file, str(path)), most))
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}; give a JSONL file that bsk wrote") from error


def located(lines: Iterable[bytes], source: str) -> Iterator[Located]:
    """Yield the record of each line with its place.

    Raises:
        InputError: see `bsk.records.jsonl.parse`.
    """
    number = 0

    def counted() -> Iterator[bytes]:
        nonlocal number
        for line in lines:
            number += 1
            yield line

    for record in parse(counted(), printable(source)):  # it takes one line at a time
        yield Located(printable(source), number, record)


def check_schema(item: Located) -> None:
    """Raise if the record says that another version of bsk wrote it.

    Raises:
        InputError: its schema is not this one's.
    """
    found = item.record.get("schema", SCHEMA)
    if type(found) is not int or found != SCHEMA:
        raise InputError(f"{item.where}: expected schema {SCHEMA}, found {_short(found)}; use the bsk that wrote it")


def wrong(item: Located, key: str, expected: str) -> InputError:
    """Return the error for a field that is not what it should be."""
    found = _short(item.record[key]) if key in item.record else "none"
    return InputError(f"{item.where}: {key}: expected {expected}, found {found}; remove the line or make it again")


def number(item: Located, key: str, largest: float = LARGEST, least: float = 0) -> float | None:
    """Return a number from `least` to `largest`, or None where there is none."""
    value = item.record.get(key)
    if value is None:
        return None
    if type(value) not in (int, float) or not least <= value <= largest:  # NaN and infinity are in no range
        raise wrong(item, key, f"a number from {least:g} to {largest:g}")
    return float(value)


def count(item: Located, key: str) -> int | None:
    """Return a whole number from 0, or None where there is none."""
    value = whole(item, key)
    if value is not None and value < 0:
        raise wrong(item, key, "a whole number from 0")
    return value


def whole(item: Located, key: str) -> int | None:
    """Return a whole number, or None where there is none."""
    value = item.record.get(key)
    if value is None:
        return None
    if type(value) is not int or abs(value) > LARGEST:
        raise wrong(item, key, "a whole number")
    return value


def text(item: Located, key: str) -> str | None:
    """Return printable text, or None where there is none."""
    value = item.record.get(key)
    if value is not None and not isinstance(value, str):
        raise wrong(item, key, "text")
    return value if value is None else printable(value)


def mapping(item: Located, key: str) -> dict[str, Any]:
    """Return an object, empty where there is none."""
    value = item.record.get(key)
    if value is not None and (not isinstance(value, dict) or not _is_shallow(value, 3)):
        raise wrong(item, key, "an object of plain values")
    return value or {}


def vector(item: Located, key: str) -> list[float] | None:
    """Return a list of at least two numbers, or None where there is none."""
    value = item.record.get(key)
    if value is None:
        return None
    plain = isinstance(value, list) and len(value) > 1 and all(type(each) in (int, float) for each in value)
    if not plain or not all(abs(each) <= LARGEST for each in value):
        raise wrong(item, key, "a list of numbers")
    return [float(each) for each in value]


def needed(value: T | None, item: Located, key: str) -> T:
    """Return the value of a field that must be there."""
    if value is None:
        raise wrong(item, key, "a value")
    return value


def _is_shallow(value: object, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not inner or (levels > 0 and all(_is_shallow(each, levels - 1) for each in inner))


def _short(value: object) -> str:
    shown = printable(repr(value) if not isinstance(value, (dict, list)) else type(value).__name__)
    return shown if len(shown) <= 40 else shown[:37] + "..."
