from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_boxes import said

from bsk.errors import InputError
from bsk.figures import radius
from bsk.figures.radius import draw_radius
from bsk.figures.series import radius_labels

Make = Any
TRAINED = {"train_eps": 0.2, "flags": {"eps": 0.2, "step": 0.2}}
RIGHT = {0.05: "1111111110", 0.1: "1111111000", 0.2: "1110000000"}


def records(make: Make, method: str = "bs", seeds: tuple[int, ...] = (1,), **more: Any) -> list[dict[str, Any]]:
    found = [make(method, seed, "natural") for seed in seeds]
    for seed in seeds:
        found += [make(method, seed, correct=bits, **{**TRAINED, **more, "eps": e}) for e, bits in RIGHT.items()]
    return found


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[float], list[float], list[list[float]]]]:
    """Radius and accuracy of each line, and the lengths of its error bars below and above."""
    found = []

    def plot(axes: Any, place: int, line: Any) -> None:
        plotted(axes, place, line)
        bars = axes.containers[-1]
        x, y = (list(map(float, each)) for each in bars.lines[0].get_data())
        segments = bars.lines[2][0].get_segments()
        ends = [[float(end) for end in each[:, 1]] for each in segments]
        found.append((place, x, y, ends))

    plotted = radius._plot
    monkeypatch.setattr(radius, "_plot", plot)
    return found


def test_a_line_goes_from_the_natural_accuracy_outwards_with_wilson_s_bars(
    make: Make, place: Make, tmp_path: Path, drawn: list[Any]
) -> None:
    items = records(make)
    assert draw_radius(place([items[0], *items[:0:-1]]), [tmp_path / "a.svg"]) == []
    ((_, x, y, ends),) = drawn
    assert x == [0, 0.05, 0.1, 0.2] and y == pytest.approx([90, 90, 70, 30])
    # Wilson, by hand: (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), z = 1.959964, n = 10
    assert ends[2] == pytest.approx([39.678, 89.221], abs=1e-2) and ends[3] == pytest.approx([10.779, 60.322], abs=1e-2)
    texts = said(tmp_path / "a.svg")
    assert "bs" in texts and "radius in Linf, pixels of [0, 1]" in texts
    assert "n 10" in " ".join(texts) and "bars are 95 % intervals" in " ".join(texts) and "eps" not in " ".join(texts)


def test_each_method_and_attack_has_its_line_and_seeds_are_pooled(
    make: Make, place: Make, tmp_path: Path, drawn: list[Any]
) -> None:
    items = [*records(make, "bs", (1, 2)), *records(make, "fast-at"), *records(make, "bs", attack="apgd-ce")]
    draw_radius(place(items), [tmp_path / "a.svg", tmp_path / "a.png"], "Radii")
    assert [len(x) for _, x, _, _ in drawn[:3]] == [4, 4, 4] and len(drawn) == 6, "two files of three lines"
    texts = said(tmp_path / "a.svg")
    assert {"bs, pgd-20", "fast-at, pgd-20", "bs, apgd-ce", "Radii"} <= set(texts)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_without_natural_records_a_line_begins_at_its_first_radius(
    make: Make, place: Make, tmp_path: Path, drawn: list[Any]
) -> None:
    draw_radius(place(records(make)[1:]), [tmp_path / "a.svg"])
    assert drawn[0][1] == [0.05, 0.1, 0.2]


def test_records_that_cannot_share_a_figure_are_refused(make: Make, place: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no evaluation under attack"):
        draw_radius(place(records(make)[:1]), [tmp_path / "a.svg"])
    two = [*records(make), *records(make, attack="apgd-ce", attack_parameters={"norm": "l2"})]
    with pytest.raises(InputError, match=r"a radius in l2, but in linf at .*; draw one figure per norm"):
        draw_radius(place(two), [tmp_path / "a.svg"])
    again = [*records(make), *records(make, attack_parameters={"step": 0.01})]
    with pytest.raises(InputError, match=r"bs has two records at eps 0.05; give those of one attack"):
        draw_radius(place(again), [tmp_path / "a.svg"])
    assert not (tmp_path / "a.svg").exists()


def test_points_of_other_data_or_searches_are_told_apart(make: Make, place: Make, tmp_path: Path) -> None:
    low = make("bs", 1, correct="1100000000", **TRAINED, eps=0.3, attack_parameters={"search": "bf16", "step": 0.1})
    notices = draw_radius(place([*records(make), low]), [tmp_path / "a.svg"])
    assert notices == ["rows of pgd-20 with different parameters are not compared with one another"]
    assert "searched in bf16, judged in fp32" in " ".join(said(tmp_path / "a.svg"))
    other = make(
        "bs", 1, correct="1100000000", **TRAINED, eps=0.3, data_sha256="other", attack_parameters={"step": 0.1}
    )
    (notice,) = draw_radius(place([*records(make), other]), [tmp_path / "a.svg"])
    assert notice.startswith("rows of different data (digits abcdef")
    wider = make("bs", 1, correct="1100000000", **TRAINED, eps=0.3, attack_parameters={"step": 0.1})
    assert draw_radius(place([*records(make), wider]), [tmp_path / "a.svg"]) == []  # a step in proportion to eps


def test_radii_are_written_as_levels_where_all_are() -> None:
    assert radius_labels([0.0, 2 / 255, 8 / 255]) == ["0", "2/255", "8/255"]
    assert radius_labels([0.0, 2 / 255, 0.5]) == ["0", "2/255", "0.5"] and radius_labels([0.0]) == ["0"]
    assert radius_labels([0.0, 0.3]) == ["0", "0.3"]
