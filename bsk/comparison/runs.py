"""A trained network, and what makes its training another one."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from bsk.records.fields import LARGEST
from bsk.records.jsonl import LATER_FLAGS
from bsk.records.words import printable

NOT_SETTINGS = {  # they make no other method
    *("seed", "out", "data", "device", "threads", "quiet", "debug", "force", "compile", "save_every"),
    "select",  # `selected` says it, of the model that it selected
    "log_divergence",
    "ema",  # `selected` says it, of the average; the trained weights are the same without it
}
# flags of trainings from before methods were functions: a row of axes, of which a method used some
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


@dataclass(frozen=True)
class Run:
    """One trained network; `method` is None for one that bsk did not train, `label` is what tells that from others."""

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

    @property
    def file(self) -> str:
        """Return what tells the file of a network from others, by its content if that is known."""
        return self.sha256 or self.checkpoint

    @property
    def identity(self) -> str:
        """Return what tells this network from others trained with the same settings: its seed, else its file."""
        return f"seed {self.seed}" if self.seed is not None else self.file

    @property
    def passes(self) -> int | None:
        """Return the cost in images passed forward and backward, None unless both are known."""
        known = self.forward_passes is not None and self.backward_passes is not None
        return (self.forward_passes or 0) + (self.backward_passes or 0) if known else None

    @cached_property
    def settings(self) -> str:
        """Return all that makes a training another one, except its seed, as text to compare; the same text is kept."""
        file = self.file if self.method is None else None
        parts = [self.method, self.model, self.dataset, self.data_sha256, self.eps, self.selected, self.interrupted]
        return sys.intern(as_text([*parts, file, self.own_flags()]))

    def own_flags(self) -> dict[str, Any]:
        """Return the training flags that make a method what it is; 1 and 1.0 are the same, null is none.

        The data are among them where it was trained on others than it is judged on.
        """
        eps: dict[str, Any] = {} if self.eps is None else {"eps": self.eps}
        for name, sha256 in (("init", self.init_sha256), ("extra", self.extra_sha256)):
            if isinstance(path := self.flags.get(name), str):
                eps[name] = self._named(path, sha256)
        if self.train_data_sha256 not in (None, self.data_sha256):
            eps["train_data"] = str(self.train_data_sha256)[:8]
        return {
            key if key.isprintable() else printable(key): float(value)
            if type(value) is int and abs(value) < LARGEST
            else value
            for key, value in {**modern(self.method, self.flags), **eps}.items()
            if key not in NOT_SETTINGS and value is not None
        }

    def _named(self, path: str, sha256: str | None) -> str:
        """Return the name of a file and the begin of its SHA-256, the same wherever it lies.

        With SEED for the training's own seed at its end it is no file but a setting: each seed may begin with weights
        of its own.
        """
        name = Path(path).name
        own = re.sub(rf"(?<!\d)(?<!epoch-){self.seed}(?=(\.[a-z-]+)*$)", "SEED", name)
        return own if own != name or sha256 is None else f"{name} {sha256[:8]}"


def labels(runs: Iterable[Run]) -> dict[str, str]:
    """Return a name for each file of a network that bsk did not train, where the name of the file alone is not enough.

    As many of the folders above it as it takes, or else the begin of its SHA-256, tell those of one name apart.
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
    """Return a value of JSON as text that is the same for equal ones."""
    try:
        return msgspec.json.encode(value, order="sorted").decode()
    except UnicodeEncodeError:  # it has half of a character
        return json.dumps(value, sort_keys=True)


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
