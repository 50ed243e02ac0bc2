"""Values as text for people: radii as 8/255, accuracies in percent, times in a suitable unit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def printable(text: str) -> str:
    """Return text with control characters, which terminals would interpret, written as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def plain(value: Any) -> str:
    """Return a flag's value as short text: 8/255, 0.031, 10, cyclic, true."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        levels = value * 255
        is_fraction = 0 < value < 1 and abs(levels - round(levels)) < 1e-9 and float(f"{value:.4g}") != value
        return f"{levels:.0f}/255" if is_fraction else f"{value:.6g}"
    return "none" if value is None else printable(json.dumps(value))


def percent(fraction: float, sign: str = "") -> str:
    """Return 0.702 as "70.2", or with sign "+" as "+70.2"."""
    return f"{100 * fraction:{sign}.1f}"


def estimate(value: float | None, low: float | None = None, high: float | None = None, *, sign: str = "") -> str:
    """Return "70.2 [65.5, 74.5]" in percent, without the interval if an end is unknown, empty without a value."""
    if value is None:
        return ""
    if low is None or high is None:
        return percent(value, sign)
    return f"{percent(value, sign)} [{percent(low, sign)}, {percent(high, sign)}]"


def probability(p: float | None) -> str:
    """Return p with two or three significant digits, so that 0.0451 and 0.0549 differ; "<0.0001" below 0.0001."""
    if p is None:
        return ""
    return "<0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def duration(seconds: float | None) -> str:
    """Return 12.3 as "12 s", 564 as "9.4 min", 7560 as "2.1 h"."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def counted(n: int, thing: str) -> str:
    """Return "1 seed", "3 seeds"."""
    return f"{n} {thing}{'' if n == 1 else 's'}"


def many(count: float) -> str:
    """Return 1_234_567 as "1.23M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def flat(parameters: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Return an attack's parameters by stage and name, or by name alone if it has no stages."""
    found: dict[tuple[str, ...], Any] = {}
    for name, value in parameters.items():
        inner = flat(value) if isinstance(value, Mapping) else {(): value}
        found |= {(name, *rest): each for rest, each in inner.items()}
    return found


def searched(parameters: Mapping[str, Any]) -> str:
    """Return "searched in bf16, judged in fp32", or "" if the attack searched in fp32 alone."""
    found = sorted({str(value) for name, value in flat(parameters).items() if name[-1] == "search"} - {"fp32"})
    return f"searched in {', '.join(found)}, judged in fp32" if found else ""
