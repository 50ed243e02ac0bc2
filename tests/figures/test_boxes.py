from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bsk.comparison.evidence import Run, collect
from bsk.errors import InputError, UsageError
from bsk.figures import boxes
from bsk.figures.boxes import draw_boxes, swarm
from bsk.figures.canvas import drawing
from bsk.figures.series import series

Make = Any


def stepped(make: Make, levels: tuple[float, ...] = (10, 6, 8), seeds: int = 3) -> list[dict[str, Any]]:
    return [
        make("fast-at", s, eps=8 / 255, flags={"step": k / 255, "epochs": 15}, checkpoint_sha256=f"{k}-{s}")
        for k in levels
        for s in range(1, seeds + 1)
    ]


def said(path: Path) -> list[str]:
    """The texts of an SVG, in the order they are drawn."""
    return [
        line[4:-3].strip()
        for line in path.read_text().splitlines()
        if line.strip().startswith("<!--")
        for line in [line.strip()]
    ]


def test_boxes_stand_in_the_order_of_numbers_with_their_seeds_and_facts(
    make: Make, place: Make, tmp_path: Path
) -> None:
    assert draw_boxes(place(stepped(make)), "step", [tmp_path / "a.svg", tmp_path / "a.png"]) == []
    texts = said(tmp_path / "a.svg")
    ticks = [text for text in texts if "/255" in text and "eps" not in text]
    assert ticks == ["6/255", "8/255", "10/255"] and texts.count("3 seeds") == 3
    assert "fast-at: digits, test split, n 10, cnn, best epoch, eps 8/255," in " ".join(texts)
    assert "50.0 ± 10.0" in texts and "pgd-20" in " ".join(texts)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_records_give_the_same_bytes(results: Make, place: Make, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        draw_boxes(place(results), "method", [tmp_path / name])
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a.svg").read_bytes() and ET.parse(tmp_path / "a.svg")
    assert not re.search(r"[1-9]\.\d{3}", (tmp_path / "a.svg").read_text()), "hundredths of a point"
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P" and round(image.info["dpi"][0]) == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]


def test_every_seed_is_a_dot_at_its_accuracy_and_the_box_is_their_quartiles(
    results: Make, place: Make, tmp_path: Path
) -> None:
    panels = boxes._panels([e for e in collect(place(results)).evaluations if e.attack != "natural"], "method")
    with drawing(tmp_path / "a.png", layout="constrained") as figure:
        boxes._draw(figure, panels, "method", "")
        (axes,) = figure.axes
        dots = [line for line in axes.lines if line.get_linestyle() == "None"]
        assert [sorted(line.get_ydata()) for line in dots] == [[40, 50, 60], [60, 70, 70]]
        assert sorted(dots[1].get_xdata()) == pytest.approx([1, 1, 1 + boxes.ASIDE]), "equal ones stand abreast"
        heights = [patch.get_path().vertices[:, 1] for patch in axes.patches]
        assert [(each.min(), each.max()) for each in heights] == [(45, 55), (65, 70)]
        medians = [line.get_ydata()[0] for line in axes.lines if line.get_linewidth() == 2]
        assert medians == [50, 70]


def test_other_attacks_and_radii_have_their_own_panel(make: Make, place: Make, tmp_path: Path) -> None:
    records = [make(m, s, a) for m in ("fast-at", "bs") for s in (1, 2) for a in ("pgd-20", "autoattack")]
    draw_boxes(place(records), "method", [tmp_path / "a.svg"])
    texts = said(tmp_path / "a.svg")
    assert "pgd-20" in texts and "autoattack" in texts and texts.count("fast-at") == 2


def test_only_records_that_differ_in_the_seed_share_a_box(make: Make, place: Make, tmp_path: Path) -> None:
    other = make("bs", 2, flags={"gamma": 2.0})
    with pytest.raises(InputError) as error:
        draw_boxes(place([make("bs", 1, flags={"gamma": 1.0}), other]), "method", [tmp_path / "a.png"])
    assert str(error.value) == (
        "results.jsonl:2: has the same method (bs) as results.jsonl:1, but another gamma; "
        "use --by gamma, or give records that differ only in their seeds"
    )
    mixed = [make("bs", 1, flags={"step": 0.2}), make("fast-at", 2, flags={"step": 0.2})]
    with pytest.raises(InputError, match=r"same step \(51/255\) as results.jsonl:1, but another method"):
        draw_boxes(place(mixed), "step", [tmp_path / "a.png"])
    chosen = {**make("bs", 2), "selected": "best-on-test"}
    assert draw_boxes(place([make("bs", 1), chosen]), "selected", [tmp_path / "b.png"]) == []
    weaker = make("bs", 2, attack_parameters={"step": 0.01})
    with pytest.raises(InputError, match=r"results.jsonl:2: attack step 0.01, not 0.05 as in results.jsonl:1; give"):
        draw_boxes(place([make("bs", 1), weaker]), "method", [tmp_path / "a.png"])
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]


