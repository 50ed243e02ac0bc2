"""The paper's numbers, for comparison with ours: one record per row of its tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from typing import Any

from bsk.contract.parameters import resolve
from bsk.errors import UsageError, nearest
from bsk.methods import registry
from bsk.perturb.radius import PAPER_EPS

AXES = ("gamma", "beta", "step")  # the parameters that the paper's ablations vary
_STEP_UNIT = 8 / 255  # the radius that the paper's step sizes refer to
_SAME_STEP = 0.03  # tolerance of step / eps: 0.031 is not quite 8/255, and neighbouring steps are 0.125 apart
_COLUMNS = {
    "autoattack": "robust_autoattack",
    "autoattack-audit": "robust_autoattack",
    "rays": "robust_rays",
}  # the columns of table 5; the other tables have `robust`


@dataclass(frozen=True)
class Published:
    """One row of a table of the paper, accuracies in percent as printed; `source` unless they are its own."""

    method: str
    dataset: str
    axes: Mapping[str, float]
    numbers: Mapping[str, float]
    attack: str | None
    aggregate: str = ""
    source: str = ""

    def fraction(self, column: str) -> float | None:
        """Return a column as a fraction, None if the paper does not have it."""
        percent = self.numbers.get(column)
        return None if percent is None else round(percent / 100, 6)

    def robust(self, attack: str | None) -> float | None:
        """Return the accuracy under that attack as a fraction, None if the paper used another attack."""
        if attack in _COLUMNS:
            return self.fraction(_COLUMNS[attack])
        return self.fraction("robust") if attack == self.attack else None


@dataclass(frozen=True)
class Table:
    """The rows of one table of the paper, in its order; `dataset` is set if one was asked for."""

    name: str
    rows: Sequence[Published]
    dataset: str | None = None

    def fitting(self, method: str | None, flags: Mapping[str, Any], dataset: str | None = None) -> list[Published]:
        """Return the paper's rows for a training, matched by method, dataset and hyper-parameters.

        If the table does not have the training's dataset, the table's first dataset is used. There are two rows if the
        paper has both the mean and the best of several runs.
        """
        datasets = [each.dataset for each in self.rows]
        wanted = self.dataset or (dataset if dataset in datasets else datasets[0])
        return [each for each in self.rows if (each.method, each.dataset) == (method, wanted) and _fits(each, flags)]


def published(name: str) -> Table:
    """Return the table called "2" or "section54", or with "6/cifar100" the rows of one dataset.

    Raises:
        UsageError: the paper has no such table, or not for that dataset.
    """
    wanted, _, dataset = name.removeprefix("table").partition("/")
    text = (files("bsk.comparison") / "paper" / "results.jsonl").read_text(encoding="utf-8")
    records: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    names = list(dict.fromkeys(_name(record) for record in records))
    if wanted not in names:
        raise UsageError(f"--paper {name}: no such table; {nearest(wanted, names)}")
    rows = [_published(record) for record in records if _name(record) == wanted]
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    if dataset and dataset not in datasets:
        known = " and ".join(datasets)
        raise UsageError(f"--paper {name}: that table has {known}; write --paper {wanted}/{datasets[0]}")
    return Table(wanted, rows, dataset or None)


def _name(record: Mapping[str, Any]) -> str:
    return str(record["table"]).replace(" ", "").replace(".", "")


def _published(record: Mapping[str, Any]) -> Published:
    axes = {axis: float(Fraction(str(record[axis]))) for axis in AXES if axis in record}
    if "step" in axes:
        axes["step"] /= _STEP_UNIT
    numbers = {key: float(value) for key, value in record.items() if type(value) in (int, float) and key not in AXES}
    words = (record.get("attack"), record.get("aggregate", ""), record.get("source", ""))
    return Published(record["method"], record["dataset"], axes, numbers, *words)


def _fits(row: Published, flags: Mapping[str, Any]) -> bool:
    """Return whether a training has the row's parameters and its method's defaults for the others, and no AWP.

    Steps are compared relative to eps. Parameters that a training does not name count as the defaults.
    """
    eps = flags.get("eps")
    radius = float(eps) if isinstance(eps, (int, float)) and eps > 0 else PAPER_EPS
    usual = resolve(row.method, registry.parameters(row.method), radius, {})
    for name, value in {**usual, **row.axes}.items():
        found = flags.get(name)
        earlier = isinstance(found, bool) and not isinstance(value, bool)  # a switch in an earlier version
        if (found is None or earlier) and name not in row.axes:
            continue
        if name == "step":
            wanted = value if name in row.axes else value / radius
            if not isinstance(found, (int, float)) or eps is None or abs(found / radius - wanted) > _SAME_STEP:
                return False
        elif found != value:
            return False
    return not flags.get("awp")
