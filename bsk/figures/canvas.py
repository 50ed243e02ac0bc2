"""Shared parts of all figures: file formats, style, text fitting, and atomic writing."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bsk.errors import UsageError
from bsk.records.atomic import replacing
from bsk.records.words import printable

SUFFIXES = (".png", ".svg")
DPI = 200
FONT = "DejaVu Sans"  # ships with matplotlib
INK, QUIET = "#222222", "#777777"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito (2008)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")  # 8 markers and 7 colours are coprime, so there are 56 pairs
STYLE: Any = {
    "svg.hashsalt": "bsk",  # fixed, so that the same rows give the same bytes
    "svg.fonttype": "path",
    "savefig.transparent": False,
    "font.family": FONT,
    "font.size": 9,
    "text.parse_math": False,  # a name may contain a dollar sign
    "axes.edgecolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}

Measure = Callable[[str], float]  # the width of a text in pixels


def checked_picture(path: Path, flag: str) -> Path:
    """Return path, which the user gave with `flag`; raise a UsageError unless it ends in .png or .svg."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{flag} {path}: must end in {' or '.join(SUFFIXES)}; other formats are not drawn")
    return path


@contextmanager
def drawing(path: Path, layout: Literal["constrained"] | None = None) -> Iterator[Any]:
    """Yield an empty figure in bsk's style; on a clean exit it is written to `path` atomically.

    Raises:
        InputError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(dpi=DPI, layout=layout)
        FigureCanvasAgg(figure)
        yield figure
        with replacing(path) as temporary:
            suffix = path.suffix.lower()
            figure.savefig(temporary, format=suffix[1:], metadata={"Date" if suffix == ".svg" else "Software": None})
            (_lighten_svg if suffix == ".svg" else _lighten_png)(temporary)


def _lighten_svg(path: Path) -> None:
    """Round coordinates to two decimals (hundredths of a point) and drop indentation, which saves a sixth of the bytes.

    Numbers below 1 are kept, since some are scale factors.
    """
    text = re.sub(r"(?<![\d.])([1-9]\d*\.\d\d)\d+", r"\1", path.read_text(encoding="utf-8"))
    path.write_text(re.sub(r"\s*\n\s*", "\n", text), encoding="utf-8")


def _lighten_png(path: Path) -> None:
    """Reduce the image to a palette of 256 colours, which is enough for a plot."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(path, format="PNG", optimize=True, dpi=(DPI, DPI))


def colour_and_marker(number: int) -> tuple[str, str]:
    """Return the colour and marker of the item with this number."""
    return COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]


def ruled(axes: Any) -> None:
    """Draw faint horizontal grid lines behind everything."""
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)


def logarithmic(axis: Any, tick: Callable[[float], str]) -> None:
    """Set ticks at 1, 2 and 5 times each power of ten on a logarithmic axis, with labels from `tick`."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: tick(value))
    axis.set_minor_formatter(NullFormatter())


def title(figure: Any, *paragraphs: str, size: float = 8.5) -> None:
    """Write paragraphs above the figure, wrapped to its width; its size in inches must be final."""
    width, measure = figure.get_size_inches()[0] * figure.dpi * 0.98, measuring(figure, size)
    lines = [line for text in paragraphs for line in wrapped(legible(text), width, measure)]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=size, color=QUIET)


def fix_layout(figure: Any) -> None:
    """Compute the constrained layout and keep it, so that positions on the canvas are final."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def measuring(figure: Any, size: float) -> Measure:
    """Return a function that measures the width of a text of `size` points, in pixels of the figure."""
    from matplotlib.font_manager import FontProperties

    font, renderer = FontProperties(family=FONT, size=size), figure.canvas.get_renderer()
    return lambda text: float(renderer.get_text_width_height_descent(text, font, False)[0])


def legible(text: str) -> str:
    """Return text with control characters and characters without a glyph in the font written as escapes."""
    glyphs = _glyphs()
    return "".join(c if ord(c) in glyphs else c.encode("unicode_escape").decode("ascii") for c in printable(text))


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(FONT)).get_charmap())


def shortened(text: str, width: float, measure: Measure) -> str:
    """Return text if it is at most `width` wide, else its beginning and an ellipsis."""
    if measure(text) <= width:
        return text
    return text[: _fitting(text, width - measure("…"), measure)].rstrip() + "…"


def wrapped(text: str, width: float, measure: Measure) -> list[str]:
    """Return the text wrapped to lines of at most `width`, broken at spaces or within words wider than a line."""
    lines = []
    while text := text.strip():
        count = max(1, _fitting(text, width, measure))
        space = text.rfind(" ", 0, count + 1) if count < len(text) else -1
        lines.append(text[: space if space > 0 else count].rstrip())
        text = text[len(lines[-1]) :]
    return lines


def _fitting(text: str, width: float, measure: Measure) -> int:
    """Return the largest number of leading characters that are at most `width` wide."""
    return max(0, bisect_right(range(len(text) + 1), width, key=lambda count: measure(text[:count])) - 1)
