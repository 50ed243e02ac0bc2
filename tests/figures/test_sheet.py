from __future__ import annotations

import re
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bsk.errors import InputError, UsageError
from bsk.figures.canvas import legible, shortened, wrapped
from bsk.figures.sheet import amplified, draw_sheet

NAMES = ["cat", "dog", "ship"]
Sheet = dict[str, Any]


def width(text: str) -> float:
    """Measure text in a monospaced font."""
    return 10.0 * len(text)


def sheet(n: int = 3, shape: tuple[int, int, int] = (3, 8, 8), eps: float = 0.031) -> Sheet:
    """Return n random images whose upper half gains eps, all of class 0, and fooled into class 1."""
    clean = np.random.default_rng(0).uniform(0.1, 0.6, (n, *shape)).astype(np.float32)
    adversarial = clean.copy()
    adversarial[:, :, : shape[1] // 2] += np.float32(eps)
    zeros = np.zeros(n, dtype=np.int64)
    labels = {"labels": zeros, "before": zeros, "after": zeros + 1}
    return {"clean": clean, "adversarial": adversarial, **labels, "classes": NAMES, "title": "m, pgd-20, eps 0.031"}


def texts(path: Path) -> list[str]:
    """Return the texts of an SVG, which stand in comments beside their outlines."""
    ET.parse(path)
    return re.findall(r"<!-- (.*?) -->", path.read_text(), re.DOTALL)


def drawn(path: Path, shape: tuple[int, int]) -> list[Any]:
    """Return the colours in the middle of each pixel of the three images of a PNG of one column."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    zoom = round(400 / max(shape))
    left = 190 + (max(240, zoom * shape[1]) - zoom * shape[1]) // 2
    down = len(pixels) - 24 - zoom * shape[0]  # the top of the last image
    tops = [down - above * (zoom * shape[0] + 34 + 14) for above in (2, 1, 0)]
    ys, xs = (zoom * np.arange(count) + zoom // 2 for count in shape)
    return [pixels[np.ix_(top + ys, left + xs)] for top in tops]


# --- the difference


def test_the_difference_is_amplified_by_a_power_of_two_around_grey() -> None:
    x = np.array([0.2, 0.2, 0.2, 0.2])
    pixels, scale = amplified(x, x + np.array([0.0, 0.031, -0.031, 0.01]))
    assert scale == 16 and pixels == pytest.approx([0.5, 0.996, 0.004, 0.66])


@pytest.mark.parametrize(
    ("largest", "scale"),
    [(0.031, 16), (8 / 255, 8), (0.25, 2), (0.5, 1), (1.0, 0.5), (0.2, 2), (0.3, 1), (1 / 255, 64), (1e-30, 2**24)],
)
def test_the_scale_brings_the_largest_difference_nearest_below_one_half(largest: float, scale: float) -> None:
    assert amplified(np.zeros(2), np.array([largest, 0.0]))[1] == scale


def test_a_radius_rounded_up_in_fp32_keeps_its_scale() -> None:
    x = np.full(1, 0.35, dtype=np.float32)
    x_adv = x + np.float32(0.25)
    assert float(x_adv[0]) - float(x[0]) > 0.25 and amplified(x, x_adv)[1] == 2


def test_identical_images_differ_by_plain_grey() -> None:
    pixels, scale = amplified(np.ones((2, 3)), np.ones((2, 3)))
    assert scale == 0 and (pixels == 0.5).all()


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1))
def test_no_difference_is_clipped(pairs: list[tuple[float, float]]) -> None:
    x, x_adv = (np.array(values) for values in zip(*pairs, strict=True))
    pixels, scale = amplified(x, x_adv)
    assert pixels == pytest.approx(0.5 + (x_adv - x) * scale, abs=1e-5)


# --- the picture


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8), (3, 6, 12), (1, 12, 6), (2, 8, 8)])
def test_the_pixels_drawn_are_those_of_the_images(shape: tuple[int, int, int], tmp_path: Path) -> None:
    examples = sheet(1, shape)
    draw_sheet(tmp_path / "a.png", **examples)
    first = slice(None) if shape[0] == 3 else slice(1)  # the other channels have no colour
    x, x_adv = examples["clean"][:, first], examples["adversarial"][:, first]
    expected = [np.rint(255 * images[0].transpose(1, 2, 0)) for images in (x, x_adv, amplified(x, x_adv)[0])]
    for found, wanted in zip(drawn(tmp_path / "a.png", shape[1:]), expected, strict=True):
        assert (found == wanted).all()  # one grey value stands for red, green and blue
    assert (expected[2][-1] == 128).all() and (expected[2][0] == 254).all()


@pytest.mark.parametrize("name", ["a.png", "a.svg", "a.SVG"])
def test_the_same_examples_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    for folder in ("1", "2"):
        assert draw_sheet(tmp_path / folder / name, **sheet()) == []
    assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert [path.name for path in (tmp_path / "1").iterdir()] == [name]


def test_classes_predictions_marks_and_the_scale_are_written(tmp_path: Path) -> None:
    draw_sheet(tmp_path / "a.svg", **{**sheet(2), "labels": np.array([0, 1]), "before": np.array([0, 2])})
    heads = ["true class", "cat", "dog", "clean"]
    predictions = ["prediction", "✓ cat", "✗ ship", "perturbed", "prediction", "✗ dog", "✓ dog"]
    assert texts(tmp_path / "a.svg") == ["m, pgd-20, eps 0.031", *heads, *predictions, "difference", "× 16"]
    svg = (tmp_path / "a.svg").read_text().lower()
    assert "#0072b2" in svg and "#a84a00" in svg and svg.count("<image ") == 6


def test_identical_images_are_said_to_be(tmp_path: Path) -> None:
    draw_sheet(tmp_path / "a.svg", **sheet(eps=0.0))
    assert texts(tmp_path / "a.svg")[-1] == "no difference"


def test_the_first_examples_are_drawn_and_the_others_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    examples = sheet(5)
    examples["adversarial"][4] = 1  # would change the scale
    assert draw_sheet(path, **examples, most=3) == [f"{path}: shows the first 3 of 5 examples"]
    assert texts(path).count("✗ dog") == 3 and path.read_text().count("<image ") == 9
    assert texts(path)[-2:] == ["difference", "× 16"]


def test_hostile_and_long_names_are_harmless(tmp_path: Path) -> None:
    names = ["a cat with a very, very long name", "$\\frac{$ --> \x1b[31m\n", "猫"]
    labels, title = {"labels": np.arange(3), "before": np.array([2, 7, -1]), "classes": names}, "$x_{ " * 40
    examples = {**sheet(), **labels, "title": title}
    with warnings.catch_warnings(action="error"):
        draw_sheet(tmp_path / "a.svg", **examples)
    found = texts(tmp_path / "a.svg")
    assert re.fullmatch("a cat with a.*[^ ]…", next(text for text in found if text.startswith("a cat")))
    assert {"\\u732b", "✗ \\u732b", "✗ class 7", "✗ class -1"} <= set(found) and "\x1b" not in "".join(found)
    assert [text for text in found if "$x_{" in text][0].count("$x_{") < 40


def test_invalid_sheets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--images a\.pdf: must end in \.png or \.svg; other formats are not drawn$"):
        draw_sheet(Path("a.pdf"), **sheet())
    for examples in (sheet(0), {**sheet(), "most": 0}):
        with pytest.raises(UsageError, match="--images a.png: there is no example to draw"):
            draw_sheet(Path("a.png"), **examples)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        draw_sheet(tmp_path / "file" / "a.png", **sheet())


# --- text that fits


def test_a_text_too_wide_is_shortened() -> None:
    assert shortened("airplane", 80, width) == "airplane"
    assert shortened("airplane", 79, width) == "airpla…"
    assert shortened("a longer name", 30, width) == "a…" and shortened("name", 0, width) == "…"


def test_lines_break_at_spaces_or_within_a_word_too_long() -> None:
    assert wrapped("runs/bs.safetensors, pgd-20, eps 0.031", 200, width) == [
        "runs/bs.safetensors,",
        "pgd-20, eps 0.031",
    ]
    assert wrapped("abcdefgh ij", 30, width) == ["abc", "def", "gh", "ij"]
    assert wrapped("ab", 1, width) == ["a", "b"] and wrapped("  ", 10, width) == []


@given(st.text(alphabet="ab ", max_size=40), st.integers(1, 12))
def test_wrapping_loses_nothing_and_keeps_the_width(text: str, columns: int) -> None:
    lines = wrapped(text, 10 * columns, width)
    assert all(0 < len(line) <= columns for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_what_the_font_lacks_is_escaped() -> None:
    assert legible("chat é ✓ 猫\t🐈") == "chat é ✓ \\u732b\\t\\U0001f408"
