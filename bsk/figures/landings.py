"""Where starts land in output space: Figure 4 (a sketch in the paper), drawn from a trained model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsk.comparison.statistics import t_interval
from bsk.errors import InputError
from bsk.figures.canvas import INK, QUIET, colour_and_marker, drawing, legible, ruled, title
from bsk.records.located import Located, checked, wrong
from bsk.records.schema import LandingRecord
from bsk.records.words import plain

Floats = NDArray[np.float64]
_Landing = tuple[str, LandingRecord]  # the place of the record (file and line), and the record
BACKWARD = "backward"  # the start that has targets
LEGEND = (
    "Each dot is the output for one image after the start alone, in axes of that image: its clean output f(x) is at 0 "
    "and its random target f(x) + γψ at the star. Horizontal: displacement along the line to the target; vertical: "
    "distance from that line; both divided by the target's distance (logits minus their mean over classes). Bars: 95 % "
    "t intervals over images."
)


@dataclass(frozen=True)
class Cloud:
    """Where one start of one model lands, for N images.

    Attributes:
        along: (N,) displacement along the line to the image's target, divided by the target's distance.
        aside: (N,) distance from that line, divided by the target's distance.
        kl: (N,) KL(s(f(x)) || s(f(x'))) in nats.
    """

    start: str
    along: Floats
    aside: Floats
    kl: Floats


@dataclass(frozen=True)
class Scene:
    """One model with one cloud per start, in the order of the records; `facts` is its title, two lines."""

    facts: tuple[str, str]
    clouds: list[Cloud]


def draw_landings(items: Iterable[Located], paths: Sequence[Path], heading: str = "") -> list[str]:
    """Draw where starts land and the mean KL divergence of each start, one row per model; return no notices.

    `heading` is an additional first line of the title. The same records give the same bytes.

    Raises:
        InputError: there are no landings, or one is invalid, or a file cannot be written.
    """
    found = scenes(items)
    order = list(dict.fromkeys(cloud.start for scene in found for cloud in scene.clouds))
    for path in paths:
        with drawing(path, layout="constrained") as figure:
            _draw(figure, found, order, heading)
    return []


def _draw(figure: Any, found: Sequence[Scene], order: Sequence[str], heading: str) -> None:
    figure.set_size_inches(9, 0.7 + 3.7 * len(found))
    title(figure, heading, LEGEND)
    grid = figure.add_gridspec(len(found), 2, width_ratios=(1.25, 1))
    for row, scene in enumerate(found):
        first = figure.axes[0] if figure.axes else None
        cloud, mean = figure.add_subplot(grid[row, 0], sharex=first, sharey=first), figure.add_subplot(grid[row, 1])
        n = max(len(each.kl) for each in scene.clouds)
        facts = [legible(line) for line in scene.facts]
        cloud.set_title(f"{facts[0]}\n{facts[1]}, {n} images", loc="left", fontsize=9)
        _scatter(cloud, scene.clouds, order)
        if row == 0:
            cloud.legend(fontsize=8, frameon=False, loc="upper left", handletextpad=0.3)
        _means(mean, scene.clouds, order)


def _scatter(axes: Any, clouds: Sequence[Cloud], order: Sequence[str]) -> None:
    axes.plot([0, 1], [0, 0], color=QUIET, linewidth=0.8, linestyle=":", zorder=1)
    for cloud in clouds:
        number = order.index(cloud.start)
        colour, marker = colour_and_marker(number)
        dot = {"markersize": 3.2, "markeredgewidth": 0.6, "alpha": 0.6, "linestyle": "none", "zorder": 2}
        face = "none" if number % 2 else colour  # hollow or filled, to be distinguishable in grey where clouds overlap
        axes.plot(cloud.along, cloud.aside, marker=marker, color=colour, markerfacecolor=face, **dot)
        mean = {"markersize": 10, "markeredgecolor": "white", "markeredgewidth": 1.4, "linestyle": "none", "zorder": 4}
        name = f"{legible(cloud.start)}, and its mean"
        axes.plot(float(cloud.along.mean()), float(cloud.aside.mean()), marker, color=colour, label=name, **mean)
    ends = {"color": INK, "linestyle": "none", "zorder": 5}
    axes.plot(0, 0, "+", markersize=11, markeredgewidth=1.8, label="clean output", **ends)
    axes.plot(1, 0, "*", markersize=12, label="random target", **ends)
    axes.set_xlabel("towards the image's random target")
    axes.set_ylabel("distance from that line")
    axes.set_aspect("equal")


def _means(axes: Any, clouds: Sequence[Cloud], order: Sequence[str]) -> None:
    axes.set_title("mean KL from the clean output, nats", loc="left", fontsize=9)
    tops = []
    for place, cloud in enumerate(clouds):
        colour, marker = colour_and_marker(order.index(cloud.start))
        mean = float(cloud.kl.mean())
        low, high = t_interval(cloud.kl.tolist()) if len(cloud.kl) > 1 else (mean, mean)
        style = {"color": colour, "marker": marker, "markersize": 7, "capsize": 4, "elinewidth": 1.2}
        axes.errorbar(place, mean, [[mean - low], [high - mean]], **style)
        text = f"{mean:#.2g}\n[{low:#.2g}, {high:#.2g}]"
        axes.annotate(text, (place, high), (0, 6), textcoords="offset points", ha="center", fontsize=8)
        tops.append(high)
    axes.set_xticks(range(len(clouds)), [legible(cloud.start) for cloud in clouds])
    axes.set_xlim(-0.6, len(clouds) - 0.4)
    axes.set_ylim(0, 1.2 * max(tops) or 1)
    ruled(axes)


def scenes(items: Iterable[Located]) -> list[Scene]:
    """Return one scene per model, data and start parameters, in order of first appearance.

    Raises:
        InputError: there are no landings, one of them is invalid, or an image has no backward start, whose target
            defines its axes.
    """
    found: dict[str, tuple[tuple[str, str], dict[tuple[str, int], _Landing]]] = {}
    for item in items:
        if item.record.get("kind") == "landing":
            record = _checked(item)
            key, facts = _scene_of(record)
            found.setdefault(key, (facts, {}))[1][record.start, record.index] = (item.where, record)  # keeps the last
    if not found:
        raise InputError("plot landings: no landings among the records; give what bsk starts prints")
    titles = [facts for facts, _ in found.values()]
    return [
        Scene(facts if titles.count(facts) == 1 else (f"{_file(landings)}: {facts[0]}", facts[1]), _clouds(landings))
        for facts, landings in found.values()
    ]


def _file(landings: dict[tuple[str, int], _Landing]) -> str:
    """Return the name of the checkpoint, which tells networks with equal titles apart."""
    _, record = next(iter(landings.values()))
    return Path(record.checkpoint).stem


def projected(displacement: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Return the components of displacements (N, C) along and perpendicular to target displacements (N, C).

    The mean over classes is subtracted from both, since softmax is invariant to it. Both results, (N,), are divided by
    the length of the target displacement.
    """
    d, t = (each - each.mean(axis=1, keepdims=True) for each in (displacement, target))
    length = np.linalg.norm(t, axis=1)
    along = (d * t).sum(axis=1) / length**2
    return along, np.linalg.norm(d - along[:, None] * t, axis=1) / length


def _scene_of(record: LandingRecord) -> tuple[str, tuple[str, str]]:
    """Return a key of the model, its data and start parameters, and the scene's title."""
    parameters = record.start_parameters or {}
    own = [record.method, record.dataset, record.model, record.split]
    file = [record.checkpoint, record.checkpoint_sha256, record.data_sha256]
    facts = ", ".join(fact for fact in (record.method, record.model, f"{record.dataset} {record.split}") if fact)
    title = (facts, f"eps {plain(record.eps)}, gamma {plain(parameters.get('gamma'))}")
    return json.dumps([*file, *own, record.eps, parameters]), title


def _checked(item: Located) -> LandingRecord:
    record = checked(item, LandingRecord)
    for key in ("landed", "target"):
        values = getattr(record, key)
        if values is not None and len(values) != len(record.logits):
            raise wrong(item, key, f"{len(record.logits)} numbers, as many as logits")
    if record.start == BACKWARD and len({t - z for t, z in zip(record.target or [], record.logits, strict=False)}) < 2:
        raise wrong(item, "target", "the random target of the start, with gamma above 0")
    return record


def _clouds(landings: dict[tuple[str, int], _Landing]) -> list[Cloud]:
    clouds = []
    for start in dict.fromkeys(start for start, _ in landings):
        mine = [landing for (name, _), landing in landings.items() if name == start]
        logits, landed = (np.array([getattr(record, name) for _, record in mine]) for name in ("logits", "landed"))
        target = np.array([_target(landing, landings) for landing in mine])
        kl = np.array([record.kl for _, record in mine])
        clouds.append(Cloud(start, *projected(landed - logits, target - logits), kl))
    return clouds


def _target(landing: _Landing, landings: dict[tuple[str, int], _Landing]) -> list[float] | None:
    where, record = landing
    if (BACKWARD, record.index) not in landings:
        raise InputError(f"{where}: no {BACKWARD} start of this image; run bsk starts with --start {BACKWARD} too")
    return landings[BACKWARD, record.index][1].target
