"""What every picture shares: its formats, its style, text that fits, and files that are whole or absent."""

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
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")  # no common divisor with the colours: 56 pairs
STYLE: Any = {
    "svg.hashsalt": "bsk",  # the same bytes for the same rows
    "svg.fonttype": "path",
    "savefig.transparent": False,
    "font.family": FONT,
    "font.size": 9,
    "text.parse_math": False,  # a name may have a dollar sign
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
    """Yield an empty figure in the style of the house; on a clean exit it is written to path, whole.

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
    """Leave coordinates two decimals, hundredths of a point, and no indentation: a sixth of the bytes less.

    Numbers below 1 stay, for scales are among them.
    """
    text = re.sub(r"(?<![\d.])([1-9]\d*\.\d\d)\d+", r"\1", path.read_text(encoding="utf-8"))
    path.write_text(re.sub(r"\s*\n\s*", "\n", text), encoding="utf-8")


def _lighten_png(path: Path) -> None:
    """Leave 256 colours, of which a plot has few."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(path, format="PNG", optimize=True, dpi=(DPI, DPI))


def colour_and_marker(number: int) -> tuple[str, str]:
    """Return how the number-th of several things is drawn."""
    return COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]


def ruled(axes: Any) -> None:
    """Draw faint lines across, behind everything."""
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)


def logarithmic(axis: Any, tick: Callable[[float], str]) -> None:
    """Mark 1, 2 and 5 of each power of ten on an axis that is logarithmic, written by `tick`."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: tick(value))
    axis.set_minor_formatter(NullFormatter())


def title(figure: Any, *paragraphs: str, size: float = 8.5) -> None:
    """Write paragraphs over the figure, on as many lines as they take; its size in inches must be settled."""
    room, measure = figure.get_size_inches()[0] * figure.dpi * 0.98, measuring(figure, size)
    lines = [line for text in paragraphs for line in wrapped(legible(text), room, measure)]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=size, color=QUIET)


def measuring(figure: Any, size: float) -> Measure:
    """Return how wide a text of `size` points stands in the figure."""
    from matplotlib.font_manager import FontProperties

    font, renderer = FontProperties(family=FONT, size=size), figure.canvas.get_renderer()
    return lambda text: float(renderer.get_text_width_height_descent(text, font, False)[0])


def legible(text: str) -> str:
    """Return text with what moves the cursor or has no glyph in the font, which would be an empty box, as escapes."""
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
    """Return the lines of text at most `width` wide, broken at spaces, or within a word that is wider than a line."""
    lines = []
    while text := text.strip():
        count = max(1, _fitting(text, width, measure))
        space = text.rfind(" ", 0, count + 1) if count < len(text) else -1
        lines.append(text[: space if space > 0 else count].rstrip())
        text = text[len(lines[-1]) :]
    return lines


def _fitting(text: str, width: float, measure: Measure) -> int:
    """Return how many characters of text, from its first, are at most `width` wide."""
    return max(0, bisect_right(range(len(text) + 1), width, key=lambda count: measure(text[:count])) - 1)
