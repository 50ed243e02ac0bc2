"""Box plots of robust accuracy over seeds, one box per value of a flag, as in Figures 1, 2 and 5."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bsk.comparison.compare import Row, facts, remarks
from bsk.comparison.differences import mismatches
from bsk.comparison.evidence import Evaluation, collect
from bsk.comparison.groups import NATURAL, Group, latest, short_name
from bsk.comparison.statistics import mean_sd
from bsk.comparison.tables import FACTS, shared, telling
from bsk.errors import InputError
from bsk.figures.canvas import INK, colour_and_marker, drawing, legible, ruled, title
from bsk.figures.series import Series, confounded, numeric, series
from bsk.records.located import Located
from bsk.records.words import counted

# One panel for each combination.
PANEL_FACTS = ("dataset", "split", "corruption", "severity", "n", "model", "selected", "eps", "attack")
LEGEND = "box: quartiles and median; whiskers: minimum and maximum; dashed line and number: mean ± sd over seeds"
NEAR = 0.025  # fraction of the axis height: dots closer than this are drawn side by side
ASIDE = 0.09  # horizontal distance of such dots, where 1 is the distance of two boxes


def draw_boxes(items: Iterable[Located], by: str, paths: Sequence[Path], heading: str = "") -> list[str]:
    """Draw the robust accuracy of all evaluations under attack, one box per value of the flag `by`; return notices.

    Every seed is a dot. Boxes are sorted by their values if those are numbers. Each attack, radius, model and data has
    its own panel. `heading` is an additional first line of the title. The same records give the same bytes.

    Raises:
        InputError: there is no such evaluation, one lacks the flag or differs from another of its box in more than
            the seed, or a file cannot be written.
    """
    found = [item for item in collect(items).evaluations if item.attack != NATURAL]
    if not found:
        raise InputError("plot boxes: no evaluation under attack among the records; give what bsk evaluate wrote")
    kept, notices = latest(found)
    panels = _panels(kept, by)
    for path in paths:
        with drawing(path, layout="constrained") as figure:
            _draw(figure, panels, by, heading)
    return notices + [said for groups in panels.values() for said in (*confounded(groups, by), *_unlike(groups, by))]


def _unlike(groups: Sequence[Series[Evaluation]], by: str) -> list[str]:
    """Return a notice for each reason why the boxes of a panel cannot be compared, apart from the flag `by`."""
    first = Group(groups[0].members[:1])
    reasons = ((each.label, reason) for each in groups for reason in mismatches(Group(each.members[:1]), first))
    intended = "epoch " if by == "selected" else f"{by} "
    return [f"{label}: {reason} as {groups[0].label}" for label, reason in reasons if not reason.startswith(intended)]


def _panels(items: Sequence[Evaluation], by: str) -> dict[str, list[Series[Evaluation]]]:
    parts: dict[str, list[Evaluation]] = {}
    for item in items:
        facts_of_panel = [value for fact, value in _facts(item).items() if fact in PANEL_FACTS and fact != by]
        parts.setdefault(json.dumps(facts_of_panel), []).append(item)
    panels = {key: series(part, by) for key, part in parts.items()}
    for group in (group for groups in panels.values() for group in groups):
        first = group.members[0]
        for member in group.members[1:]:
            for reason in mismatches(Group([member]), Group([first])):
                raise InputError(f"{member.where}: {reason} as in {first.where}; give records of one attack and data")
    return panels


def _facts(item: Evaluation) -> Row:
    return {**facts(Group([item])), "seeds": None}


def _draw(figure: Any, panels: dict[str, list[Series[Evaluation]]], by: str, heading: str) -> None:
    widest = max(len(groups) for groups in panels.values())
    across = min(2, len(panels)) if widest <= 6 else 1
    down = -(-len(panels) // across)
    figure.set_size_inches(max(4.8, 1.4 + 0.95 * widest) * across, 0.6 + 3.6 * down)
    rows = [_facts(member) for groups in panels.values() for group in groups for member in group.members]
    members = [member for groups in panels.values() for group in groups for member in group.members]
    said = dict.fromkeys(remark for member in members for remark in remarks(Group([member])))
    title(figure, heading, f"{_headline(panels, by)}{shared(rows)}", LEGEND, *said)
    for place, groups in enumerate(panels.values(), 1):
        axes = figure.add_subplot(down, across, place, sharey=figure.axes[0] if figure.axes else None)
        heading_of_panel = telling(_facts(groups[0].members[0]), rows, FACTS.keys() - {by})
        axes.set_title(legible(heading_of_panel), loc="left", fontsize=9)
        _frame(axes, groups, by)
        _boxes(axes, groups)
    figure.draw_without_rendering()  # fixes the axis limits, which decide which dots are drawn side by side
    for axes, groups in zip(figure.axes, panels.values(), strict=True):
        _points(axes, groups)


def _headline(panels: dict[str, list[Series[Evaluation]]], by: str) -> str:
    names = {short_name(m.run) for groups in panels.values() for group in groups for m in group.members}
    return f"{names.pop()}: " if len(names) == 1 and by != "method" else ""


def _frame(axes: Any, groups: Sequence[Series[Evaluation]], by: str) -> None:
    ruled(axes)
    labels = [legible(group.label) for group in groups]
    seeds = [counted(len(group.members), "seed") for group in groups]
    axes.set_xticks(range(len(groups)), [f"{label}\n{n}" for label, n in zip(labels, seeds, strict=True)])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_xlabel(legible(by))
    axes.set_ylabel("robust accuracy, %")


def _boxes(axes: Any, groups: Sequence[Series[Evaluation]]) -> None:
    thin = {"color": INK, "linewidth": 0.9}
    values = [[100 * member.accuracy for member in group.members] for group in groups]
    axes.boxplot(
        values,
        positions=range(len(groups)),
        widths=0.5,
        whis=(0, 100),
        showfliers=False,
        showmeans=True,
        meanline=True,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": "#eeeeee", "edgecolor": INK, "linewidth": 0.9},
        medianprops={"color": INK, "linewidth": 2},
        whiskerprops=thin,
        capprops=thin,
        meanprops={**thin, "linestyle": (0, (3, 2))},
    )
    for place, each in enumerate(values):
        mean, sd = mean_sd(each)
        text = f"{mean:.1f}" if sd is None else f"{mean:.1f} ± {sd:.1f}"
        axes.annotate(text, (place, max(each)), (0, 7), textcoords="offset points", ha="center", fontsize=8, color=INK)
    axes.margins(y=0.12)


def _points(axes: Any, groups: Sequence[Series[Evaluation]]) -> None:
    low, high = axes.get_ylim()
    one_colour = numeric([group.value for group in groups])  # values on a scale, not different categories
    style = {"markersize": 4.5, "markeredgecolor": "white", "markeredgewidth": 0.5, "linestyle": "none", "zorder": 4}
    for place, group in enumerate(groups):
        colour, marker = colour_and_marker(0 if one_colour else place)
        values = [100 * member.accuracy for member in group.members]
        x = [place + ASIDE * shift for shift in swarm(values, NEAR * (high - low))]
        axes.plot(x, values, marker=marker, color=colour, **style)


def swarm(values: Sequence[float], near: float) -> list[int]:
    """Return a horizontal shift for each value, such that no two values with the same shift are closer than `near`."""
    shifts: dict[int, int] = {}
    for index in sorted(range(len(values)), key=lambda i: values[i]):
        taken = {shift for other, shift in shifts.items() if abs(values[other] - values[index]) < near}
        shifts[index] = next(shift for step in range(len(values) + 1) for shift in (step, -step) if shift not in taken)
    return [shifts[index] for index in range(len(values))]
