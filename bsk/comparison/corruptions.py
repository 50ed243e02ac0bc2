"""Accuracy by corruption and severity, and the means over them, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bsk.comparison.compare import BETWEEN, Row, pooled_interval, remarks
from bsk.comparison.differences import baseline, mismatches, outcomes
from bsk.comparison.evidence import Evaluation, collect
from bsk.comparison.groups import NATURAL, Group, latest, names, telling_parameters
from bsk.comparison.runs import as_text
from bsk.comparison.statistics import mean_sd, share_interval
from bsk.comparison.tables import FACTS as WORDS
from bsk.comparison.tables import estimates, marks
from bsk.evaluation.intervals import Interval
from bsk.records.located import Located
from bsk.records.words import counted, plain

MEAN = "mean"
# Corruptions of the published sets that are not among the 15 of the benchmark's mean.
# Source: Hendrycks & Dietterich (2019), section 4.
EXTRA = ("gaussian_blur", "saturate", "spatter", "speckle_noise")
BENCHMARK, SEVERITIES = 15, (1, 2, 3, 4, 5)  # of the published sets
# In the caption if they are the same in all rows.
FACTS = ("name", "dataset", "split", "model", "selected", "attack", "eps", "n", "seeds")
TEXT_COLUMNS = {"method", "dataset", "split", "model", "selected", "attack", "corruption", ""}  # aligned left
Cells = Mapping[tuple[str, int], Sequence[Evaluation]]  # by corruption and severity, one evaluation per seed


def by_corruption(items: Iterable[Located]) -> tuple[list[Row], list[str]]:
    """Return one row per method, attack and corruption and one for their mean, and the notices for the user.

    A row has the accuracy at each severity, a mean over seeds, and its mean over severities. The mean over corruptions
    is that of the benchmark's 15; rows for the four other published corruptions come after it. Evaluations of clean
    images are left out.

    `*_low` and `*_high` are 95 % intervals. One corruption at one severity has the interval of `bsk compare` (Wilson's
    for one seed). Several of them share the same images, so the interval of their mean is computed from one value per
    image, the share of them under which it is classified right (`statistics.share_interval`). It is missing if seeds
    have different corruptions or severities, or records lack the outcomes per image.

    Raises:
        InputError: a record is invalid.
    """
    found = [each for each in collect(items).evaluations if each.corruption is not None and each.severity is not None]
    kept, notices = latest(found)
    groups = _groups(kept)
    severities = sorted({item.severity for item in kept if item.severity is not None})
    corruptions = list(dict.fromkeys(str(item.corruption) for item in kept))
    rows: list[Row] = []
    for name, group in zip(names(groups), groups, strict=True):
        table = _cells(group)
        every = [*mismatches(group, baseline(group, groups)), *remarks(group)]
        of_means = _remarks_on_means(table, corruptions, severities)
        for row in _rows(name, group, table, corruptions, severities):
            gaps = [each for each in severities if (str(row["corruption"]), each) not in table]
            lacking = [f"without severity {', '.join(map(str, gaps))}"] if gaps else []
            said = [*every, *(of_means if row["corruption"] == MEAN else lacking)]
            rows.append(row | {"note": BETWEEN.join(said) or None})
    return rows, notices


def _remarks_on_means(table: Cells, corruptions: Sequence[str], severities: Sequence[int]) -> list[str]:
    """Return in what the means of one group are not those of the benchmark, or of the other groups."""
    found, whole, there = [], len(corruptions) * len(severities), len(_benchmark(corruptions))
    if there < BENCHMARK or tuple(severities) != SEVERITIES:
        shown = ", ".join(map(str, severities))
        of_these = counted(there, "corruption")
        found.append(f"means over {of_these} at severities {shown}, not the benchmark's 15 at 1 to 5")
    if missing := whole - len(table):
        found.append(f"{missing} of {whole} corruptions and severities are missing, and the mean leaves them out")
    if len({frozenset(item.run.identity for item in cell) for cell in table.values()}) > 1:
        found.append("some corruptions or severities have other seeds than others, and the mean mixes them")
    return found


def _benchmark(corruptions: Sequence[str]) -> list[str]:
    return [each for each in corruptions if each not in EXTRA] or list(corruptions)


def _groups(evaluations: Sequence[Evaluation]) -> list[Group]:
    """Return the evaluations grouped by training (except for its seed) and attack, whatever the corruption."""
    found: dict[tuple[object, ...], Group] = {}
    for item in evaluations:
        run = replace(item.run, data_sha256=None)
        eps = None if item.attack == NATURAL else item.eps
        key = (run.settings, item.split, item.n, item.attack, eps, as_text(telling_parameters(item)))
        found.setdefault(key, Group()).robust.append(replace(item, run=run))
    return list(found.values())


def _cells(group: Group) -> Cells:
    found: dict[tuple[str, int], list[Evaluation]] = {}
    for item in group.robust:
        found.setdefault((str(item.corruption), item.severity or 0), []).append(item)
    return found


def _rows(name: str, group: Group, table: Cells, corruptions: Sequence[str], severities: Sequence[int]) -> list[Row]:
    first = group.first
    seeds = len({item.run.identity for item in group.robust})
    facts: Row = {"name": name, "model": first.run.model, "attack": first.attack, "eps": first.eps, "seeds": seeds}
    images: Row = {"dataset": first.run.dataset, "split": first.split, "selected": first.run.selected}
    benchmark = _benchmark(corruptions)
    extra = [each for each in corruptions if each not in benchmark]
    lines = [*((each, [each]) for each in benchmark), (MEAN, benchmark), *((each, [each]) for each in extra)]
    rows = []
    for title, averaged in lines:
        columns = {f"severity_{each}": [each] for each in severities} | {MEAN: severities}
        found = {column: _estimate(table, averaged, chosen) for column, chosen in columns.items()}
        row: Row = {**facts, "corruption": title, **{column: mean for column, (mean, _) in found.items()}, "n": first.n}
        for column, (_, interval) in found.items():
            row[f"{column}_low"], row[f"{column}_high"] = interval or (None, None)
        rows.append(row | images)
    return rows


def _estimate(
    table: Cells, corruptions: Sequence[str], severities: Sequence[int]
) -> tuple[float | None, Interval | None]:
    """Return the mean over the given corruptions and severities, of which some may be missing, and its interval."""
    chosen = [table[place] for place in ((c, s) for c in corruptions for s in severities) if place in table]
    if not chosen:
        return None, None
    mean, _ = mean_sd([mean_sd([item.accuracy for item in cell])[0] for cell in chosen])
    return mean, pooled_interval(chosen[0]) if len(chosen) == 1 else _interval_of_mean(chosen)


def _interval_of_mean(chosen: Sequence[Sequence[Evaluation]]) -> Interval | None:
    """Return the interval of a mean over several cells, from each image's share of correct outcomes."""
    ordered = [sorted(cell, key=lambda item: item.run.identity) for cell in chosen]
    if len({tuple(item.run.identity for item in cell) for cell in ordered}) > 1:
        return None
    known = [found for cell in ordered if (found := outcomes(cell)) is not None]
    if len(known) < len(chosen):
        return None
    total = np.zeros(known[0].shape)
    for each in known:
        total += each
    return share_interval(total / len(known))


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """Return a header and one line per row, for people: percent, the means with their intervals."""
    facts = [name for name in FACTS if len({row[name] for row in rows}) > 1]
    head = ["method" if name == "name" else name for name in facts]
    severities = [name for name in rows[0] if name.startswith("severity_") and not name.endswith(("_low", "_high"))]
    numbers = [estimates(rows, name, without=severities) for name in (*severities, MEAN)]
    numbered = marks(rows)
    last = [""] if any(numbered) else []
    lines = [[*head, "corruption", *(name.removeprefix("severity_") for name in severities), MEAN, *last]]
    for row, values, mark in zip(rows, zip(*numbers, strict=True), numbered, strict=True):
        own = ["" if row[name] is None else plain(row[name]) for name in facts]
        lines.append([*own, str(row["corruption"]), *values, *([mark] if last else [])])
    return lines


def caption(rows: Sequence[Row], title: str | None = None) -> str:
    """Return the caption: the facts that all rows share, and what the numbers are."""
    parts = [] if title is None else [f"{title}:"]
    for name in FACTS:
        if len({row[name] for row in rows}) == 1 and rows[0][name] is not None:
            parts.append(f"{WORDS[name](rows[0][name]) if name in WORDS else plain(rows[0][name])},")
    return " ".join([*parts, "accuracy in percent by corruption and severity, and means with 95 % intervals"])
