"""Examples of an attack, a column each: the image, the perturbed image, and their difference made visible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsk.errors import UsageError
from bsk.figures.canvas import INK, checked_picture, drawing, legible
from bsk.figures.grid import Floats, Grid

Ints = NDArray[np.integer[Any]]

ROUNDING = 1e-6  # of the largest difference: 0.25 in fp32 may be a little more, and is drawn as if it were not
FINEST = 24  # differences below 2**-24 are fp32's own
RIGHT, WRONG = ("✓", "#0072B2"), ("✗", "#A84A00")  # Okabe and Ito (2008), the second darker: it is text


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
    """Draw the first `most` examples of an attack into a .png or .svg; return notices of those left out.

    Above each column stands the true class, below the clean and the perturbed image its prediction with a check or
    a cross; one scale amplifies all differences. The same arguments give the same bytes.

    Args:
        path: where to write.
        clean: (N, C, H, W) in [0, 1]; of C other than 1 and 3 the first channel is drawn, in grey.
        adversarial: the same images, perturbed.
        labels: (N,) the true class.
        before: (N,) the class predicted of clean.
        after: (N,) the class predicted of adversarial.
        classes: the names of the classes.
        title: what made the examples, on as many lines as it takes.
        most: how many examples are drawn at most.

    Raises:
        UsageError: neither .png nor .svg, or there is no example.
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
        grid = Grid.of(figure, x, title)
        grid.texts("true class", 0, heads)
        for number, (name, images, texts) in enumerate(rows):
            grid.images(name, number, images)
            grid.texts("prediction", number + 1, texts[:drawn])
        grid.images(f"difference\n× {scale:.10g}" if scale else "no difference", 2, differences)
    return [f"{path}: shows the first {drawn} of {len(clean)} examples"] if drawn < len(clean) else []


def amplified(x: Floats, x_adv: Floats) -> tuple[Floats, float]:
    """Return 0.5 + (x_adv - x) * scale in [0, 1] and the scale, 0 if nothing differs.

    The scale is the largest power of two that keeps every difference within 0.5, so that none is clipped.
    """
    difference = x_adv.astype(np.float64) - x
    largest = float(np.abs(difference).max()) * (1 - ROUNDING)
    if largest == 0:
        return np.full_like(difference, 0.5), 0.0
    scale = math.ldexp(1.0, min(FINEST, -math.frexp(2 * largest)[1]))
    return np.clip(0.5 + difference * scale, 0, 1), scale


def _shown(images: Floats) -> Floats:
    """Return the channels that are drawn: 3 or, in grey, the first."""
    return images if images.shape[1] == 3 else images[:, :1]


def _name(classes: Sequence[str], label: int) -> str:
    return legible(classes[label]) if 0 <= label < len(classes) else f"class {label}"


def _judged(classes: Sequence[str], found: Ints, labels: Ints) -> list[tuple[str, str]]:
    """Return each prediction with its mark, and its colour."""
    marks = [RIGHT if right else WRONG for right in found == labels]
    return [(f"{mark} {_name(classes, label)}", colour) for (mark, colour), label in zip(marks, found, strict=True)]
