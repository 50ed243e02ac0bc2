"""Records with their file and line, validated against their schema; the input may be hostile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from msgspec import UNSET

from bsk.errors import InputError
from bsk.records import jsonl
from bsk.records.bits import check_packed
from bsk.records.fields import FieldError, convert
from bsk.records.jsonl import SCHEMA, Record, numbered
from bsk.records.schema import EvaluationRecord
from bsk.records.words import printable

T = TypeVar("T")
E = TypeVar("E", bound=EvaluationRecord)


class Located(NamedTuple):
    """A record with its file and line."""

    source: str
    line: int
    record: Record

    @property
    def where(self) -> str:
        """Return "results.jsonl:3"."""
        return f"{self.source}:{self.line}"


def read(path: Path, most: int | None = None, notice: Callable[[str], None] | None = None) -> list[Located]:
    """Return the records of a JSONL file with their places, or the first `most`; a truncated last line is left out.

    Raises:
        InputError: the file cannot be read, or a line is not a JSON object.
    """
    return list(islice(stream(path, notice), most))


def stream(path: Path, notice: Callable[[str], None] | None = None) -> Iterator[Located]:
    """Yield the records that `read` returns, one at a time; `notice` is told of a truncated last line."""
    source = printable(str(path))
    return (Located(source, number, record) for number, record in jsonl.stream(path, notice))


def located(lines: Iterable[bytes], source: str, notice: Callable[[str], None] | None = None) -> Iterator[Located]:
    """Yield the record of each line with its place.

    Raises:
        InputError: see `bsk.records.jsonl.numbered`.
    """
    return (Located(printable(source), number, record) for number, record in numbered(lines, source, notice))


def checked(item: Located, kind: type[T]) -> T:
    """Return a record as a struct of `bsk.records.schema`.

    Raises:
        InputError: the record has another schema version, or a field is missing or has a wrong type or range.
    """
    found = item.record.get("schema", SCHEMA)
    if type(found) is not int or found != SCHEMA:
        raise InputError(f"{item.where}: expected schema {SCHEMA}, found {_short(found)}; use the bsk that wrote it")
    try:
        return convert(item.record, kind)
    except FieldError as error:
        raise _named(item, error.place, error) from error


def evaluation(item: Located, kind: type[E]) -> E:
    """Return an evaluation record whose outcomes, n and accuracy are consistent.

    Raises:
        InputError: see `checked`; or they are inconsistent.
    """
    record = checked(item, kind)
    if record.correct is not None:
        try:
            check_packed(record.correct, record.n)
        except InputError as error:
            raise InputError(f"{item.where}: {error}") from error
        right = int.from_bytes(record.correct).bit_count()
        if abs(right / record.n - record.accuracy) > 0.5 / record.n:
            raise wrong(item, "accuracy", f"{right}/{record.n}, as its `correct` bits say")
    if (audit := record.audit) is not UNSET and not audit.fallen <= audit.audited <= audit.survivors <= record.n:
        raise wrong(item, "audit", "fallen, audited, survivors and n, each at most the next")
    return record


def value_of(item: Located, key: str, kind: Any) -> Any:
    """Return one field as a type of `bsk.records.fields`, with text made printable; None if it is missing.

    Raises:
        InputError: the field has a wrong type or range.
    """
    try:
        found = convert(item.record.get(key), kind)
    except FieldError as error:
        raise _named(item, key, error) from error
    return printable(found) if isinstance(found, str) else found


def wrong(item: Located, key: str, expected: str) -> InputError:
    """Return the error for an invalid field."""
    return _named(item, key, FieldError(key, item.record.get(key, UNSET), expected))


def _named(item: Located, place: str, error: FieldError) -> InputError:
    shown = "none" if error.found is UNSET else _short(error.found)
    return InputError(
        f"{item.where}: {place}: expected {error.expected}, found {shown}; remove the line or make it again"
    )


def _short(value: object) -> str:
    shown = printable(repr(value) if not isinstance(value, (dict, list)) else type(value).__name__)
    return shown if len(shown) <= 40 else shown[:37] + "..."


def stops_at_eps(record: EvaluationRecord) -> bool:
    """Return whether RayS stopped before it found the boundary; 0.1.0 wrote distances nevertheless."""
    return bool((record.attack_parameters or {}).get("stop_at_eps"))
