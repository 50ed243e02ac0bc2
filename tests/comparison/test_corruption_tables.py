"""The table by corruption and severity, against numbers worked by hand."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from bsk.comparison.compare import COLUMNS, compare
from bsk.comparison.corruptions import by_corruption, caption, cells
from bsk.records.jsonl import dumps

Make = Any
CORRECT = {  # of seeds 1 and 2, by corruption and severity
    ("fog", 1): ("1111111111", "1111111100"),
    ("fog", 2): ("1111110000", "1111000000"),
    ("snow", 1): ("1111100000", "1111100000"),
    ("snow", 2): ("1000000000", "1110000000"),
}


@pytest.fixture
def records(make: Make) -> list[dict[str, Any]]:
    found = []
    for (corruption, severity), seeds in CORRECT.items():
        for seed, bits in enumerate(seeds, 1):
            place = {"corruption": corruption, "severity": severity, "data_sha256": f"{corruption}{severity}"}
            found.append(make("bs", seed, "natural", bits, train_data_sha256="clean", **place))
    return found


def test_means_are_over_seeds_then_severities_then_corruptions(records: Make, place: Make, make: Make) -> None:
    rows, notices = by_corruption(place([make("bs", 1), *records]))  # one of clean images has no part in it
    assert [row["corruption"] for row in rows] == ["fog", "snow", "mean"] and notices == []
    values = [row[name] for row in rows for name in ("severity_1", "severity_2", "mean")]
    assert values == pytest.approx([0.9, 0.5, 0.7, 0.5, 0.2, 0.35, 0.7, 0.35, 0.525])
    assert {row["seeds"] for row in rows} == {2}
    assert cells(rows) == [
        ["corruption", "1", "2", "mean"],
        ["fog", "90.0", "50.0", "70.0"],
        ["snow", "50.0", "20.0", "35.0"],
        ["mean", "70.0", "35.0", "52.5"],
    ]
    told = "bs, cnn, natural, 0.2, n 10, 2 seeds, accuracy in percent by corruption and severity, and means over them"
    assert caption(rows) == told and caption(rows, "C") == f"C: {told}"


def test_numbers_of_other_images_are_rows_of_their_own(records: Make, place: Make, make: Make) -> None:
    more = {"corruption": "fog", "severity": 1, "data_sha256": "fog1", "train_data_sha256": "clean"}
    rows, _ = by_corruption(place([*records, make("bs", 1, "natural", "11111", **more)]))
    fogs = [(row["n"], row["severity_1"]) for row in rows if row["corruption"] == "fog"]
    assert fogs == [(10, pytest.approx(0.9)), (5, 1.0)]


def test_the_mean_is_that_of_the_fifteen_and_others_stand_after_it(records: Make, place: Make, make: Make) -> None:
    """As Hendrycks & Dietterich (2019) have it, and RobustBench: four of the published corruptions are extra."""
    more = []
    for name, k in product(("gaussian_blur", "speckle_noise"), (1, 2)):
        where = {"corruption": name, "severity": k, "data_sha256": f"{name}{k}", "train_data_sha256": "clean"}
        more += [make("bs", seed, "natural", "0000000000", **where) for seed in (1, 2)]
    rows, _ = by_corruption(place([more[0], *records, *more[1:]]))
    assert [row["corruption"] for row in rows] == ["fog", "snow", "mean", "gaussian_blur", "speckle_noise"]
    assert rows[2]["mean"] == pytest.approx(0.525) and rows[3]["mean"] == 0.0
    alone, _ = by_corruption(place(more))
    assert alone[-1]["corruption"] == "mean" and alone[-1]["mean"] == 0.0, (
        "without any of them the mean is of what is there"
    )


def test_what_is_missing_is_said_and_left_out(records: Make, place: Make, make: Make) -> None:
    more = {"corruption": "fog", "severity": 1, "data_sha256": "fog1", "attack_parameters": {}}
    rows, notices = by_corruption(place([*records, make("fast-at", 1, "pgd-20", "1111111100", **more)]))
    assert notices == ["fast-at: 3 of 4 corruptions and severities are missing; means leave them out"]
    last = rows[-1]
    assert (last["name"], last["corruption"], last["severity_1"], last["severity_2"], last["mean"]) == (
        "fast-at",
        "mean",
        0.8,
        None,
        0.8,
    )
    assert cells(rows)[0] == ["method", "attack", "seeds", "corruption", "1", "2", "mean"]


def test_the_usual_table_tells_them_apart(records: Make, place: Make) -> None:
    rows, notices = compare(place(records))
    data = [f"digits {corruption}{severity}" for corruption, severity in CORRECT]
    assert notices == [f"rows of different data ({', '.join(data)}) are not compared with one another"]
    assert COLUMNS[-2:] == ("corruption", "severity")
    assert [(row["corruption"], row["severity"], row["natural"]) for row in rows] == [
        (*place, pytest.approx(value)) for place, value in zip(CORRECT, (0.9, 0.5, 0.5, 0.2), strict=True)
    ]


def test_a_notice_names_no_more_than_a_few(place: Make, make: Make) -> None:
    many = [make("bs", 1, corruption="fog", severity=k, data_sha256=f"d{k}") for k in range(1, 9)]
    (notice,) = compare(place(many))[1]
    assert "(digits d1, digits d2, digits d3, digits d4, digits d5, digits d6, ...)" in notice


@pytest.mark.parametrize("format", ["table", "tsv", "jsonl", "markdown", "latex"])
def test_it_is_printed_in_every_format(call: Make, records: Make, tmp_path: Path, format: str) -> None:
    (tmp_path / "r.jsonl").write_text("".join(dumps(record) + "\n" for record in records))
    ending = {"table": "txt", "markdown": "md", "latex": "tex"}.get(format, format)
    said = call("compare", "r.jsonl", "--by", "corruption", "--format", format, "--out", f"t.{ending}")
    assert said.stdout == (tmp_path / f"t.{ending}").read_text()
    assert "snow" in said.stdout and ("52.5" in said.stdout or "0.525" in said.stdout)


def test_what_it_does_not_go_with(call: Make, records: Make, make: Make, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("".join(dumps(record) + "\n" for record in records))
    assert (
        "--pareto: cannot be combined with --by"
        in call("compare", "r.jsonl", "--by", "corruption", "--pareto", check=2).line
    )
    assert call("compare", "r.jsonl", "--by", "colour", check=2).line.startswith("bsk: --by colour: ")
    (tmp_path / "clean.jsonl").write_text(dumps(make("bs", 1)) + "\n")
    said = call("compare", "clean.jsonl", "--by", "corruption", check=3)
    assert "clean.jsonl: no evaluations on corrupted images; run bsk evaluate --data data/cifar10-c" in said.line
