"""Field types of records and headers: type, range, and a description for error messages and the JSON Schema."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

T = TypeVar("T")
LARGEST = 1e15  # limit for all numbers; integers up to here are exact as floats
LONGEST_SPLIT = 10**6  # examples, to bound memory: ten times the largest split there is

Text = Annotated[str, Meta(description="text")]
Texts = Annotated[list[str], Meta(description="a list of text")]
Flag = Annotated[bool, Meta(description="true or false")]
Whole = Annotated[int, Meta(description="a whole number")]
Count = Annotated[int, Meta(ge=0, le=10**15, description="a whole number from 0")]
Images = Annotated[int, Meta(ge=1, le=LONGEST_SPLIT, description=f"a whole number from 1 to {LONGEST_SPLIT}")]
Looks = Annotated[int, Meta(ge=0, le=1000, description="a whole number from 0 to 1000")]
Number = Annotated[float, Meta(description="a number")]
Amount = Annotated[float, Meta(ge=0, le=LARGEST, description=f"a number from 0 to {LARGEST:g}")]
Signed = Annotated[float, Meta(ge=-LARGEST, le=LARGEST, description=f"a number from {-LARGEST:g} to {LARGEST:g}")]
Fraction = Annotated[float, Meta(ge=0, le=1, description="a number from 0 to 1")]
Difference = Annotated[float, Meta(ge=-1, le=1, description="a number from -1 to 1")]
Accuracy = Annotated[float, Meta(ge=-1, le=1, description="a number from 0 to 1, or -1 where it is not known")]
Numbers = Annotated[list[Number], Meta(min_length=1, description="a list of numbers")]
Positive = Annotated[list[Annotated[float, Meta(gt=0)]], Meta(min_length=1, description="a list of numbers above 0")]
Vector = Annotated[list[Signed], Meta(min_length=2, description="a list of numbers")]
Names = Annotated[list[str], Meta(min_length=1, description="a list of texts")]
Part = Annotated[list[Count], Meta(min_length=2, max_length=2, description="two whole numbers from 0")]
Shape = Annotated[
    list[Annotated[int, Meta(ge=1, le=10**15)]],
    Meta(min_length=3, max_length=3, description="three whole numbers from 1"),
]
Bits = Annotated[bytes, Meta(description="base64 text")]
_Scalar = bool | int | float | str | None
_Inner = _Scalar | list[_Scalar] | dict[str, _Scalar]
_Outer = _Scalar | list[_Inner] | dict[str, _Inner]
Plain = Annotated[dict[str, _Outer], Meta(description="an object of plain values")]  # parameters of methods and attacks


class FieldError(ValueError):
    """An invalid field: its path such as "progress.step", the value found, and the value expected in words."""

    def __init__(self, place: str, found: Any, expected: str) -> None:
        """Set the path, the value (UNSET if the field is missing) and the expectation."""
        super().__init__(f"{place}: expected {expected}")
        self.place, self.found, self.expected = place, found, expected


def convert(value: Any, kind: type[T]) -> T:
    """Return decoded JSON as a struct or as the type of an annotation; unknown fields are ignored.

    Raises:
        FieldError: a field is missing, or has a wrong type or range.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _explained(str(error), value, kind) from error


def _explained(message: str, value: Any, kind: Any) -> FieldError:
    """Return the FieldError for a message of msgspec like "Expected `int`, got `str` - at `$.progress.step`"."""
    said, _, path = message.partition(" - at `$")
    names = path.strip("`").partition("[")[0].split(".")[1:]
    if "missing required field `" in said:
        names.append(said.split("`")[1])
    hint = kind
    for name in names:
        value = value.get(name, UNSET) if isinstance(value, dict) else UNSET
        struct = next(each for each in (hint, *get_args(hint)) if isinstance(each, type) and issubclass(each, Struct))
        hint = get_type_hints(struct, include_extras=True)[name]
    lacking = value is UNSET or (value is None and UnsetType not in get_args(hint))
    return FieldError(".".join(names), value, "a value" if lacking else _words(hint) or "an object")


def _words(hint: Any) -> str | None:
    """Return the first description in an annotation."""
    if isinstance(hint, Meta):
        return hint.description
    inner = getattr(hint, "__metadata__", ()) or get_args(hint)
    return next(filter(None, map(_words, inner)), None)
