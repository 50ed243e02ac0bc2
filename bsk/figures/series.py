"""Grouping for figures: trainings with the same value of a flag that differ only in their seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bsk.comparison.evidence import Evaluation, TrainingLog
from bsk.comparison.groups import differing, short_name
from bsk.comparison.runs import Run
from bsk.errors import InputError, UsageError, nearest
from bsk.records.words import plain, printable

RADII = ("step", "eps")  # flags whose values are written as k/255 if all are such fractions
OF_A_RUN = ("model", "dataset", "selected")  # properties of a network besides its method and flags
OF_A_METHOD = {  # the flags that a method implies
    "start", "inner", "steps", "step", "outer", "beta", "gamma", "noise", "bound", "replays", "ramp", "rescue",
    "rescue_every", "rescue_drop",
}  # fmt: skip


T = TypeVar("T", Evaluation, TrainingLog)


@dataclass(frozen=True)
class Series(Generic[T]):
    """The records with one value of a flag, one per seed, in their order."""

    value: Any
    label: str
    members: list[T]


def series(members: Sequence[T], by: str) -> list[Series[T]]:
    """Return the members grouped by the value of a flag, sorted if all values are numbers, else in their order.

    Raises:
        InputError: a record lacks the flag, or members with the same value differ in more than their seed.
        UsageError: the flag has lists or objects as values.
    """
    found: dict[str, tuple[Any, list[T]]] = {}
    for member in members:
        value = _value(member, by)
        found.setdefault(plain(value), (value, []))[1].append(member)
    pairs = list(found.values())
    if numeric([value for value, _ in pairs]):
        pairs.sort(key=lambda pair: float(pair[0]))
    labels = _labels([value for value, _ in pairs], by)
    groups = [Series(value, label, each) for (value, each), label in zip(pairs, labels, strict=True)]
    for group in groups:
        _check_alike(group, by)
    return groups


def numeric(values: Sequence[Any]) -> bool:
    """Return whether all values are numbers."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def confounded(groups: Sequence[Series[T]], by: str) -> list[str]:
    """Return a notice if the networks of a figure differ in flags that `by` does not imply."""
    runs = [member.run for group in groups for member in group.members]
    implied = OF_A_METHOD | {by} if by == "method" else {by}
    found = [flag for flag in _differences(runs) if flag not in implied]
    return [f"the networks drawn differ in more than {by}: {', '.join(found)}"] if found else []


def _value(member: Evaluation | TrainingLog, by: str) -> Any:
    run = member.run
    own = {"method": short_name(run), "seed": run.seed, **{name: getattr(run, name) for name in OF_A_RUN}}
    known = {**run.flags, **{name: value for name, value in own.items() if value is not None}}
    if by not in known:
        raise InputError(f"{member.where}: has no flag {by} to group by; {nearest(by, sorted(map(printable, known)))}")
    if isinstance(known[by], (dict, list)):
        raise UsageError(f"--by {by}: its values are lists or objects; choose another flag")
    return known[by]


def _labels(values: Sequence[Any], by: str) -> list[str]:
    """Return the values as text, those of a radius as 8/255 if all are such fractions."""
    return radius_labels(values) if by in RADII and numeric(values) else [plain(value) for value in values]


def radius_labels(values: Sequence[float]) -> list[str]:
    """Return radii as text: as 8/255 if all are such fractions or 0."""
    levels = [value * 255 for value in values]
    if any(levels) and all((level == 0 or level > 0.5) and abs(level - round(level)) < 1e-6 for level in levels):
        return [f"{level:.0f}/255" if level else "0" for level in levels]
    return [plain(value) for value in values]


def _check_alike(group: Series[T], by: str) -> None:
    first = group.members[0]
    for member in group.members[1:]:
        found = _differences([first.run, member.run])
        if found:
            raise InputError(
                f"{member.where}: has the same {by} ({group.label}) as {first.where}, but another {found[0]}; "
                f"use --by {found[0]}, or give records that differ only in their seeds"
            )


def _differences(runs: Sequence[Run]) -> list[str]:
    """Return everything in which networks differ except their seeds."""
    found = ["method"] if len({short_name(run) for run in runs}) > 1 else []
    # An unknown value is no difference, such as the epoch that an unfinished training will select.
    found += [name for name in OF_A_RUN if len({getattr(run, name) for run in runs} - {None}) > 1]
    if "dataset" not in found and len({run.data_sha256 for run in runs}) > 1:
        found.append("data")
    return [*found, *differing(runs)]
