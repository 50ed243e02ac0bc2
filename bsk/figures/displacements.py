"""How far the starts of a model move its output, seen from each image's own random target."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsk.errors import InputError
from bsk.records.located import Located, checked, wrong
from bsk.records.schema import LandingRecord
from bsk.records.words import plain

Floats = NDArray[np.float64]
BACKWARD = "backward"  # the start that has targets


@dataclass(frozen=True)
class Cloud:
    """Where one start of one model lands, an image a row.

    Attributes:
        along: (N,) the displacement's part towards the image's target, as a part of the way: 1 is the target's height.
        aside: (N,) its distance from that way, in the same measure.
        kl: (N,) KL(s(f(x)) || s(f(x'))) in nats.
    """

    start: str
    along: Floats
    aside: Floats
    kl: Floats


@dataclass(frozen=True)
class Scene:
    """One model and its clouds, one a start, in the order of the records; `facts` are two lines of text."""

    facts: tuple[str, str]
    clouds: list[Cloud]


@dataclass(frozen=True)
class _Landing:
    where: str
    index: int
    start: str
    kl: float
    logits: Floats
    landed: Floats
    target: Floats | None


def scenes(items: Iterable[Located]) -> list[Scene]:
    """Return a scene for each model and its circumstances, in order of first appearance.

    Raises:
        InputError: there are no landings, one of them is not what it should be, or an image has no backward start,
            whose target it is seen from.
    """
    found: dict[str, tuple[tuple[str, str], dict[tuple[str, int], _Landing]]] = {}
    for item in items:
        if item.record.get("kind") == "landing":
            record = checked(item, LandingRecord)
            key, facts = _circumstances(record)
            landing = _landing(item, record)
            found.setdefault(key, (facts, {}))[1][landing.start, landing.index] = landing  # the last one counts
    if not found:
        raise InputError("plot landings: no landings among the records; give what bsk starts prints")
    return [Scene(facts, _clouds(landings)) for facts, landings in found.values()]


def projected(displacement: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Return how far displacements (N, C) go along the way to their targets' displacements (N, C), and aside of it.

    Both without their mean over classes, which a softmax does not see; both as parts of the target's length.
    """
    d, t = (each - each.mean(axis=1, keepdims=True) for each in (displacement, target))
    length = np.linalg.norm(t, axis=1)
    along = (d * t).sum(axis=1) / length**2
    return along, np.linalg.norm(d - along[:, None] * t, axis=1) / length


def _circumstances(record: LandingRecord) -> tuple[str, tuple[str, str]]:
    """Return what tells this model and its circumstances from others, and the same for people."""
    parameters = record.start_parameters or {}
    own = [record.method, record.dataset, record.model, record.split]
    file = [record.checkpoint, record.checkpoint_sha256, record.data_sha256]
    facts = ", ".join(fact for fact in (record.method, record.model, f"{record.dataset} {record.split}") if fact)
    told = (facts, f"eps {plain(record.eps)}, gamma {plain(parameters.get('gamma'))}")
    return json.dumps([*file, *own, record.eps, parameters]), told


def _landing(item: Located, record: LandingRecord) -> _Landing:
    logits, target = np.array(record.logits), None if record.target is None else np.array(record.target)
    for key in ("landed", "target"):
        values = getattr(record, key)
        if values is not None and len(values) != len(logits):
            raise wrong(item, key, f"{len(logits)} numbers, as many as logits")
    if record.start == BACKWARD and (target is None or len(set(target - logits)) < 2):
        raise wrong(item, "target", "the random output of gamma above 0 that the start went towards")
    return _Landing(item.where, record.index, record.start, record.kl, logits, np.array(record.landed), target)


def _clouds(landings: dict[tuple[str, int], _Landing]) -> list[Cloud]:
    clouds = []
    for start in dict.fromkeys(start for start, _ in landings):
        mine = [landing for (name, _), landing in landings.items() if name == start]
        target = np.stack([_target(landing, landings) - landing.logits for landing in mine])
        displacement = np.stack([landing.landed - landing.logits for landing in mine])
        clouds.append(Cloud(start, *projected(displacement, target), np.array([landing.kl for landing in mine])))
    return clouds


def _target(landing: _Landing, landings: dict[tuple[str, int], _Landing]) -> Any:
    backward = landings.get((BACKWARD, landing.index))
    if backward is None:
        raise InputError(
            f"{landing.where}: no {BACKWARD} start of this image; run bsk starts with --start {BACKWARD} too"
        )
    return backward.target
