"""Conditions on a table: their meaning, and the messages when they do not hold."""

from pathlib import Path
from typing import Any

import pytest

from bsk.comparison.compare import COLUMNS, Row, compare
from bsk.comparison.requirements import failures, parse
from bsk.errors import UsageError
from bsk.figures.plots import accuracy_against_cost

Make = Any


def row(name: str, robust: float, attack: str = "pgd-20", **more: Any) -> Row:
    return {**dict.fromkeys(COLUMNS), "name": name, "attack": attack, "robust": robust, **more}


ROWS = [row("bs", 0.46, robust_low=0.44), row("fast-at", 0.5, robust_low=0.41), row("bs gamma=2", 0.25)]


@pytest.mark.parametrize(
    "text",
    [
        "bs.robust < fast-at.robust",
        "fast-at.robust - bs.robust > 0.039",
        "fast-at.robust - bs.robust<=0.0401",
        "bs.robust + 0.04 >= 0.5",
        "bs gamma=2.robust < 0.3",
        "robust > 0.2",
        "0.2 < robust",
        "bs@pgd-20.robust >= 4.6e-1",
    ],
)
def test_a_condition_that_holds(text: str) -> None:
    assert failures(parse(text), ROWS) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bs.robust - fast-at.robust > 0", ["--require 'bs.robust - fast-at.robust > 0': -0.04 > 0 does not hold"]),
        ("robust >= 0.4", ["--require 'robust >= 0.4': bs gamma=2: 0.25 >= 0.4 does not hold"]),
        ("bs.robust < robust", ["--require 'bs.robust < robust': bs: 0.46 < 0.46 does not hold"]),
    ],
)
def test_a_condition_that_does_not_hold_says_what_was_found(text: str, said: list[str]) -> None:
    assert failures(parse(text), ROWS)[:1] == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bs.robust", "write ROW.COLUMN, COLUMN or a number"),
        ("0 < bs.robust < 1", "write ROW.COLUMN, COLUMN or a number"),
        ("> 1", "write ROW.COLUMN, COLUMN or a number"),
        ("bs.robus > 0", "bs.robus: no such column; did you mean robust?"),
        ("fat-at.robust > 0", "fat-at.robust: no such row; did you mean fast-at?"),
        ("bs.natural > 0", "bs.natural: bs has no number there"),
        ("bs.attack > 0", "bs.attack: bs has no number there"),
    ],
)
def test_an_invalid_condition_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        failures(parse(text), ROWS)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_relative_columns_apply_to_every_row_that_is_not_its_own_baseline() -> None:
    rows = [
        row("bs", 0.5, baseline=1),
        row("at", 0.4, difference_low=-0.2, p=0.03),
        row("trades", 0.4, difference_low=0.1, p=0.2),
    ]
    assert failures(parse("difference_low > -1"), rows) == failures(parse("p + 0 < 0.5"), rows) == []
    assert failures(parse("difference_low > 0"), rows) == ["--require 'difference_low > 0': at: -0.2 > 0 does not hold"]
    rows[2]["difference_low"] = None  # not compared: of another eps
    both = [*rows[:2], row("bs", 0.3, attack="pgd-100", baseline=1)]
    assert failures(parse("difference_low > -1"), both) == []
    for alone, said in ((rows, "trades has no number there"), (rows[:1], "bs is what others are compared with")):
        with pytest.raises(UsageError, match=said):
            failures(parse("difference_low > -1"), alone)


def test_rows_of_one_name_are_told_apart_by_their_attack() -> None:
    rows = [row("bs", 0.5), row("bs", 0.4, "autoattack")]
    assert failures(parse("bs@autoattack.robust < bs@pgd-20.robust"), rows) == []
    with pytest.raises(UsageError, match="matches 2 rows; write one of bs@pgd-20, bs@autoattack"):
        failures(parse("bs.robust > 0"), rows)


def test_rows_with_the_same_name_are_told_apart_by_their_facts() -> None:
    kinds = ("best", "last", "best ema 0.999")
    rows = [row("bs", 0.1 * n, selected=kind, eps=8 / 255) for n, kind in enumerate(kinds, 1)]
    assert failures(parse("bs@pgd-20@best ema 0.999.robust - bs@last@pgd-20.robust > 0.09"), rows) == []
    assert failures(parse("bs@8/255@best.robust < 0.11"), rows) == []
    with pytest.raises(UsageError, match="matches 3 rows; write one of bs@best, bs@last, bs@best ema 0.999$"):
        failures(parse("bs@pgd-20.robust > 0"), rows)
    with pytest.raises(UsageError, match="matches 2 rows; some differ in other settings alone; compare one"):
        failures(parse("bs.robust > 0"), rows[:1] * 2)
    with pytest.raises(UsageError, match="no such row; known: bs"):
        failures(parse("bs@pgd-50@last.robust > 0"), rows)
    assert failures(parse("a@b@last.robust > 0"), [row("a@b", 0.5, selected="last"), row("a", 0.5)]) == []


def test_pareto_by_hand(make: Make, place: Make) -> None:
    """Robust accuracy 2, 3, 3, 1 of 4 for 10, 20, 30, 10 passes: only the first two are not beaten."""
    costs = {"a": ("1100", 10), "b": ("1110", 20), "c": ("1101", 30), "d": ("0001", 10)}
    records = [
        make(name, 1, correct=bits, train_forward_passes=passes, train_backward_passes=0)
        for name, (bits, passes) in costs.items()
    ]
    rows, _ = compare(place(records), pareto=True)
    assert {row["name"]: row["pareto"] for row in rows} == {"a": 1, "b": 1, "c": 0, "d": 0}
    rows, _ = compare(place(records))
    assert all(row["pareto"] is None for row in rows)


def test_equal_rows_and_other_attacks_do_not_beat_a_row(make: Make, place: Make) -> None:
    records = [make("a", 1, correct="1100"), make("b", 1, correct="0011"), make("a", 1, "rays", correct="1000")]
    rows, _ = compare(place(records), pareto=True)
    assert [row["pareto"] for row in rows] == [1, 1, 1]


@pytest.mark.parametrize(
    "change", [{"attack_parameters": {"steps": 5}}, {"data_sha256": "ff00"}, {"selected": "best-on-test"}]
)
def test_rows_that_are_not_comparable_do_not_beat_each_other(
    make: Make, place: Make, tmp_path: Path, change: dict[str, Any]
) -> None:
    cheap = make("fast-at", 1, correct="1110", train_forward_passes=100, **change)
    rows, _ = compare(place([make("bs", 1, correct="1100"), cheap]), pareto=True)
    assert [row["pareto"] for row in rows] == [1, 1]
    accuracy_against_cost(rows, tmp_path / "two.svg")
    accuracy_against_cost([{**row, "pareto": None} for row in rows], tmp_path / "none.svg")
    two, none = ((tmp_path / name).read_text().count("stroke-dasharray") for name in ("two.svg", "none.svg"))
    assert two == none, "no line through both"
