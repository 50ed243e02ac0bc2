"""The paper's numbers beside ours: the right row, whatever the radius; ratios by hand."""

import json

import pytest

from bsk.errors import UsageError
from bsk.report.comparison import compare
from bsk.report.fields import located
from bsk.report.published import published
from bsk.report.tables import render


@pytest.mark.parametrize("eps", [0.031, 8 / 255, 16 / 255, 0.2])
@pytest.mark.parametrize(("step", "robust"), [(6, 0.5238), (8, 0.525), (9, 0.5216), (12, 0.4112)])
def test_a_step_is_found_by_its_part_of_the_radius(eps: float, step: int, robust: float) -> None:
    size = step / 255 if eps == 0.031 else step / 8 * eps
    row = published("7").row("bs", {"step": size, "eps": eps})
    assert row is not None and row.accuracy("robust") == robust


def test_rows_by_gamma_and_dataset() -> None:
    row = published("6/cifar100").row("bs", {"gamma": 0.1})
    assert row is not None and (row.accuracy("natural"), row.accuracy("robust")) == (0.5662, 0.2934)
    assert published("6").row("bs", {"gamma": 0.3}) is None
    assert published("6").row("bs", {}) is None


def test_table_1_has_the_mean_and_the_best_of_ten_runs() -> None:
    table = published("1")
    mean, best = table.row("fast-at", {}), table.row("fast-at", {}, best=True)
    assert mean and best and (mean.accuracy("robust"), best.accuracy("robust")) == (0.4452, 0.463)
    assert table.row("at", {}, best=True) is None


def test_table_5_has_a_number_for_each_attack() -> None:
    row = published("5").row("bs", {})
    assert row and (row.accuracy("robust", "autoattack"), row.accuracy("robust", "rays")) == (0.5113, 0.5508)
    assert row.numbers["adbd"] == 0.0403


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("12", "--paper 12: no such table; did you mean 2?"),
        ("2/digits", "--paper 2/digits: that table has cifar10; write --paper 2/cifar10"),
        ("7/svhn", "--paper 7/svhn: that table has cifar10 and cifar100; write --paper 7/cifar10"),
    ],
)
def test_what_the_paper_has_not(name: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        published(name)
    assert str(error.value) == message


def record(method: str, seconds: float, accuracy: float, attack: str = "pgd-100", **more: object) -> bytes:
    found = {
        "kind": "evaluation", "checkpoint": f"{method}.safetensors", "method": method, "seed": 1, "flags": {},
        "eps": 0.2, "attack": attack, "split": "test", "n": 100, "accuracy": accuracy, "train_seconds": seconds, **more,
    }  # fmt: skip
    return json.dumps(found).encode()


def test_each_cost_is_a_ratio_to_the_first_row() -> None:
    lines = [record("at", 10, 0.6), record("bs", 4, 0.5), record("natural", 1, 0.1)]
    rows, _ = compare(located(lines, "r"), published("2"), "Table 2, SCALE=smoke")
    assert [row["train_time_ratio"] for row in rows] == [1, 0.4, 0.1]
    assert [row["paper_minutes"] for row in rows] == [430, 164, None]
    assert [row["paper_time_ratio"] for row in rows] == [1, 164 / 430, None]
    assert [row["paper_robust"] for row in rows] == [0.5114, 0.525, None]
    text = render(rows, "table")
    assert text.startswith("Table 2, SCALE=smoke: test split, n 100, eps 0.2, pgd-100, 1 seed;")
    assert [line.split()[-6:-1] for line in text.splitlines() if line.startswith("bs ")] == [
        ["82.4", "52.5", "164", "x", "0.38"]
    ]
    assert "paper" not in render(compare(located(lines, "r"))[0], "table")


def test_the_best_of_several_seeds_and_the_boundary_distance() -> None:
    lines = [record("fast-at", 10, a, seed=s) for s, a in ((1, 0.4), (2, 0.48), (3, 0.44))]
    rows, _ = compare(located(lines, "r"), published("1"))
    assert (rows[0]["robust"], rows[0]["robust_best"], rows[0]["paper_robust_best"]) == (
        pytest.approx(0.44),
        0.48,
        0.463,
    )
    lines = [record("bs", 1, 0.5, "rays", seed=s, adbd=a) for s, a in ((1, 0.2), (2, 0.3))]
    rows, _ = compare(located(lines, "r"), published("5"))
    assert (rows[0]["adbd"], rows[0]["paper_adbd"]) == (0.25, 0.0403)
