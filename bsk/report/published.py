"""The paper's numbers, to stand beside ours: a record for each row of its tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from typing import Any

from bsk.errors import UsageError, nearest

AXES = ("gamma", "beta", "step")  # what a row of an ablation is called by
_STEP_UNIT = 8 / 255  # the paper writes its steps as if its radius were that
_SAME_STEP = 0.03  # of step / eps: 0.031 is not quite 8/255, and neighbours are 0.125 apart
_COLUMNS = {"autoattack": "robust_autoattack", "rays": "robust_rays"}  # of table 5; elsewhere `robust`


@dataclass(frozen=True)
class Published:
    """A row of a table of the paper; accuracies in percent, as printed."""

    method: str
    axes: Mapping[str, float]
    numbers: Mapping[str, float]
    aggregate: str = ""

    def accuracy(self, kind: str, attack: str | None = None) -> float | None:
        """Return `natural` or `robust` as a fraction, None where the paper has none."""
        column = _COLUMNS.get(attack or "", kind) if kind == "robust" else kind
        percent = self.numbers.get(column, self.numbers.get(kind))
        return None if percent is None else round(percent / 100, 6)


@dataclass(frozen=True)
class Table:
    """The rows of one table of the paper for one dataset, in its order."""

    rows: Sequence[Published]

    def row(self, method: str | None, flags: Mapping[str, Any], best: bool = False) -> Published | None:
        """Return the paper's row for a training, by its method and whatever axis the table varies.

        `best` asks for the best of several runs, where the paper has that beside their mean.
        """
        found = [each for each in self.rows if each.method == method and _fits(each.axes, flags)]
        means = [each for each in found if not each.aggregate.startswith("best")]
        chosen = [each for each in found if each not in means] if best else means
        return next(iter(chosen), None)


def published(name: str) -> Table:
    """Return a table by "2", "section54", or "6/cifar100" where it has several datasets (else the first).

    Raises:
        UsageError: the paper has no such table, or not for that dataset.
    """
    wanted, _, dataset = name.partition("/")
    records = _records()
    names = list(dict.fromkeys(_name(record) for record in records))
    if wanted not in names:
        raise UsageError(f"--paper {name}: no such table; {nearest(wanted, names)}")
    rows = [record for record in records if _name(record) == wanted]
    datasets = list(dict.fromkeys(record["dataset"] for record in rows))
    if (dataset := dataset or datasets[0]) not in datasets:
        known = " and ".join(datasets)
        raise UsageError(f"--paper {name}: that table has {known}; write --paper {wanted}/{datasets[0]}")
    return Table([_published(record) for record in rows if record["dataset"] == dataset])


def _records() -> list[dict[str, Any]]:
    text = (files("bsk.report") / "paper" / "results.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _name(record: Mapping[str, Any]) -> str:
    return str(record["table"]).replace(" ", "").replace(".", "")


def _published(record: Mapping[str, Any]) -> Published:
    axes = {axis: float(Fraction(str(record[axis]))) for axis in AXES if axis in record}
    if "step" in axes:
        axes["step"] /= _STEP_UNIT
    numbers = {key: float(value) for key, value in record.items() if type(value) in (int, float) and key not in AXES}
    return Published(record["method"], axes, numbers, record.get("aggregate", ""))


def _fits(axes: Mapping[str, float], flags: Mapping[str, Any]) -> bool:
    """Return whether flags have the axes' values; the step as a part of the radius."""
    for axis, value in axes.items():
        found = flags.get(axis)
        if not isinstance(found, (int, float)):
            return False
        if axis == "step":
            eps = flags.get("eps")
            if not isinstance(eps, (int, float)) or not eps or abs(found / eps - value) > _SAME_STEP:
                return False
        elif found != value:
            return False
    return True
