"""Accuracy against the radius, one line per network and attack, from radius 0 outwards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bsk.comparison.compare import Row, as_float, compare
from bsk.comparison.evidence import Evaluation, collect
from bsk.comparison.groups import NATURAL
from bsk.comparison.tables import remarks_of, shared, telling
from bsk.errors import InputError
from bsk.figures.canvas import colour_and_marker, drawing, fix_layout, legible, ruled, title
from bsk.figures.placement import mark_ends, spread_ends
from bsk.figures.series import radius_labels
from bsk.records.located import Located

# Distinguish lines, together with their name.
LINE_FACTS = ("dataset", "split", "corruption", "severity", "n", "model", "selected", "attack")
# Notices and remarks on several radii, and on steps in proportion to them.
INTENDED = re.compile(r"rows of different eps |eps .+, not |trained at eps |attack step .+, not ")
PARAMETERS = re.compile(r"rows of \S+ with different parameters ")
MOST_TICKS = 12
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def draw_radius(items: Iterable[Located], paths: Sequence[Path], heading: str = "") -> list[str]:
    """Draw the accuracy of evaluations against their radius, with 95 % intervals; return notices.

    Seeds are pooled as by `bsk compare`. A line begins at radius 0 with the natural accuracy if the records have it.
    `heading` is an additional first line of the title. The same records give the same bytes.

    Raises:
        InputError: there is no evaluation under attack, the radii are in several norms, two points of one line have
            the same radius, or a file cannot be written.
    """
    items = list(items)
    norm = _norm([item for item in collect(items).evaluations if item.attack != NATURAL])
    rows, notices = compare(items)
    attacked = [row for row in rows if row["robust"] is not None and row["eps"] is not None]
    lines = _lines(attacked)
    for path in paths:
        with drawing(path, layout="constrained") as figure:
            _draw(figure, lines, norm, heading)
    differ = any(each.startswith("attack ") for each in _remarks(attacked))
    return [each for each in notices if not INTENDED.match(each) and (differ or not PARAMETERS.match(each))]


def _remarks(rows: Sequence[Row]) -> list[str]:
    return [each for each in remarks_of(rows) if not INTENDED.match(each)]


def _norm(evaluations: Sequence[Evaluation]) -> str:
    """Return the norm that all radii are in."""
    if not evaluations:
        raise InputError("plot radius: no evaluation under attack among the records; give what bsk evaluate wrote")
    found: dict[str, str] = {}
    for item in evaluations:
        stages = [each for each in item.parameters.values() if isinstance(each, dict)]
        norms = [str(each["norm"]) for each in (item.parameters, *stages) if "norm" in each]
        found.setdefault(norms[0] if norms else "linf", item.where)
    if len(found) > 1:
        (one, there), (other, here) = list(found.items())[:2]
        raise InputError(f"{here}: a radius in {other}, but in {one} at {there}; draw one figure per norm")
    return next(iter(found))


def _lines(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each line by name, in ascending radius, starting with the natural accuracy if it is known."""
    lines: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: as_float(row["eps"]) or 0.0):
        name = ", ".join(filter(None, [str(row["name"]), telling(row, rows, LINE_FACTS)]))
        line = lines.setdefault(name, [])
        if line and line[-1]["eps"] == row["eps"]:
            raise InputError(f"plot radius: {name} has two records at eps {row['eps']:g}; give those of one attack")
        line.append(row)
    for line in lines.values():
        first = line[0]
        if first["natural"] is not None and first["eps"]:
            ends = {f"robust{end}": first[f"natural{end}"] for end in ("", "_low", "_high")}
            line.insert(0, {**first, **ends, "eps": 0.0})
    return {name: lines[name] for name in dict.fromkeys(_in_order(lines, rows))}


def _in_order(lines: dict[str, list[Row]], rows: Sequence[Row]) -> list[str]:
    """Return the names of the lines in the order of first appearance of their rows, not of their radii."""
    place = {id(row): number for number, row in enumerate(rows)}
    return sorted(lines, key=lambda name: min(place.get(id(row), len(rows)) for row in lines[name]))


def _draw(figure: Any, lines: dict[str, list[Row]], norm: str, heading: str) -> None:
    figure.set_size_inches(7, 4.2)
    rows = [row for line in lines.values() for row in line]
    title(
        figure, heading, f"{shared([{**row, 'eps': None} for row in rows])}; bars are 95 % intervals", *_remarks(rows)
    )
    axes = figure.add_subplot()
    ruled(axes)
    axes.set_ylabel("accuracy, %")
    axes.set_xlabel(f"radius in {NORMS[norm]}, pixels of [0, 1]")
    radii = sorted({float(row["eps"] or 0.0) for row in rows})
    if len(radii) <= MOST_TICKS:
        axes.set_xticks(radii, radius_labels(radii))
    for place, line in enumerate(lines.values()):
        _plot(axes, place, line)
    ends = [
        (legible(name), float(line[-1]["eps"] or 0.0), _percent(line[-1]["robust"])) for name, line in lines.items()
    ]
    labels = mark_ends(axes, ends)
    axes.set_ylim(bottom=0)
    fix_layout(figure)
    spread_ends(labels)


def _plot(axes: Any, place: int, line: Sequence[Row]) -> None:
    colour, marker = colour_and_marker(place)
    x, y = [as_float(row["eps"]) for row in line], [_percent(row["robust"]) for row in line]
    ends = [
        [abs(here - (here if row[end] is None else _percent(row[end]))) for row, here in zip(line, y, strict=True)]
        for end in ("robust_low", "robust_high")
    ]
    style = {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.5}
    axes.errorbar(x, y, ends, color=colour, marker=marker, linewidth=1.5, elinewidth=0.9, capsize=2, **style)


def _percent(value: Any) -> float:
    return 100 * (as_float(value) or 0.0)