def test_boxes_that_differ_in_more_than_the_flag_give_a_notice(make: Make, place: Make, tmp_path: Path) -> None:
    records = stepped(make, (6, 8))
    records[0:3] = [{**record, "flags": {**record["flags"], "epochs": 30}} for record in records[0:3]]
    assert draw_boxes(place(records), "step", [tmp_path / "a.png"]) == [
        "the networks drawn differ in more than step: epochs"
    ]
    methods = [make("bs", 1, flags={"beta": 10.0, "lr": 0.1}), make("fast-at", 1, flags={"beta": 6.0, "lr": 0.1})]
    assert draw_boxes(place(methods), "method", [tmp_path / "a.png"]) == [], "a method's own flags follow from it"


def test_boxes_of_other_attack_parameters_give_a_notice_and_remarks_are_in_the_title(
    make: Make, place: Make, tmp_path: Path
) -> None:
    low = make("fast-at", 1, attack_parameters={"search": "bf16"})
    notices = draw_boxes(place([make("bs", 1), low]), "method", [tmp_path / "a.svg"])
    assert notices == ["fast-at: attack search bf16, not none as bs"]
    assert "searched in bf16, judged in fp32" in " ".join(said(tmp_path / "a.svg"))


def test_errors_are_one_line(make: Make, place: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no evaluation under attack among the records; give what bsk evaluate wrote"):
        draw_boxes(place([make("bs", 1, "natural")]), "method", [tmp_path / "a.png"])
    with pytest.raises(InputError, match=r"results.jsonl:1: has no flag gama to group by; did you mean gamma\?"):
        draw_boxes(place([make("bs", 1, flags={"gamma": 1.0})]), "gama", [tmp_path / "a.png"])
    with pytest.raises(UsageError, match="--by odd: its values are lists or objects"):
        draw_boxes(place([make("bs", 1, flags={"odd": [1]})]), "odd", [tmp_path / "a.png"])


def test_hostile_names_are_drawn_literally(make: Make, place: Make, tmp_path: Path) -> None:
    evil = {**make("bs", 2), "method": "$\\frac{$ --> _x\x1b\n", "model": "m\u0000"}
    draw_boxes(place([make("bs", 1), evil]), "method", [tmp_path / "a.svg"])
    ET.parse(tmp_path / "a.svg")
    assert "\x1b" not in (tmp_path / "a.svg").read_text()


class Item:
    def __init__(self, **flags: Any) -> None:
        self.where, self.run = "f:1", Run("c", method="bs", flags=flags)


@pytest.mark.parametrize(
    ("by", "values", "labels"),
    [
        ("step", [10 / 255, 6 / 255], ["6/255", "10/255"]),
        ("step", [0.2, 41 / 255], ["41/255", "51/255"]),
        ("step", [0.031, 8 / 255], ["0.031", "8/255"]),
        ("gamma", [10, 2.0, 0.5], ["0.5", "2", "10"]),
        ("start", ["uniform", "backward"], ["uniform", "backward"]),
        ("limit", [1000, None], ["1000", "none"]),
    ],
)
def test_values_are_ordered_and_written(by: str, values: list[Any], labels: list[str]) -> None:
    assert [group.label for group in series([Item(**{by: value}) for value in values], by)] == labels


def test_whole_numbers_are_the_same_value_as_floats() -> None:
    (group,) = series([Item(gamma=1), Item(gamma=1.0)], "gamma")
    assert len(group.members) == 2


def test_swarm_by_hand() -> None:
    assert swarm([5.0, 1.0, 5.0, 5.1, 9.0, 5.0], 0.5) == [0, 0, 1, 2, 0, -1]


@given(st.lists(st.integers(0, 30).map(float), max_size=12), st.floats(0.5, 5))
def test_dots_with_the_same_shift_are_never_close(values: list[float], near: float) -> None:
    shifts = swarm(values, near)
    for i, a in enumerate(values):
        for j, b in enumerate(values[:i]):
            assert shifts[i] != shifts[j] or abs(a - b) >= near
