"""The paper's numbers next to ours: the right row for any radius, and ratios by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from bsk.comparison.compare import compare
from bsk.comparison.published import published
from bsk.comparison.tables import render
from bsk.errors import UsageError
from bsk.methods.registry import names
from bsk.records.located import located
from bsk.training.bound import bind

OWN: dict[
    str, dict[str, float]
] = {  # section 5.1: the values of each method where a table does not vary them; steps relative to the radius
    "at": {"step": 2 / 8},
    "trades": {"step": 2 / 8, "beta": 6},
    "fast-at": {"step": 10 / 8},
    "fast-at-plus": {"step": 10 / 8},
    "fast-trades": {"step": 1, "beta": 6},
    "fast-trades-2": {"step": 1, "beta": 6},
    "bs": {"step": 1, "beta": 10, "gamma": 1},
    "bs-alone": {"beta": 10, "gamma": 1},
    "bs-at": {"step": 1, "gamma": 1},
}
PAPER = Path(__file__).parents[2] / "bsk" / "comparison" / "paper"


def numbers(table: str, method: str, attack: str = "pgd-100", dataset: str | None = None, **flags: Any) -> list[Any]:
    return [row.robust(attack) for row in published(table).fitting(method, flags, dataset)]


@pytest.mark.parametrize("eps", [0.031, 8 / 255, 16 / 255, 0.2])
@pytest.mark.parametrize(("step", "robust"), [(6, 0.5238), (8, 0.525), (9, 0.5216), (12, 0.4112)])
def test_a_step_is_matched_relative_to_the_radius(eps: float, step: int, robust: float) -> None:
    size = step / 255 if eps == 0.031 else step / 8 * eps
    assert numbers("7", "bs", step=size, eps=eps) == [robust]


def test_rows_by_gamma_and_dataset() -> None:
    assert numbers("6/cifar100", "bs", gamma=0.1) == [0.2934]
    assert numbers("6", "bs", gamma=0.1, dataset="cifar100") == [0.2934]
    assert numbers("6", "bs", gamma=0.1, dataset="digits") == numbers("6/cifar10", "bs", gamma=0.1) == [0.5213]
    assert numbers("6", "bs", gamma=0.3) == numbers("6", "bs") == []


def test_a_row_has_its_methods_own_flags_where_the_table_does_not_vary_them() -> None:
    own = {"beta": 10.0, "gamma": 1.0, "step": 0.2, "eps": 0.2}
    assert numbers("2", "bs", **own) == [0.525]
    others: list[dict[str, Any]] = [{"beta": 2.0}, {"gamma": 5.0}, {"step": 0.3}, {"steps": 3}, {"start": "uniform"}]
    for other in (*others, {"awp": 0.005}):
        assert numbers("2", "bs", **{**own, **other}) == [], other
    assert numbers("2", "bs", **own, start="backward", steps=1, awp=0.0, epochs=12) == [0.525], "another scale is said"
    assert numbers("9", "bs", **{**own, "beta": 2.0}) == [0.4646]
    assert numbers("9", "bs", **{**own, "beta": 2.0, "gamma": 5.0}) == []


def test_another_attack_is_another_number() -> None:
    assert numbers("2", "bs", attack="pgd-20") == numbers("2", "bs", attack="autoattack") == [None]
    assert numbers("5", "bs", attack="autoattack") == [0.5113] and numbers("5", "bs", attack="rays") == [0.5508]
    assert numbers("5", "bs", attack="pgd-100") == [None]


def test_the_methods_own_flags_are_those_of_the_table_of_methods() -> None:
    for name, own in OWN.items():
        found = dict(bind(name, 8 / 255).hyper)
        found["step"] = found.get("step", 0) / (8 / 255)
        assert own == pytest.approx({axis: found[axis] for axis in own}), name


def test_table_1_has_the_mean_and_the_best_of_ten_runs_and_table_2_the_best() -> None:
    assert numbers("1", "fast-at") == [0.4452, 0.463]
    assert [row.aggregate for row in published("2").fitting("fast-at", {})] == ["best of 10 runs"]
    assert [row.source for row in published("8").fitting("fast-at-plus", {})] == ["copied from Li et al. (2020)"]


def test_the_numbers_are_those_of_the_source(shared: Path) -> None:
    """Except for the best of ten and the quoted rows, which are only in the paper's text."""
    found = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (shared / "paper" / "results.jsonl", PAPER / "results.jsonl")
    ]
    theirs, ours = (
        [{k: v for k, v in row.items() if k not in ("aggregate", "source")} for row in each] for each in found
    )
    ours = [row for row in ours if row["table"] != "fastat"]
    assert theirs == ours and len(ours) == 76


def test_numbers_of_another_benchmark_name_their_source() -> None:
    rows = published("fastat").rows
    assert {row.method for row in rows} <= set(names()) and len(rows) == 17
    assert all(row.source.startswith("FastAT_Benchmark (arXiv 2604.22853)") for row in rows)
    assert numbers("fastat", "liet", attack="autoattack") == [0.4999] and numbers("fastat", "bs") == []
    assert numbers("fastat", "liet", attack="pgd-50") == [0.5597] and numbers("fastat", "liet") == [None]


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("2", "columns titled paper have the paper's own numbers"),
        ("fastat", "columns titled paper have published numbers"),
    ],
)
def test_a_caption_says_whose_numbers_are_shown(name: str, whose: str) -> None:
    attack = "pgd-50" if name == "fastat" else "pgd-100"
    records = located([record("at", 100.0, 0.5, attack), record("fast-at", 40.0, 0.4, attack)], "r.jsonl")
    text = " ".join(render(compare(records, published(name))[0], "table").split())
    assert f"first row; {whose}" in text and ("FastAT_Benchmark" in text) == (name == "fastat")


def test_sums_of_the_printed_tables_match() -> None:
    """Sums of what is printed, made by hand from the paper's text: table 2, and the cifar100 half of table 6."""
    rows = published("2").rows
    assert sum(row.numbers["minutes"] for row in rows) == 430 + 82 + 482 + 126 + 164 + 164
    assert [row.numbers["robust"] for row in published("6/cifar100").fitting("bs", {"gamma": 5.0})] == [29.83]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("12", "--paper 12: no such table; did you mean 2?"),
        ("2/digits", "--paper 2/digits: that table has cifar10; write --paper 2/cifar10"),
        ("7/svhn", "--paper 7/svhn: that table has cifar10 and cifar100; write --paper 7/cifar10"),
    ],
)
def test_tables_that_the_paper_does_not_have(name: str, message: str) -> None:
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
    assert compare(located(lines, "r"), published("5"))[1][0] == (
        "no row matches table 5 of the paper in method, flags and attack"
    )
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


@pytest.mark.parametrize(("stop", "adbd"), [(False, 0.2), (True, None)])
def test_a_distance_of_a_search_that_stops_before_the_boundary_is_ignored(stop: bool, adbd: float | None) -> None:
    """0.1.0 wrote one."""
    old = record("bs", 1, 0.5, "rays", adbd=0.2, attack_parameters={"queries": 60, "stop_at_eps": stop})
    assert compare(located([old], "r"))[0][0]["adbd"] == adbd
