"""Rows of small images with a text above each, on whole pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsk.figures.canvas import DPI, QUIET, Measure, legible, measuring, shortened, wrapped

Floats = NDArray[np.floating[Any]]

SIZE = 8.0  # of the text, in points
SIDE, WIDEST, FEW = 240, 400, 700  # pixels: an image's longer side among many, alone, and of few together
MARGIN, GAP, LINE, GUTTER = 24, 14, 34, 190  # pixels: around all, between things, a line of text, the rows' names


@dataclass(frozen=True)
class Grid:
    """A figure with three rows of images; lengths are whole pixels from the top left, so that images stay sharp."""

    figure: Any
    measure: Measure
    head: int  # above the first image
    pitch: int  # from column to column
    width: int  # of an image
    height: int

    @classmethod
    def of(cls, figure: Any, images: Floats, title: str) -> Grid:
        """Give the figure its size and its title."""
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
        """Return where the images of a row begin."""
        return self.head + row * (self.height + LINE + GAP)

    def write(self, text: str, x: float, y: float, **style: Any) -> None:
        """Write text with its base line at (x, y)."""
        across, down = self.figure.get_size_inches() * DPI
        self.figure.text(x / across, 1 - y / down, text, fontsize=SIZE, **style)

    def texts(self, name: str, row: int, texts: Iterable[tuple[str, str]]) -> None:
        """Write a text and its colour above each image of a row."""
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
