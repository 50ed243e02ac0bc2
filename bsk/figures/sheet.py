"""A sheet of adversarial examples, one per column: the image, the perturbed image, and their amplified difference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsk.errors import UsageError
from bsk.figures.canvas import (
    DPI,
    INK,
    QUIET,
    Measure,
    checked_picture,
    drawing,
    legible,
    measuring,
    shortened,
    wrapped,
)

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

ROUNDING = 1e-6  # relative tolerance: a difference of 0.25 may be slightly larger in fp32
FINEST = 24  # binary digits: differences below 2**-24 are rounding errors of fp32
RIGHT, WRONG = ("✓", "#0072B2"), ("✗", "#A84A00")  # Okabe and Ito (2008), the second one darkened for text


SIZE = 8.0  # of the text, in points
SIDE, WIDEST, FEW = 240, 400, 700  # pixels of an image's longer side: minimum, maximum, and total if there are few
MARGIN, GAP, LINE, GUTTER = 24, 14, 34, 190  # pixels: outer margin, spacing, line height, width for the row names


def draw_sheet(
    path: Path,
    *,
    clean: Floats,
    adversarial: Floats,
    labels: Ints,
    before: Ints,
    after: Ints,
    classes: Sequence[str],
    title: str,
    most: int = 8,
) -> list[str]:
    """Draw the first `most` examples of an attack to a .png or .svg file; return a notice if some are left out.

    The true class is above each column; below the clean and the perturbed image is the prediction with a check or a
    cross. All differences are amplified by the same factor. The same arguments give the same bytes.

    Args:
        path: the file to write.
        clean: (N, C, H, W) in [0, 1]; unless C is 3, the first channel is drawn in grey.
        adversarial: the same images, perturbed.
        labels: (N,) true classes.
        before: (N,) classes predicted for `clean`.
        after: (N,) classes predicted for `adversarial`.
        classes: the names of the classes.
        title: a description of the attack, wrapped to the width of the sheet.
        most: the maximum number of examples drawn.

    Raises:
        UsageError: the suffix is neither .png nor .svg, or there is no example.
        InputError: the file cannot be written.
    """
    checked_picture(path, "--images")
    drawn = min(most, len(clean))
    if drawn < 1:
        raise UsageError(f"--images {path}: there is no example to draw")
    x, x_adv = _shown(clean[:drawn]), _shown(adversarial[:drawn])
    differences, scale = amplified(x, x_adv)
    heads = [(_name(classes, label), INK) for label in labels[:drawn]]
    rows = [("clean", x, _judged(classes, before, labels)), ("perturbed", x_adv, _judged(classes, after, labels))]
    with drawing(path) as figure:
        grid = _Grid.of(figure, x, title)
        grid.texts("true class", 0, heads)
        for number, (name, images, texts) in enumerate(rows):
            grid.images(name, number, images)
            grid.texts("prediction", number + 1, texts[:drawn])
        grid.images(f"difference\n× {scale:.10g}" if scale else "no difference", 2, differences)
    return [f"{path}: shows the first {drawn} of {len(clean)} examples"] if drawn < len(clean) else []


def amplified(x: Floats, x_adv: Floats) -> tuple[Floats, float]:
    """Return 0.5 + (x_adv - x) * scale in [0, 1], and the scale, which is 0 if nothing differs.

    The scale is the largest power of two for which no amplified difference exceeds 0.5, so that none is clipped.
    """
    difference = x_adv.astype(np.float64) - x
    largest = float(np.abs(difference).max()) * (1 - ROUNDING)
    if largest == 0:
        return np.full_like(difference, 0.5), 0.0
    scale = math.ldexp(1.0, min(FINEST, -math.frexp(2 * largest)[1]))
    return np.clip(0.5 + difference * scale, 0, 1), scale


def _shown(images: Floats) -> Floats:
    """Return the channels to draw: all 3, or the first one in grey."""
    return images if images.shape[1] == 3 else images[:, :1]


def _name(classes: Sequence[str], label: int) -> str:
    return legible(classes[label]) if 0 <= label < len(classes) else f"class {label}"


def _judged(classes: Sequence[str], found: Ints, labels: Ints) -> list[tuple[str, str]]:
    """Return each prediction as text with a check or cross, and its colour."""
    marks = [RIGHT if right else WRONG for right in found == labels]
    return [(f"{mark} {_name(classes, label)}", colour) for (mark, colour), label in zip(marks, found, strict=True)]


@dataclass(frozen=True)
class _Grid:
    """A figure with three rows of images; lengths are in whole pixels from the top left, so that images stay sharp."""

    figure: Any
    measure: Measure
    head: int  # above the first image
    pitch: int  # from column to column
    width: int  # of an image
    height: int

    @classmethod
    def of(cls, figure: Any, images: Floats, title: str) -> _Grid:
        """Set the figure's size and write its title."""
        count, _, high, wide = images.shape
        zoom = min(WIDEST, max(SIDE, FEW // count)) / max(high, wide)
        zoom = round(zoom) if zoom > 1 else zoom
        width, height = (max(1, round(zoom * length)) for length in (wide, high))
        pitch = max(SIDE, width) + GAP
        across = GUTTER + count * pitch + MARGIN
        measure = measuring(figure, SIZE)
        lines = wrapped(legible(title), across - 2 * MARGIN, measure)
        head = MARGIN + LINE * (len(lines) + 1) + GAP
        grid = cls(figure, measure, head, pitch, width, height)
        figure.set_size_inches(across / DPI, (grid.top(2) + height + MARGIN) / DPI)
        for number, line in enumerate(lines, 1):
            grid.write(line, MARGIN, MARGIN + LINE * number - GAP, color=QUIET)
        return grid

    def top(self, row: int) -> int:
        """Return the top of the images in a row."""
        return self.head + row * (self.height + LINE + GAP)

    def write(self, text: str, x: float, y: float, **style: Any) -> None:
        """Write text with its baseline at (x, y)."""
        across, down = self.figure.get_size_inches() * DPI
        self.figure.text(x / across, 1 - y / down, text, fontsize=SIZE, **style)

    def texts(self, name: str, row: int, texts: Iterable[tuple[str, str]]) -> None:
        """Write a coloured text above each image of a row."""
        y = self.top(row) - GAP - (0 if row == 0 else GAP // 2)
        self.write(name, GUTTER - GAP, y, ha="right", color=QUIET)
        for column, (text, colour) in enumerate(texts):
            x = GUTTER + self.pitch * column + (self.pitch - GAP) / 2
            self.write(shortened(text, self.pitch - GAP, self.measure), x, y, ha="center", color=colour)

    def images(self, name: str, row: int, images: Floats) -> None:
        """Draw a row of images (N, 1 or 3, H, W)."""
        self.write(name, GUTTER - GAP, self.top(row) + self.height / 2, ha="right", va="center")
        across, down = self.figure.get_size_inches() * DPI
        pixels = np.rint(images.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
        for column, image in enumerate(np.broadcast_to(pixels, (*pixels.shape[:3], 3))):
            x = GUTTER + self.pitch * column + (self.pitch - GAP - self.width) // 2
            bottom = down - self.top(row) - self.height
            axes = self.figure.add_axes((x / across, bottom / down, self.width / across, self.height / down))
            axes.imshow(image, interpolation="nearest", aspect="auto")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, linewidth=0.4)
