"""A trained network, and the settings by which trainings count as the same."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import msgspec

from bsk.records.fields import LARGEST
from bsk.records.jsonl import LATER_FLAGS
from bsk.records.words import printable

NOT_SETTINGS = {  # flags that do not change which training it is
    *("seed", "out", "data", "device", "threads", "quiet", "debug", "force", "compile", "save_every"),
    "select",  # `selected` has it, for the model that was selected
    "log_divergence",
    "ema",  # `selected` has it, for the averaged weights; the trained weights are the same without it
}
# Earlier versions gave every method the same set of flags, of which each method used some.
OLD = "outer"  # a flag that every record of those versions has and no method has now
_AXES = {"beta": 6.0, "gamma": 1.0, "noise": 2.0, "bound": 1.0, "replays": 1, "ramp": False}
_CLIMBS_KL = {"inner": "kl_to_clean", "outer": "trades"}
_CLIMBS_LOSS = {"inner": "cross_entropy", "outer": "adversarial"}
_RESCUE = {"rescue": None, "rescue_every": 20, "rescue_drop": 0.1}
# The defaults that those versions recorded for flags a method does not have. liet, nuat and gradalign are missing,
# since the methods themselves have changed.
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


@dataclass(frozen=True)
class Run:
    """One trained network; if bsk did not train it, `method` is None and `label` is a distinct name where needed.

    `variant` has what else decides its outputs: the SHA-256 of code from outside bsk, the number of processes if
    several trained it, and how a network that bsk did not train is normalised and orders its classes.
    """

    checkpoint: str
    sha256: str | None = None
    method: str | None = None
    model: str | None = None
    dataset: str | None = None
    data_sha256: str | None = None
    train_data_sha256: str | None = None
    init_sha256: str | None = None
    extra_sha256: str | None = None
    seed: int | None = None
    eps: float | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    selected: str | None = None
    seconds: float | None = None
    forward_passes: int | None = None
    backward_passes: int | None = None
    device: str | None = None
    interrupted: str = ""
    label: str = ""
    variant: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Return an identifier of the network's file: its SHA-256 if known, else its path."""
        return self.sha256 or self.checkpoint

    @property
    def identity(self) -> str:
        """Return an identifier among networks trained with the same settings: the seed, else the file."""
        return f"seed {self.seed}" if self.seed is not None else self.file

    @property
    def passes(self) -> int | None:
        """Return the training cost in images passed forward and backward, None unless both are known."""
        known = self.forward_passes is not None and self.backward_passes is not None
        return (self.forward_passes or 0) + (self.backward_passes or 0) if known else None

    @cached_property
    def settings(self) -> str:
        """Return everything but the seed that distinguishes trainings, as interned text for comparison."""
        file = self.file if self.method is None else None
        parts = [self.method, self.model, self.dataset, self.data_sha256, self.eps, self.selected, self.interrupted]
        return sys.intern(as_text([*parts, file, self.own_flags()]))

    def own_flags(self) -> dict[str, Any]:
        """Return the training flags that distinguish trainings; integers become floats, null is left out.

        `train_data` is among them if the network was trained on other data than it is evaluated on.
        """
        more: dict[str, Any] = {**self.variant} if self.eps is None else {**self.variant, "eps": self.eps}
        for name, sha256 in (("init", self.init_sha256), ("extra", self.extra_sha256)):
            if isinstance(path := self.flags.get(name), str):
                more[name] = self._named(path, sha256)
        if self.train_data_sha256 not in (None, self.data_sha256):
            more["train_data"] = str(self.train_data_sha256)[:8]
        return {
            key if key.isprintable() else printable(key): float(value)
            if type(value) is int and abs(value) < LARGEST
            else value
            for key, value in {**modern(self.method, self.flags), **more}.items()
            if key not in NOT_SETTINGS and value is not None
        }

    def _named(self, path: str, sha256: str | None) -> str:
        """Return the name of a file and the first digits of its SHA-256, without its folder.

        If the name ends with the training's own seed, SEED replaces it and the SHA-256 is left out: seeds of one
        training may each start from weights of their own.
        """
        name = Path(path).name
        own = re.sub(rf"(?<!\d)(?<!epoch-){self.seed}(?=(\.[a-z-]+)*$)", "SEED", name)
        return own if own != name or sha256 is None else f"{name} {sha256[:8]}"


def labels(runs: Iterable[Run]) -> dict[str, str]:
    """Return a distinct name for each file with a network that bsk did not train, where file names clash.

    The name has as many parent folders as needed, or else the first digits of the file's SHA-256.
    """
    paths = {run.file: Path(run.checkpoint).with_suffix("").parts for run in runs if run.method is None}
    namesakes: dict[str, list[str]] = {}
    for file, parts in paths.items():
        namesakes.setdefault(parts[-1] if parts else "", []).append(file)
    found: dict[str, str] = {}
    for files in namesakes.values():
        depths = range(2, max(len(paths[file]) for file in files) + 1)
        said = ({file: "/".join(paths[file][-depth:]) for file in files} for depth in depths)
        by_hash = {file: f"{'/'.join(paths[file][-1:])} {file[:8]}" for file in files}
        if len(files) > 1:
            found |= next((each for each in said if len(set(each.values())) == len(files)), by_hash)
    return found


def as_text(value: Any) -> str:
    """Return a JSON value as text that is equal for equal values."""
    try:
        return msgspec.json.encode(value, order="sorted").decode()
    except UnicodeEncodeError:  # it has a lone surrogate
        return json.dumps(value, sort_keys=True)


def modern(method: str | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return a training's flags as this version records them, whichever version wrote them.

    Flags that the method never used are left out if they had their default. Flags that came later get the value that
    earlier trainings were made with. So old and new trainings of one method are seeds of one row.
    """
    if OLD not in flags:
        later = {name: value for name, value in LATER_FLAGS.items() if name not in _AXES}
        return {**later, **flags} if flags else {}
    found, unused = {**LATER_FLAGS, **flags}, _unused(method)
    if method == "natural":
        unused = {**unused, "step": flags.get("eps")}
    for name, value in unused.items():
        if name in found and found[name] == value:
            del found[name]
    return found


@cache
def _unused(method: str | None) -> dict[str, Any]:
    used = _USED.get(method or "", ())
    return {name: value for name, value in _UNUSED.get(method or "", {}).items() if name not in used}
