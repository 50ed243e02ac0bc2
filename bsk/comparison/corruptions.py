"""Accuracy by corruption and severity, and the means over them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bsk.comparison.compare import Row, Value, as_float
from bsk.comparison.evidence import Evaluation, collect
from bsk.comparison.groups import NATURAL, Group, latest, names, without_seed
from bsk.comparison.runs import as_text
from bsk.comparison.statistics import mean_sd
from bsk.records.located import Located
from bsk.records.words import counted, percent, plain

MEAN = "mean"
# of the published sets, beside the 15 that the benchmark's mean is of; Source: Hendrycks & Dietterich (2019), section 4
EXTRA = ("gaussian_blur", "saturate", "spatter", "speckle_noise")
FACTS = ("name", "model", "attack", "eps", "n", "seeds")  # stand in the caption where they are the same in all rows
TEXT_COLUMNS = {"method", "model", "attack", "corruption"}  # aligned left


def by_corruption(items: Iterable[Located]) -> tuple[list[Row], list[str]]:
    """Return a row for each method, attack and corruption, and one for the mean, and what must be said.

    A row has the accuracy under each severity, the mean over seeds, and the mean over severities. The mean over
    corruptions is that of the benchmark's 15, and the four more of the published sets come after it. Evaluations of
    images that are not corrupted have no part in it.

    Raises:
        InputError: a record is not what it should be.
    """
    found = [each for each in collect(items).evaluations if each.corruption is not None and each.severity is not None]
    kept, notices = latest(found)
    groups = _groups(kept)
    severities = sorted({item.severity for item in kept if item.severity is not None})
    corruptions = list(dict.fromkeys(str(item.corruption) for item in kept))
    rows: list[Row] = []
    for name, group in zip(names(groups), groups, strict=True):
        table = _table(group, corruptions, severities)
        rows += _rows(name, group, table, severities)
        if missing := sum(value is None for line in table.values() for value in line):
            whole = len(corruptions) * len(severities)
            notices.append(f"{name}: {missing} of {whole} corruptions and severities are missing; means leave them out")
    return rows, notices


def _groups(evaluations: Sequence[Evaluation]) -> list[Group]:
    """Return the evaluations of one training, but for its seed, under one attack, on whatever images."""
    found: dict[tuple[object, ...], Group] = {}
    for item in evaluations:
        run = replace(item.run, data_sha256=None)
        eps = None if item.attack == NATURAL else item.eps
        key = (run.settings, item.split, item.n, item.attack, eps, as_text(without_seed(item.parameters)))
        found.setdefault(key, Group()).robust.append(replace(item, run=run))
    return list(found.values())


def _table(group: Group, corruptions: Sequence[str], severities: Sequence[int]) -> dict[str, list[float | None]]:
    """Return for each corruption the accuracy under each severity, the mean over seeds."""
    cells: dict[tuple[str | None, int | None], list[float]] = {}
    for item in group.robust:
        cells.setdefault((item.corruption, item.severity), []).append(item.accuracy)
    means = {place: mean_sd(values)[0] for place, values in cells.items()}
    return {corruption: [means.get((corruption, each)) for each in severities] for corruption in corruptions}


def _rows(name: str, group: Group, table: dict[str, list[float | None]], severities: Sequence[int]) -> list[Row]:
    first = group.first
    seeds = len({item.run.identity for item in group.robust})
    facts: Row = {"name": name, "model": first.run.model, "attack": first.attack, "eps": first.eps, "seeds": seeds}
    counted_in = {each: line for each, line in table.items() if each not in EXTRA} or table
    every = [value for line in counted_in.values() for value in line]
    columns = [_mean(list(column)) for column in zip(*counted_in.values(), strict=True)]
    titles = [f"severity_{each}" for each in severities]
    lines = [(corruption, line, _mean(line)) for corruption, line in counted_in.items()]
    beside = [(corruption, line, _mean(line)) for corruption, line in table.items() if corruption not in counted_in]
    return [
        {**facts, "corruption": what, **dict(zip(titles, line, strict=True)), MEAN: mean, "n": first.n}
        for what, line, mean in [*lines, (MEAN, columns, _mean(every)), *beside]
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean_sd(known)[0] if known else None


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """Return what people want of it, under a header: percent, and of what rows share nothing."""
    facts = [name for name in FACTS if len({row[name] for row in rows}) > 1]
    head = ["method" if name == "name" else name for name in facts]
    numbers = [name for name in rows[0] if name.startswith("severity_") or name == MEAN]
    lines = [[*head, "corruption", *(name.removeprefix("severity_") for name in numbers)]]
    for row in rows:
        told = ["" if row[name] is None else plain(row[name]) for name in facts]
        lines.append([*told, str(row["corruption"]), *(_percent(row[name]) for name in numbers)])
    return lines


def _percent(value: Value) -> str:
    number = as_float(value)
    return "" if number is None else percent(number)


def caption(rows: Sequence[Row], title: str | None = None) -> str:
    """Return what all rows share, and what the numbers are."""
    told = [] if title is None else [f"{title}:"]
    for name in FACTS:
        if len({row[name] for row in rows}) == 1 and rows[0][name] is not None:
            value = rows[0][name]
            seeds = counted(int(as_float(value) or 0), "seed")
            told.append(f"{seeds if name == 'seeds' else f'n {value}' if name == 'n' else plain(value)},")
    return " ".join([*told, "accuracy in percent by corruption and severity, and means over them"])
