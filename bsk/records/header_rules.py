"""What the fields of a checkpoint's header must be, whichever of them it has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MODEL, STATE = "model", "training-state"  # kinds of file: a selected model, and all that a training needs to go on


@dataclass(frozen=True)
class Rule:
    """What a value must be, in words, and whether it is."""

    words: str
    holds: Callable[[Any], bool]


def _whole(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value < 1 << 53  # as JSON's numbers are exact


def _number(value: Any, least: float = -math.inf, most: float = math.inf) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and least <= value <= most


def _list(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and bool(value) and all(map(holds, value))


TEXT = Rule("a text", lambda value: isinstance(value, str))
TEXTS = Rule("a list of texts", lambda value: _list(value, TEXT.holds))
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
OBJECT = Rule("an object", lambda value: isinstance(value, dict))
WHOLE = Rule("a whole number", lambda value: type(value) is int)
COUNT = Rule("a whole number from 0", _whole)
AMOUNT = Rule("a number from 0", lambda value: _number(value, 0, 1e15))
RADIUS = Rule("a number from 0 to 1", lambda value: _number(value, 0, 1))
ACCURACY = Rule("a number from 0 to 1, or -1", lambda value: value == -1 or _number(value, 0, 1))
SHAPE = Rule("three whole numbers from 1", lambda value: _list(value, lambda n: _whole(n, 1)) and len(value) == 3)
NUMBERS = Rule("a list of numbers", lambda value: _list(value, _number))
ABOVE_0 = Rule("a list of numbers above 0", lambda value: _list(value, lambda n: _number(n, 0) and n > 0))

_SCORED = {
    "epoch": COUNT,
    **{f"{split}_{kind}": ACCURACY for split in ("val", "test") for kind in ("natural", "robust")},
}
_PASSES = {"forward": COUNT, "backward": COUNT}
_TRAINED: Mapping[str, Any] = {
    "model": TEXT,
    "dataset": TEXT,
    "classes": TEXTS,
    "shape": SHAPE,
    "mean": NUMBERS,
    "std": ABOVE_0,
    "eps": RADIUS,
    "seed": WHOLE,
    "method": TEXT,
    "selected": TEXT,
    "complete": FLAG,
    "flags": {"gamma": AMOUNT},
    "device": TEXT,
    **_SCORED,
    "train_seconds": AMOUNT,
    "train_forward_passes": COUNT,
    "train_backward_passes": COUNT,
}
_PROGRESS: Mapping[str, Any] = {
    "step": COUNT,
    "seconds": AMOUNT,
    "validation_seconds": AMOUNT,
    "epoch_seconds": AMOUNT,
    "passes": _PASSES,
    "epoch_passes": _PASSES,
    **dict.fromkeys(("best", "last", "best_average", "last_average"), _SCORED),
    "rescue": {"accuracy": ACCURACY, "active": FLAG},
    "rescued_updates": COUNT,
    "collapses": {"now": FLAG, "count": COUNT, "rescued_until": COUNT, "best": ACCURACY},
    "seen": {"step": COUNT},
    "scaler": {},
    "averaged": COUNT,
}
# kind of file -> name -> a rule, or the names in an object
FIELDS: Mapping[str, Mapping[str, Any]] = {MODEL: _TRAINED, STATE: {**_TRAINED, "progress": _PROGRESS}}


def problem(header: Mapping[str, Any]) -> str | None:
    """Return which field of a header cannot be what it is, in a few words, or None; fields may be missing."""
    return _problem(header, FIELDS.get(header["kind"], {}), "")


def _problem(values: Mapping[str, Any], rules: Mapping[str, Any], place: str) -> str | None:
    for name, rule in rules.items():
        if name in values:
            found = _wrong(values[name], rule, place + name)
            if found:
                return found
    return None


def _wrong(value: Any, rule: Any, name: str) -> str | None:
    """Return what is wrong with one value: a rule is broken, or a field in an object."""
    own = rule if isinstance(rule, Rule) else OBJECT
    if not own.holds(value):
        return f"{name} is {value!r:.40}, expected {own.words}"
    return None if isinstance(rule, Rule) else _problem(value, rule, f"{name}.")
