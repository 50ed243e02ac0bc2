"""The flags of trainings from before methods were functions: a row of axes, of which a method used some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bsk.records.jsonl import LATER_FLAGS

OLD = "outer"  # an axis that every row had, and no method has now
_AXES = {"beta": 6.0, "gamma": 1.0, "noise": 2.0, "bound": 1.0, "replays": 1, "ramp": False}
_CLIMBS_KL = {"inner": "kl_to_clean", "outer": "trades"}
_CLIMBS_LOSS = {"inner": "cross_entropy", "outer": "adversarial"}
_RESCUE = {"rescue": None, "rescue_every": 20, "rescue_drop": 0.1}
# what a row had by default that its method has not; of liet, nuat and gradalign the method itself has changed
_UNUSED: dict[str, dict[str, Any]] = {
    "natural": {**_AXES, "start": "zero", "inner": "cross_entropy", "steps": 0, "outer": "natural", **_RESCUE},
    **dict.fromkeys(("at", "fast-at", "bs-at"), {**_AXES, **_CLIMBS_LOSS, **_RESCUE}),
    "fast-at-plus": {**_AXES, **_CLIMBS_LOSS, "rescue": "at"},
    **dict.fromkeys(("trades", "fast-trades", "fast-trades-2", "bs", "bs-alone"), {**_AXES, **_CLIMBS_KL, **_RESCUE}),
    "n-fgsm": {**_AXES, **_CLIMBS_LOSS, **_RESCUE, "start": "noise"},
    "free-at": {**_AXES, **_CLIMBS_LOSS, **_RESCUE, "start": "kept", "steps": 0},
    "mart": {**_AXES, "inner": "cross_entropy", "outer": "mart", **_RESCUE},
}
_USED = {
    **dict.fromkeys(("at", "fast-at", "bs-at", "fast-at-plus"), ("gamma",)),
    **dict.fromkeys(("trades", "fast-trades", "fast-trades-2", "bs", "bs-alone", "mart"), ("gamma", "beta")),
    "n-fgsm": ("noise", "bound"),
    "free-at": ("replays",),
}


def modern(method: str | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return a training's flags as the same training has them now, whichever build wrote them.

    What an old row had and its method never used is left out, if it was the default; so old and new trainings of one
    method are seeds of one row. Flags that came later have the value that trainings before them were made with.
    """
    if OLD not in flags:
        later = {name: value for name, value in LATER_FLAGS.items() if name not in _AXES}
        return {**later, **flags} if flags else {}
    found, used = {**LATER_FLAGS, **flags}, _USED.get(method or "", ())
    unused = {name: value for name, value in _UNUSED.get(method or "", {}).items() if name not in used}
    if method == "natural":
        unused["step"] = flags.get("eps")
    return {name: value for name, value in found.items() if not (name in unused and value == unused[name])}
