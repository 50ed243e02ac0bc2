from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsk.comparison.compare import compare
from bsk.errors import InputError, UsageError
from bsk.figures.placement import ErrorBar, place, side_by_side
from bsk.figures.plots import PASSES, SECONDS, accuracy_against_cost

Make = Any


def test_png_and_svg_are_drawn_and_svg_is_the_same_every_time(results: Make, place: Make, tmp_path: Path) -> None:
    rows, _ = compare(place(results))
    for name in ("a.png", "a.svg", "b.SVG"):
        assert accuracy_against_cost(rows, tmp_path / name) == []
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG") and (tmp_path / "a.png").stat().st_size > 10_000
    svg = (tmp_path / "a.svg").read_bytes()
    assert svg == (tmp_path / "b.SVG").read_bytes() and b"<dc:date>" not in svg
    texts = (tmp_path / "a.svg").read_text()
    assert (
        "<!-- fast-at -->" in texts
        and "<!-- digits, test split, n 10, cnn, best epoch, eps 0.2, pgd-20, 3 seeds;" in texts
    )
    assert ET.fromstring(svg).tag.endswith("svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b.SVG"]


def test_rows_of_other_attacks_and_radii_have_their_own_panel(make: Make, place: Make, tmp_path: Path) -> None:
    records = [make("bs", 1), make("bs", 1, "autoattack"), make("bs", 1, eps=0.3, checkpoint_sha256="x")]
    accuracy_against_cost(compare(place(records))[0], tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    for title in ("eps 0.2, pgd-20", "eps 0.2, autoattack", "eps 0.3, pgd-20"):
        assert f"<!-- {title} -->" in text


def test_corrupted_images_have_a_panel_of_their_own_and_remarks_are_told(
    make: Make, place: Make, tmp_path: Path
) -> None:
    doubted = {**make("bs", 1), "doubts": ["its gradients are zero"]}
    fog = make("bs", 1, corruption="fog", severity=3, data_sha256="f00")
    accuracy_against_cost(compare(place([doubted, fog]))[0], tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "<!-- clean -->" in text and "<!-- fog, severity 3 -->" in text
    assert "doubtful: its gradients are zero" in text


def test_hostile_names_are_drawn_literally(make: Make, place: Make, tmp_path: Path) -> None:
    rows, _ = compare(place([make("bs", 1), {**make("bs", 2), "method": "$\\frac{$ --> _x"}]))
    accuracy_against_cost(rows, tmp_path / "a.svg")
    ET.parse(tmp_path / "a.svg")


def test_cost_is_passes_if_all_rows_have_them_else_time(make: Make, place: Make, tmp_path: Path) -> None:
    rows, _ = compare(place([make("fast-at", 1), {**make("bs", 1), "train_forward_passes": None}]))
    accuracy_against_cost(rows, tmp_path / "a.svg")
    assert "<!-- training time -->" in (tmp_path / "a.svg").read_text()
    assert PASSES.of(rows[0]) == 1500 and PASSES.of(rows[1]) == 0 and SECONDS.of(rows[1]) == 6.25
    assert PASSES.tick(2e6) == "2M" and SECONDS.tick(5) == "5 s" and SECONDS.tick(7200) == "2 h"


def test_a_wide_span_of_costs_is_logarithmic(make: Make, place: Make, tmp_path: Path) -> None:
    rows, _ = compare(place([make("fast-at", 1), {**make("bs", 1), "train_forward_passes": 8000}]))
    accuracy_against_cost(rows, tmp_path / "a.svg")
    assert "forward and backward (logarithmic)" in (tmp_path / "a.svg").read_text()


def test_with_many_rows_only_the_frontier_is_labelled(make: Make, place: Make, tmp_path: Path) -> None:
    records = []
    for number in range(20):
        method, robust = "bs" if number % 2 else "at", "1" * (number // 2) + "0" * 10
        cost = {"train_forward_passes": 1000 + 100 * number, "flags": {"epochs": number + 1}}
        records.append(make(method, 1, correct=robust[:10], checkpoint_sha256=str(number), **cost))
    items = place(records)
    accuracy_against_cost(compare(items, pareto=True)[0], tmp_path / "some.svg")
    accuracy_against_cost(compare(items)[0], tmp_path / "all.svg")
    some, every = ((tmp_path / name).read_text() for name in ("some.svg", "all.svg"))
    assert "<!-- at epochs=3 -->" in some and "<!-- bs epochs=4 -->" not in some, "as robust for more passes"
    assert "<!-- at -->" in some and "<!-- bs -->" in some, "a legend"
    assert "<!-- bs epochs=4 -->" in every and "<!-- bs -->" not in every


def test_rows_without_cost_or_accuracy_are_left_out_with_a_notice(make: Make, place: Make, tmp_path: Path) -> None:
    foreign = {**make("bs", 2), "method": None, "train_seconds": None, "train_forward_passes": None}
    rows, _ = compare(place([make("bs", 1), foreign]))
    path = tmp_path / "a.png"
    assert accuracy_against_cost(rows, path) == [
        f"{path}: 1 row(s) without accuracy or training cost are not in the figure"
    ]
    with pytest.raises(UsageError, match="no row has both an accuracy and a training cost; evaluate"):
        accuracy_against_cost(rows[1:], path)


def test_other_formats_and_places_are_refused(results: Make, place: Make, tmp_path: Path) -> None:
    rows, _ = compare(place(results))
    with pytest.raises(UsageError, match=r"--plot a\.pdf: must end in \.png or \.svg"):
        accuracy_against_cost(rows, Path("a.pdf"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        accuracy_against_cost(rows, tmp_path / "file" / "a.png")


# --- labels

ROOM = (0.0, 0.0, 1000.0, 1000.0)


def test_a_label_stands_to_the_right_unless_that_covers_something() -> None:
    bar = ErrorBar(500, 500, 450, 550)
    assert place(bar, (100, 20), 8, [], ROOM).box == (508, 490, 608, 510)
    assert place(bar, (100, 20), 8, [(550, 400, 560, 600)], ROOM).box == (392, 490, 492, 510)
    assert place(ErrorBar(950, 500, 450, 550), (100, 20), 8, [], ROOM).box == (842, 490, 942, 510)


def test_a_label_far_from_its_marker_has_a_line() -> None:
    wall = [(0.0, 440.0, 1000.0, 575.0)]  # all around the bar, and above it
    found = place(ErrorBar(500, 500, 450, 550), (100, 20), 8, wall, ROOM)
    assert found.line is not None and found.box[1] >= 575 or found.box[3] <= 440


@given(st.lists(st.sampled_from([100.0, 100.5, 200.0, 300.0]), max_size=8))
def test_markers_of_equal_cost_are_side_by_side(costs: list[float]) -> None:
    shifts = side_by_side(costs)
    for cost in (200.0, 300.0):
        mine = [shift for value, shift in zip(costs, shifts, strict=True) if value == cost]
        assert sum(mine) == pytest.approx(0) and len(set(mine)) == len(mine)
