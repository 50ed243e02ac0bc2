"""Accuracy against the cost of training, in a figure that is also readable in grey and for the colour-blind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bsk.comparison.compare import Row, Value, as_float
from bsk.comparison.tables import remarks_of, shared, telling
from bsk.errors import UsageError
from bsk.figures.canvas import QUIET, checked_picture, colour_and_marker, drawing, fix_layout, logarithmic, ruled, title
from bsk.figures.placement import label_markers, side_by_side
from bsk.records.words import duration, many

CROWD = 16  # with more rows than this, only those of the frontier have their names beside them
PANEL_FACTS = (
    "dataset",
    "split",
    "corruption",
    "severity",
    "n",
    "eps",
    "attack",
)  # rows that differ in one of these are in different panels


@dataclass(frozen=True)
class Cost:
    """A measure of training cost for the x axis: its label and the columns to sum."""

    label: str
    columns: tuple[str, ...]

    def of(self, row: Row) -> float:
        """Return the sum of the columns, 0 unless all are known."""
        found = [value for column in self.columns if (value := as_float(row[column])) is not None]
        return sum(found) if len(found) == len(self.columns) else 0.0

    def tick(self, value: float) -> str:
        """Return a value as the text of a tick."""
        return many(value) if len(self.columns) > 1 else duration(value).replace(".0 ", " ")


PASSES = Cost("training cost: images passed forward and backward", ("train_forward_passes", "train_backward_passes"))
SECONDS = Cost("training time", ("train_seconds",))


def accuracy_against_cost(rows: Sequence[Row], path: Path) -> list[str]:
    """Draw robust (filled) and natural (hollow) accuracy against training cost; return notices of rows left out.

    The cost is in passes or in seconds, whichever more rows have (passes on a tie); its axis is logarithmic if it
    spans more than a factor of 5. Bars are the 95 % intervals of the rows. Each attack, eps and data has its own
    panel. If the rows have `pareto`, a step line connects the Pareto-optimal ones. The same rows give the same bytes.

    Raises:
        UsageError: neither .png nor .svg, or no row has an accuracy and a cost.
        InputError: the file cannot be written.
    """
    checked_picture(path, "--plot")
    cost = max((PASSES, SECONDS), key=lambda each: len(_drawable(rows, each)))
    drawn = _drawable(rows, cost)
    if not drawn:
        raise UsageError(
            f"--plot {path}: no row has both an accuracy and a training cost; evaluate a network that bsk train made"
        )
    with drawing(path, layout="constrained") as figure:
        _draw(figure, drawn, cost)
    left_out = len(rows) - len(drawn)
    return [f"{path}: {left_out} row(s) without accuracy or training cost are not in the figure"] if left_out else []


def _drawable(rows: Sequence[Row], cost: Cost) -> list[Row]:
    return [row for row in rows if cost.of(row) > 0 and (row["robust"] is not None or row["natural"] is not None)]


def _draw(figure: Any, rows: Sequence[Row], cost: Cost) -> None:
    panels: dict[str, list[Row]] = {}
    for row in rows:
        panels.setdefault(telling(row, rows, PANEL_FACTS), []).append(row)
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    crowded = len(rows) > CROWD and any(row["pareto"] is not None for row in rows)
    figure.set_size_inches(10.5 if crowded or across > 1 else 7, (6.0 if crowded else 4.6) if down == 1 else 4.2 * down)
    named = f"{rows[0]['title']}: " if rows[0].get("title") else ""
    title(figure, f"{named}{shared(rows)}; bars are 95 % intervals", *remarks_of(rows))
    names = {
        id(row): " ".join(filter(None, [str(row["name"]), telling(row, rows, ("model", "selected"))])) for row in rows
    }
    groups = {key: name.split()[0] if crowded else name for key, name in names.items()}
    order = list(dict.fromkeys(groups.values()))
    labels = []
    for place, (heading, panel) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(down, across, place, sharey=figure.axes[0] if figure.axes else None)
        _frame(axes, heading, panel, cost)
        _frontier(axes, panel, cost)
        points = _points(axes, panel, cost, [order.index(groups[id(row)]) for row in panel])
        labelled = [index for index, row in enumerate(panel) if row["pareto"] or not crowded]
        labels.append((axes, [names[id(panel[index])] for index in labelled], [points[index] for index in labelled]))
        if crowded:
            _legend(axes, order)
    _limit_heights(figure.axes[0], rows)
    fix_layout(figure)
    for axes, texts, points in labels:
        label_markers(axes, texts, points)


def _legend(axes: Any, order: Sequence[str]) -> None:
    """Draw a legend of all names, for panels in which only the rows of the frontier are labelled."""
    for number, name in enumerate(order):
        colour, marker = colour_and_marker(number)
        axes.plot([], [], color=colour, marker=marker, linestyle="none", label=name)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8.5)


def _frame(axes: Any, heading: str, rows: Sequence[Row], cost: Cost) -> None:
    axes.set_title(heading, loc="left", fontsize=9)
    ruled(axes)
    if axes.get_subplotspec().is_first_col():
        attack = next((f"under {row['attack']}" for row in rows if row["attack"] and not heading), "under attack")
        axes.set_ylabel(f"accuracy, %  (filled: {attack}, hollow: natural)")
    low, high = min(map(cost.of, rows)), max(map(cost.of, rows))
    axes.set_xlabel(cost.label + (" (logarithmic)" if high > 5 * low else ""))
    if high > 5 * low:
        axes.set_xscale("log")
        logarithmic(axes.xaxis, cost.tick)
        axes.set_xlim(low / (high / low) ** 0.1, high * (high / low) ** 0.2)  # room for the last label
    else:
        spread = high - low or high
        axes.set_xlim(max(0.0, low - 0.15 * spread), high + 0.3 * spread)
        axes.xaxis.set_major_formatter(lambda value, _: cost.tick(value))


def _frontier(axes: Any, rows: Sequence[Row], cost: Cost) -> None:
    """Draw a step line through the Pareto-optimal rows: the best robust accuracy for each cost."""
    best = sorted((cost.of(row), _percent(row["robust"]) or 0.0) for row in rows if row["pareto"])
    heights = [height for _, height in best]
    if best and heights == sorted(heights):  # else they come from several sets of comparable rows: no common line
        best.append((axes.get_xlim()[1], best[-1][1]))
        axes.step(*zip(*best, strict=True), where="post", color=QUIET, linewidth=0.8, linestyle=":", zorder=0)


def _limit_heights(axes: Any, rows: Sequence[Row]) -> None:
    columns = [f"{kind}{end}" for kind in ("robust", "natural") for end in ("", "_low", "_high")]
    ends = [_percent(row[column]) for row in rows for column in columns]
    known = [value for value in ends if value is not None]
    margin = max(2.0, 0.06 * (max(known) - min(known)))
    axes.set_ylim(max(-2.0, min(known) - margin), min(102.0, max(known) + margin))


def _points(axes: Any, rows: Sequence[Row], cost: Cost, numbers: Sequence[int]) -> list[list[Any]]:
    """Draw each row, rows of nearly the same cost side by side; return the error bars of each, robust ones last."""
    from matplotlib.transforms import ScaledTranslation

    found = []
    shifts = side_by_side([cost.of(row) for row in rows])
    for row, shift, number in zip(rows, shifts, numbers, strict=True):
        moved = axes.transData + ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
        colour, marker = colour_and_marker(number)
        style = {"color": colour, "marker": marker, "markersize": 7, "markeredgewidth": 1.3, "transform": moved}
        artists = []
        for kind, face in (("natural", "white"), ("robust", colour)):
            y, low, high = (_percent(row[f"{kind}{end}"]) for end in ("", "_low", "_high"))
            if y is None:
                continue
            bar = {"elinewidth": 1.1, "capsize": 2.5, "linestyle": "none", "clip_on": False}
            below, above = (0.0 if end is None else abs(end - y) for end in (low, high))
            drawn = axes.errorbar(cost.of(row), y, [[below], [above]], markerfacecolor=face, **style, **bar)
            artists.append(drawn)
        found.append(artists)
    return found


def _percent(value: Value) -> float | None:
    fraction = as_float(value)
    return None if fraction is None else 100 * fraction
