"""Fields of training logs against the epoch, one line per method and field, as in Figure 3."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bsk.comparison.evidence import TrainingLog, collect
from bsk.comparison.groups import interruption, short_name
from bsk.errors import InputError, UsageError, nearest
from bsk.figures.canvas import colour_and_marker, drawing, fix_layout, legible, logarithmic, ruled, title
from bsk.figures.placement import mark_ends, spread_ends
from bsk.figures.series import Series, confounded, series
from bsk.records.fields import Amount, Count
from bsk.records.located import Located, value_of
from bsk.records.words import plain

DIVERGENCES = {"kl_start": "after the start", "kl_ascent": "after the ascent"}
ACCURACIES = {
    "val_natural": "natural on val",
    "val_robust": "PGD-20 on val",
    "test_natural": "natural on test",
    "test_robust": "PGD-20 on test",
    "monitor_fgsm": "FGSM",
    "monitor_pgd": "PGD-10",
}
MONITORED = "monitor_"  # prefix of fields that only some epochs have
LABELS = {**DIVERGENCES, **ACCURACIES}  # of fields, in a figure
MOST_FIELDS = 6  # in one figure
STYLES = ("-", "--", ":", "-.", (0, (8, 2)), (0, (1, 4)))  # of the fields of one panel, in their order
MARKED = 8  # approximate number of markers on a line


@dataclass(frozen=True)
class Line:
    """One field of one series: its mean, minimum and maximum over seeds at each epoch."""

    name: str
    field: str
    group: int
    epochs: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


def draw_curves(
    items: Iterable[Located],
    by: str,
    fields: Sequence[str],
    paths: Sequence[Path],
    heading: str = "",
    *,
    log: bool = False,
) -> list[str]:
    """Draw fields of training logs against the epoch, one line per field and value of the flag `by`; return notices.

    A line is the mean over seeds at the epochs that all seeds have; its band reaches from their minimum to their
    maximum. Fields of different units have their own panel. `heading` is an additional first line of the title. The
    same records give the same bytes.

    Raises:
        InputError: there is no log, an epoch lacks a field, logs of one line differ in more than the seed, or a file
            cannot be written.
        UsageError: there are more than MOST_FIELDS fields, or the scale is logarithmic and no value is above 0.
    """
    if len(fields) > MOST_FIELDS or len(set(fields)) < len(fields):
        raise UsageError(f"--y {','.join(fields)}: expected at most {MOST_FIELDS} different fields; draw two figures")
    logs = _without_copies([training for training in collect(items).trainings if training.log])
    if not logs:
        raise InputError("plot curves: no epochs among the records; give logs of bsk train, F.jsonl for F.safetensors")
    groups = series(logs, by)
    lines = [_line(group, place, field, by) for place, group in enumerate(groups) for field in fields]
    flat = [line for line in lines if log and max(line.mean) <= 0]
    drawn = [line for line in lines if line not in flat]
    if not drawn:
        raise UsageError("plot curves: no value is above 0, as a logarithmic scale requires; leave out --log")
    for path in paths:
        with drawing(path, layout="constrained") as figure:
            _draw(figure, drawn, (heading, _headline(logs, groups, fields, by)), log)
    notices = [f"{each.run.checkpoint}: {interruption(each)}; drawn up to there" for each in logs if not each.finished]
    notices += [f"{line.name}: {line.field} is always 0, so a logarithmic scale cannot show it" for line in flat]
    return notices + confounded(groups, by)


def _without_copies(logs: Sequence[TrainingLog]) -> list[TrainingLog]:
    """Return the logs but those whose epochs are all in another one, which would count as seeds of their own."""
    found: dict[str, list[tuple[TrainingLog, dict[int, Any]]]] = {}
    for log in sorted(logs, key=lambda log: -len(log.log)):  # the longest first, copies after what they are copies of
        records = {epoch: item.record for epoch, item in log.log.items()}
        rivals = found.setdefault(log.run.identity, [])
        if not any(records.items() <= whole.items() for _, whole in rivals):
            rivals.append((log, records))
    kept = {id(log) for rivals in found.values() for log, _ in rivals}
    return [log for log in logs if id(log) in kept]


def _line(group: Series[TrainingLog], place: int, field: str, by: str) -> Line:
    scale = 100 if field in ACCURACIES else 1
    epochs = sorted(set.intersection(*(_epochs(each, field) for each in group.members)))
    if not epochs:
        raise InputError(
            f"{group.members[0].where}: the seeds of {group.label} have no epoch in common; give whole logs"
        )
    rows = [[scale * _number(each.log[epoch], field) for each in group.members] for epoch in epochs]
    name = group.label if by == "method" else f"{by} {group.label}"
    ends = [min(row) for row in rows], [max(row) for row in rows]
    return Line(name, field, place, epochs, [sum(row) / len(row) for row in rows], *ends)


def _epochs(training: TrainingLog, field: str) -> set[int]:
    """Return the epochs that must have a field: all, or for fields of the monitor those that have it."""
    known = {epoch for epoch, item in training.log.items() if field in item.record}
    return known if known and field.startswith(MONITORED) else set(training.log)


def _number(item: Located, field: str) -> float:
    if field == "passes":  # forward plus backward
        return sum(_number(item, f"{way}_passes") for way in ("forward", "backward"))
    value: float | None = value_of(item, field, Amount | None)
    if value is None:
        known = [key for key, value in item.record.items() if isinstance(value, (int, float)) and key != "epoch"]
        advice = "train with --log-divergence" if field in DIVERGENCES else nearest(field, known)
        raise InputError(f"{item.where}: an epoch without {field}; {advice}")
    return value


def _unit(field: str) -> str:
    return "KL" if field in DIVERGENCES else "accuracy" if field in ACCURACIES else field


def _axis(fields: Sequence[str]) -> str:
    """Return the axis label for fields of one unit."""
    only = f" {LABELS.get(fields[0])}" if len(fields) == 1 else ""
    units = {"KL": f"KL divergence{only} from the clean output, nats", "accuracy": f"accuracy{only}, %"}
    return units.get(_unit(fields[0]), fields[0])


def _headline(
    logs: Sequence[TrainingLog], groups: Sequence[Series[TrainingLog]], fields: Sequence[str], by: str
) -> str:
    """Return the facts that all lines share, with the numbers of seeds and images."""
    runs = [each.run for each in logs]
    facts: dict[str, list[str]] = {
        "method": [short_name(run) for run in runs],
        "dataset": [plain(run.dataset) for run in runs],
        "model": [plain(run.model) for run in runs],
        "eps": [f"eps {plain(run.eps)}" for run in runs],
    }
    parts = [values[0] for name, values in facts.items() if len(set(values)) == 1 and by != name]
    seeds = sorted({len(group.members) for group in groups})
    parts.append(f"{'-'.join(map(str, sorted({seeds[0], seeds[-1]})))} seed{'s' if seeds[-1] > 1 else ''}")
    kl_sizes = {value_of(item, "kl_n", Count | None) for each in logs for item in each.log.values()}
    if len(kl_sizes) == 1 and any(field in DIVERGENCES for field in fields):
        parts.append(f"KL on {kl_sizes.pop()} val images")
    val = {each.val_n for each in logs} - {None}
    if len(val) == 1 and any(field.startswith("val_") for field in fields):
        parts.append(f"{val.pop()} val images")
    band = "; mean over seeds, band from minimum to maximum" if seeds[-1] > 1 else ""
    return ", ".join(parts) + band


def _draw(figure: Any, lines: Sequence[Line], texts: Sequence[str], log: bool) -> None:
    units = list(dict.fromkeys(_unit(line.field) for line in lines))
    figure.set_size_inches(7, 0.6 + 3.6 * len(units))
    title(figure, *texts)
    labels = []
    for place, unit in enumerate(units, 1):
        axes = figure.add_subplot(len(units), 1, place, sharex=figure.axes[0] if figure.axes else None)
        drawn = [line for line in lines if _unit(line.field) == unit]
        fields = list(dict.fromkeys(line.field for line in drawn))
        _frame(axes, _axis(fields), log)
        for line in drawn:
            _plot(axes, line, STYLES[fields.index(line.field)])
        names = [line.name if len(fields) == 1 else f"{line.name}, {LABELS[line.field]}" for line in drawn]
        ends = [(line.epochs[-1], line.mean[-1]) for line in drawn]
        labels.append(mark_ends(axes, [(legible(text), *end) for text, end in zip(names, ends, strict=True)]))
    figure.axes[-1].set_xlabel("epoch")
    fix_layout(figure)
    for each in labels:
        spread_ends(each)


def _frame(axes: Any, label: str, log: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    ruled(axes)
    axes.set_ylabel(legible(label))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if log:
        axes.set_yscale("log", nonpositive="mask")
        logarithmic(axes.yaxis, "{:g}".format)


def _plot(axes: Any, line: Line, style: str | tuple[int, tuple[int, int]]) -> None:
    colour, marker = colour_and_marker(line.group)
    drawn = {"color": colour, "linestyle": style, "linewidth": 1.5, "marker": marker, "markersize": 5}
    every = max(1, len(line.epochs) // MARKED)
    axes.plot(line.epochs, line.mean, markevery=every, markeredgecolor="white", markeredgewidth=0.5, **drawn)
    if line.low != line.high:
        axes.fill_between(line.epochs, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
