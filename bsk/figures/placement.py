"""Placement of labels next to markers and lines, so that they cover as little as possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bsk.figures.canvas import QUIET

Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels

# Directions from the marker, the most readable first: right, left, then the four diagonals.
DIRECTIONS = ((1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
GAP = 8.0  # points from a marker to its label
ABREAST = 13.0  # points between markers of the same cost
LEVELS = 8  # of candidate positions above and below a bar
DARKER = 0.65  # factor on the marker's colour, for enough contrast as text
SWEEPS = 4  # over all labels, each of which is placed again given the others


class ErrorBar(NamedTuple):
    """A marker at (x, y) and the ends of its interval, in pixels."""

    x: float
    y: float
    low: float
    high: float


class Place(NamedTuple):
    """The box of a label and, if it is far from its bar, the line from the end of the bar to the label."""

    box: Box
    line: Box | None = None


def side_by_side(costs: Sequence[float]) -> list[float]:
    """Return a shift to the right in points for each marker, to separate markers of the same cost (to 1 %)."""
    found = []
    for index, cost in enumerate(costs):
        same = [other for other, value in enumerate(costs) if abs(value - cost) <= 0.01 * cost]
        found.append(ABREAST * (same.index(index) - (len(same) - 1) / 2))
    return found


def label_markers(axes: Any, texts: Sequence[str], points: Sequence[Sequence[Any]]) -> None:
    """Write each text next to the last of its error bars, in a darker tone, with a line to it if it is far away."""
    point = axes.figure.dpi / 72
    bars = [[_bar(artist) for artist in artists] for artists in points]
    drawn = [box for row in bars for bar in row for box in _boxes(bar, 5 * point)]
    frame = axes.get_window_extent()
    area = (frame.x0, frame.y0, frame.x1 + GAP * point, frame.y1)
    sizes = [_size(axes, text) for text in texts]
    places: dict[int, Place] = {}
    for index in sorted(range(len(texts)), key=lambda i: -bars[i][-1].x) * SWEEPS:
        others = [box for other, found in places.items() if other != index for box in found if box is not None]
        places[index] = place(bars[index][-1], sizes[index], GAP * point, drawn + others, area)
    for index, text in enumerate(texts):
        _write(axes, text, places[index], points[index][-1].lines[0].get_color())


def _size(axes: Any, text: str) -> tuple[float, float]:
    trial = axes.text(0, 0, text)
    extent = trial.get_window_extent()
    trial.remove()
    return float(extent.width), float(extent.height)


def _write(axes: Any, text: str, found: Place, colour: str) -> None:
    from matplotlib.colors import to_rgb

    ink = tuple(DARKER * part for part in to_rgb(colour))
    # in fractions of the figure, not in pixels, whose size differs in an SVG
    to_part = axes.figure.transFigure.inverted().transform
    where = {"transform": axes.figure.transFigure, "clip_on": False, "in_layout": False}
    axes.text(*to_part(found.box[:2]), text, verticalalignment="bottom", color=ink, **where)
    if found.line is not None:
        (x, low), (_, high) = to_part([found.line[:2], found.line[2:]])
        axes.plot([x, x], [low, high], color=ink, linewidth=0.6, scalex=False, scaley=False, **where)


def mark_ends(axes: Any, ends: Sequence[tuple[str, float, float]]) -> list[Any]:
    """Write each text to the right of the end (x, y) of its line; return the artists, for `spread_ends`."""
    line = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)}
    where: Any = {"textcoords": "offset points", "verticalalignment": "center", "annotation_clip": False}
    return [axes.annotate(text, (x, y), (2 * GAP, 0), arrowprops=line, **where) for text, x, y in ends]


def spread_ends(labels: Sequence[Any]) -> None:
    """Move labels of `mark_ends` up or down until none covers another; the layout must be final."""
    boxes = [label.get_window_extent() for label in labels]
    heights = [(box.y0 + box.y1) / 2 for box in boxes]
    moved = spread(heights, max((box.height for box in boxes), default=0.0) * 1.05)
    for label, height, to in zip(labels, heights, moved, strict=True):
        label.set_position((2 * GAP, (to - height) * 72 / label.figure.dpi))


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Return new heights, in the same order and at least `gap` apart; clusters are centred on their mean."""

    def lowest(cluster: Sequence[int]) -> float:
        return sum(heights[i] for i in cluster) / len(cluster) - gap * (len(cluster) - 1) / 2

    clusters: list[list[int]] = []
    for index in sorted(range(len(heights)), key=lambda i: heights[i]):
        cluster = [index]
        while clusters and lowest(cluster) < lowest(clusters[-1]) + gap * len(clusters[-1]):
            cluster = clusters.pop() + cluster
        clusters.append(cluster)
    found = {index: lowest(cluster) + gap * place for cluster in clusters for place, index in enumerate(cluster)}
    return [found[index] for index in range(len(heights))]


def place(bar: ErrorBar, size: tuple[float, float], gap: float, taken: Sequence[Box], area: Box) -> Place:
    """Return the place of a label of `size` with the least cost.

    The cost is the overlap with `taken`, plus ten times the area outside `area` and ten times the overlap of its line
    with `taken`. Ties go to the first candidate: beside the marker, else above or below its bar.
    """

    def cost(candidate: Place) -> float:
        left, bottom, right, top = candidate.box
        covered = sum(_overlap(candidate.box, other) for other in taken)
        outside = (right - left) * (top - bottom) - _overlap(candidate.box, area)
        crossed = sum(_overlap(candidate.line, other) for other in taken) if candidate.line else 0.0
        return covered + 10 * (crossed + outside)

    return min(_candidates(bar, size, gap), key=cost)


def _candidates(bar: ErrorBar, size: tuple[float, float], gap: float) -> Iterator[Place]:
    width, height = size
    for right, up in DIRECTIONS:
        left = bar.x + right * gap - width * (1 - right) / 2
        bottom = bar.y + up * gap - height * (1 - up) / 2
        yield Place((left, bottom, left + width, bottom + height))
    for level in range(LEVELS):
        away = gap / 2 + level * 1.1 * height
        for left in (bar.x - width / 2, bar.x - width / 8, bar.x - width * 7 / 8)[: 3 if level else 1]:
            for end, bottom in ((bar.high, bar.high + away), (bar.low, bar.low - away - height)):
                near = bottom if bottom > end else bottom + height
                line = (bar.x - 1, min(end, near), bar.x + 1, max(end, near))
                yield Place((left, bottom, left + width, bottom + height), line if level else None)


def _bar(errorbar: Any) -> ErrorBar:
    marker, bars = errorbar.lines[0], errorbar.lines[2][0]
    x, y = marker.get_transform().transform(marker.get_xydata()[0])
    (_, low), (_, high) = bars.get_transform().transform(bars.get_segments()[0])
    return ErrorBar(float(x), float(y), float(low), float(high))


def _boxes(bar: ErrorBar, half: float) -> list[Box]:
    """Return the boxes of the marker and of the interval."""
    marker = (bar.x - half, bar.y - half, bar.x + half, bar.y + half)
    return [marker, (bar.x - half / 2, bar.low, bar.x + half / 2, bar.high)]


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)
