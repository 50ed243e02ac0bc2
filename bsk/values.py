"""Values of flags and arguments: conversion from text, and range checks."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from bsk.errors import UsageError, nearest

_NUMBERS: dict[str, tuple[type, str]] = {
    "int": (Integral, "a whole number"),
    "float": (Real, "a number, as 8/255 without quotes"),
    "bool": (bool, "True or False"),
}
_MOST = 1 << 63  # whole numbers of records and generators have 64 bits
SUFFIX = ".safetensors"
SPREAD = 2  # largest plausible std: that of pixels in [0, 1] is at most 0.5, but some networks scale further


def checked_suffix(path: Path) -> Path:
    """Return path; raise a UsageError unless it ends in .safetensors."""
    if path.suffix != SUFFIX:
        raise UsageError(f"--out {path}: must end in .safetensors, the only format written")
    return path


def number(text: str | float) -> float:
    """Return the value of "0.031" or "8/255".

    Raises:
        ValueError: it is not a finite number.
    """
    try:
        top, slash, bottom = str(text).partition("/")
        value = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a number; write 0.031 or 8/255")
    return value


def one_of(flag: str, value: str, known: Iterable[str]) -> str:
    """Return value if it is one of the known names.

    Raises:
        UsageError: it is not; the message suggests the nearest one.
    """
    names = list(known)
    if not isinstance(value, str) or value not in names:
        said = str(value).partition("\n")[0]
        raise UsageError(f"--{flag} {said}: no such {flag}; {nearest(said, names)}")
    return value


def plain(value: Any) -> Any:
    """Return a number or truth value of NumPy as Python's, which records need, and anything else as it is."""
    own = isinstance(value, Real) or type(value).__name__ in ("bool", "bool_")
    return value.item() if own and hasattr(value, "item") else value


def exact(value: Any) -> Any:
    """Return the fraction of 255 or the short decimal whose float32 a number is, and anything else as it is.

    So records hold the same radius whether 8/255 was a number of Python, NumPy or torch.
    """
    value = plain(value)
    if isinstance(value, float) and abs(value) < 1e30:  # that of a float32 is at most 3.4e38
        for other in (round(255 * value) / 255, float(f"{value:.6g}")):
            if struct.unpack("f", struct.pack("f", other)) == (value,):
                return other
    return value


def checked_numbers(flags: Any) -> None:
    """Raise a UsageError for the first field of a dataclass that is declared a number or bool and is something else.

    Numbers of NumPy become Python's.
    """
    for each in fields(flags):
        value, (kind, *more) = exact(getattr(flags, each.name)), str(each.type).split(" | ")
        if kind in _NUMBERS and more in ([], ["None"]) and (value is not None or not more):
            wanted, said = _NUMBERS[kind]
            if not isinstance(value, wanted) or isinstance(value, bool) != (kind == "bool"):
                raise UsageError(f"--{each.name.replace('_', '-')} {value!r:.40}: expected {said}")
            if isinstance(value, int) and not -_MOST <= value < _MOST:
                raise UsageError(f"--{each.name.replace('_', '-')} {value}: expected a number of at most 63 bits")
            object.__setattr__(flags, each.name, value)  # even if it is frozen


def whole(start: str, value: Any) -> int | None:
    """Return a whole number above 0, of NumPy too, as Python's; None stays None.

    Raises:
        UsageError: it is something else; the message begins with `start`.
    """
    number = plain(value)
    if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
        raise UsageError(f"{start} {value!r:.40}: expected a whole number above 0")
    return number


def above_zero(or_zero: bool = False, **values: float) -> None:
    """Raise a UsageError for the first value that is negative or not finite, or zero unless `or_zero`."""
    for flag, value in values.items():
        if not (0 <= value < math.inf) or (value == 0 and not or_zero):
            least = "at least" if or_zero else "above"
            raise UsageError(f"--{flag.replace('_', '-')} {value:g}: must be finite and {least} 0")


def pixel_step(step: float) -> float:
    """Return step if it is a valid step size in pixels of [0, 1] under Linf: above 0, at most 1.

    Raises:
        UsageError: it is not.
    """
    above_zero(step=step)
    if step > 1:
        raise UsageError(f"--step {step:g}: must be at most 1, in pixels of [0, 1]; write 2/255 for 2 grey levels")
    return step


def checked_eps(eps: float, zero: bool = False, norm: str = "linf") -> float:
    """Return eps if it is a valid radius: above 0 (or 0 if `zero`) and, for Linf, at most 1.

    Raises:
        UsageError: it is not.
    """
    most = 1 if norm == "linf" else math.inf
    if not (0 <= eps <= most if zero else 0 < eps <= most):
        raise UsageError(f"--eps {eps:g}: must be between 0 and 1, in pixels of [0, 1]; write 8/255 for 8 grey levels")
    return eps
