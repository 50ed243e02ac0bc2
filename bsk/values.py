"""Values of flags and arguments: how text becomes one, and which are possible."""

from __future__ import annotations

import math
from collections.abc import Iterable

from bsk.errors import UsageError, nearest


def number(text: str | float) -> float:
    """Return the value of "0.031" or "8/255".

    Raises:
        ValueError: it is no finite number.
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
        UsageError: it is not; the message has the nearest one.
    """
    if value not in (names := list(known)):
        raise UsageError(f"--{flag} {value}: no such {flag}; {nearest(value, names)}")
    return value


def above_zero(or_zero: bool = False, **values: float) -> None:
    """Raise a usage error for the first value that is below zero, infinite, or zero unless that is allowed."""
    for flag, value in values.items():
        if not (0 <= value < math.inf) or (value == 0 and not or_zero):
            least = "at least" if or_zero else "above"
            raise UsageError(f"--{flag.replace('_', '-')} {value:g}: must be finite and {least} 0")


def checked_eps(eps: float, zero: bool = False, norm: str = "linf") -> float:
    """Return eps if it is a radius: above 0 (or 0 where that means something) and, by Linf, at most 1.

    Raises:
        UsageError: it is none.
    """
    most = 1 if norm == "linf" else math.inf
    if not (0 <= eps <= most if zero else 0 < eps <= most):
        raise UsageError(f"--eps {eps:g}: must be between 0 and 1, in pixels of [0, 1]; write 8/255 for 8 grey levels")
    return eps
