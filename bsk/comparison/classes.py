"""Accuracy per class: one row per method, attack and class, from the class counts of evaluation records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bsk.comparison.compare import BETWEEN, Row, facts, remarks
from bsk.comparison.differences import baseline, mismatches
from bsk.comparison.evidence import Evaluation, collect
from bsk.comparison.groups import Group, completed, gather, latest, names
from bsk.comparison.statistics import mean_sd, rough_accuracy_interval
from bsk.comparison.tables import estimates, marks, shared, telling
from bsk.errors import InputError
from bsk.records.located import Located

CLASS = "class"
COLUMNS = (  # FIXED, like those of `compare`: scripts sort by position, so new columns go at the end
    "name", CLASS, "n", "natural", "natural_low", "natural_high", "robust", "robust_low", "robust_high", "seeds",
    "model", "eps", "attack", "dataset", "split", "selected", "note", "corruption", "severity",
)  # fmt: skip
LINE_FACTS = ("dataset", "split", "corruption", "severity", "model", "selected", "eps", "attack")
TEXT = ("method", CLASS, "")  # titles of the columns that are aligned left


def by_class(items: Iterable[Located]) -> tuple[list[Row], list[str]]:
    """Return one row per method, attack and class, with seeds pooled, and the notices for the user.

    `natural` and `robust` are means over seeds of the class's accuracy, with 95 % intervals (Wilson's for one seed).
    `n` is the number of images of the class.

    Raises:
        InputError: a record is invalid, or none has counts per class.
    """
    evidence = collect(items)
    evaluations = completed(evidence)
    usable = [item for item in evaluations if item.by_class]
    if evaluations and not usable:
        where = evaluations[0].where
        raise InputError(f"{where}: has no counts per class; run bsk evaluate again with another --out")
    kept, notices = latest(usable)
    groups = gather(kept)
    notes = [_note(group, groups) for group in groups]
    rows = [row for each in zip(names(groups), groups, notes, strict=True) for row in _rows(*each)]
    lost = len(evaluations) - len(usable)
    left_out = [f"{lost} record(s) without counts per class left out (audits, earlier versions)"] if lost else []
    return rows, [*left_out, *notices]


def _note(group: Group, groups: Sequence[Group]) -> str | None:
    """Return what tells a group's rows from those of the same name: other attack parameters, data, and remarks."""
    return BETWEEN.join([*mismatches(group, baseline(group, groups)), *remarks(group)]) or None


def _rows(name: str, group: Group, note: str | None) -> list[Row]:
    found = []
    shared_facts = {**facts(group), "note": note}
    for label, (_, n) in (group.first.by_class or {}).items():
        row: Row = {**shared_facts, "name": name, CLASS: label, "n": n}
        for kind, members in (("natural", group.natural), ("robust", group.robust)):
            row.update(_accuracy(kind, label, members))
        found.append({column: row.get(column) for column in COLUMNS})
    return found


def _accuracy(kind: str, label: str, members: Sequence[Evaluation]) -> Row:
    counts = [item.by_class[label] for item in members if item.by_class and label in item.by_class]
    if not counts:
        return {}
    accuracies, n = [right / n for right, n in counts], min(n for _, n in counts)
    low, high = rough_accuracy_interval(accuracies, n)
    return {kind: mean_sd(accuracies)[0], f"{kind}_low": low, f"{kind}_high": high}


def caption(rows: Sequence[Row]) -> str:
    """Return the caption: the facts that all rows share, and what the numbers are."""
    return f"{shared(_whole(rows))}; percent with 95 % intervals"


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """Return a header and one line per row, without empty columns."""
    whole = _whole(rows)
    heads = [", ".join(filter(None, [str(row["name"]), telling(row, whole, LINE_FACTS)])) for row in whole]
    columns = {"method": heads, CLASS: [str(row[CLASS]) for row in rows], "n": [str(row["n"]) for row in rows]}
    columns |= {kind: estimates(rows, kind) for kind in ("natural", "robust")} | {"": marks(rows)}
    kept = {title: column for title, column in columns.items() if any(column)}
    return [list(kept), *(list(line) for line in zip(*kept.values(), strict=True))]


def _whole(rows: Sequence[Row]) -> list[Row]:
    """Return the rows without `n`, which counts the images of one class only."""
    return [{**row, "n": None} for row in rows]
