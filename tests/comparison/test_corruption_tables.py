"""The table by corruption and severity, against numbers worked by hand."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bsk.comparison.compare import COLUMNS, compare
from bsk.comparison.corruptions import by_corruption, caption, cells
from bsk.comparison.statistics import half_width
from bsk.evaluation.intervals import wilson
from bsk.records.jsonl import dumps

Make = Any
CORRECT = {  # of seeds 1 and 2, by corruption and severity
    ("fog", 1): ("1111111111", "1111111100"),
    ("fog", 2): ("1111110000", "1111000000"),
    ("snow", 1): ("1111100000", "1111100000"),
    ("snow", 2): ("1000000000", "1110000000"),
}
FEW = "means over 2 corruptions at severities 1, 2, not the benchmark's 15 at 1 to 5"


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
    assert [row["corruption"] for row in rows] == ["fog", "snow", "mean"]
    assert notices == [] and [row["note"] for row in rows] == [None, None, FEW], "a remark of the mean"
    values = [row[name] for row in rows for name in ("severity_1", "severity_2", "mean")]
    assert values == pytest.approx([0.9, 0.5, 0.7, 0.5, 0.2, 0.35, 0.7, 0.35, 0.525])
    assert {row["seeds"] for row in rows} == {2}
    assert cells(rows) == [
        ["corruption", "1", "2", "mean", ""],
        ["fog", "90.0", "50.0", "70.0 [6.8, 98.7]", ""],
        ["snow", "50.0", "20.0", "35.0 [5.4, 83.5]", ""],
        ["mean", "70.0", "35.0", "52.5 [22.1, 81.2]", "[1]"],
    ]
    facts = "bs, digits, test split, cnn, best epoch, natural, eps 0.2, n 10, 2 seeds"
    text = f"{facts}, accuracy in percent by corruption and severity, and means with 95 % intervals"
    assert caption(rows) == text and caption(rows, "C") == f"C: {text}"


def test_one_corruption_at_one_severity_has_wilsons_interval(records: Make, place: Make) -> None:
    rows, _ = by_corruption(place(records[::2]))  # seed 1 alone
    fog = rows[0]
    assert (fog["severity_2_low"], fog["severity_2_high"]) == pytest.approx(wilson(6, 10))
    one_severity, _ = by_corruption(place([record for record in records[::2] if record["severity"] == 1]))
    ends = [row[end] for row in one_severity[:2] for end in ("mean_low", "mean_high")]
    assert ends == pytest.approx([*wilson(10, 10), *wilson(5, 10)])


def test_the_interval_of_a_mean_is_over_images(place: Make, make: Make) -> None:
    """Shares 1, 1, 1, 1, 1/2, 1/2, 0, 0 of two corruptions: mean p = 5/8.

    With two more images, of shares 1 and 0, the mean is q = 6/10 and the variance v = 19/100. They tell as much as
    q (1 - q) 10 / v = 240/19 independent outcomes, of which 8/10 count, fewer than sixteen.
    """
    pair = {"fog": "11111000", "snow": "11110100"}
    given = [
        make("bs", 1, "natural", bits, corruption=name, severity=3, data_sha256=name, train_data_sha256="clean")
        for name, bits in pair.items()
    ]
    last = by_corruption(place(given))[0][-1]
    low, high = wilson(0.625 * 192 / 19, 192 / 19)
    assert (last["mean"], last["mean_low"], last["mean_high"]) == pytest.approx((0.625, low, high))
    assert last["severity_3_low"] == last["mean_low"] < wilson(10, 16)[0]


def test_a_mean_over_several_seeds_covers_new_seeds(records: Make, place: Make) -> None:
    """The (2, 10) shares of each seed and image, by the two-way layout of `half_width`."""
    bits = np.array([[[int(c) for c in seed] for seed in seeds] for seeds in CORRECT.values()])
    added = np.concatenate([bits.mean(axis=0), [[1, 0], [1, 0]]], axis=1)
    half, z, q = half_width(added), 1.959964, added.mean()
    last = by_corruption(place(records))[0][-1]
    n = z * z * q * (1 - q) / half**2 * 10 / 12
    assert (last["mean_low"], last["mean_high"]) == pytest.approx(wilson(0.525 * n, n))


def test_a_mean_has_no_interval_where_seeds_have_different_cells_or_no_outcomes(records: Make, place: Make) -> None:
    rows, _ = by_corruption(place(records[:-1]))  # seed 2 lacks snow at severity 2
    assert rows[0]["mean_low"] is not None and rows[1]["mean_low"] is None and rows[2]["mean_low"] is None
    bare, _ = by_corruption(place([{**record, "correct": None} for record in records]))
    assert bare[2]["mean_low"] is None and bare[0]["severity_1_low"] is not None


def test_a_mean_of_all_or_none_still_has_a_width(place: Make, make: Make) -> None:
    given = [
        make("bs", 1, "natural", "1" * 10, corruption=name, severity=1, data_sha256=name) for name in ("fog", "snow")
    ]
    last = by_corruption(place(given))[0][-1]
    assert (last["mean_low"], last["mean_high"]) == pytest.approx(wilson(10, 10))


def test_other_numbers_of_images_have_their_own_rows(records: Make, place: Make, make: Make) -> None:
    more = {"corruption": "fog", "severity": 1, "data_sha256": "fog1", "train_data_sha256": "clean"}
    rows, _ = by_corruption(place([*records, make("bs", 1, "natural", "11111", **more)]))
    fogs = [(row["n"], row["severity_1"]) for row in rows if row["corruption"] == "fog"]
    assert fogs == [(10, pytest.approx(0.9)), (5, 1.0)]


def test_the_mean_is_over_the_fifteen_and_other_corruptions_follow(records: Make, place: Make, make: Make) -> None:
    """As in Hendrycks & Dietterich (2019) and RobustBench: four of the published corruptions are extra."""
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


def test_missing_cells_are_reported_and_left_out(records: Make, place: Make, make: Make) -> None:
    more = {"corruption": "fog", "severity": 1, "data_sha256": "fog1", "attack_parameters": {}}
    rows, notices = by_corruption(place([*records, make("fast-at", 1, "pgd-20", "1111111100", **more)]))
    last = rows[-1]
    missing = "3 of 4 corruptions and severities are missing, and the mean leaves them out"
    assert notices == [] and last["note"].split("; ")[:2] == [FEW, missing]
    fog, snow = (row["note"] for row in rows[-3:-1])
    assert fog.startswith("without severity 2") and snow.startswith("without severity 1, 2")
    assert (last["name"], last["corruption"], last["severity_1"], last["severity_2"], last["mean"]) == (
        "fast-at",
        "mean",
        0.8,
        None,
        0.8,
    )
    assert cells(rows)[0] == ["method", "attack", "seeds", "corruption", "1", "2", "mean", ""]


def test_the_usual_table_has_a_row_per_corruption_and_severity(records: Make, place: Make) -> None:
    rows, notices = compare(place(records))
    data = [f"digits {corruption}{severity}" for corruption, severity in CORRECT]
    assert notices == [f"rows of different data ({', '.join(data)}) are not compared with one another"]
    assert COLUMNS[-3:] == ("corruption", "severity", "baseline")
    assert [(row["corruption"], row["severity"], row["natural"]) for row in rows] == [
        (*place, pytest.approx(value)) for place, value in zip(CORRECT, (0.9, 0.5, 0.5, 0.2), strict=True)
    ]


def test_a_notice_lists_at_most_a_few_values(place: Make, make: Make) -> None:
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


def test_incompatible_flags_and_records_are_refused(call: Make, records: Make, make: Make, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("".join(dumps(record) + "\n" for record in records))
    assert (
        "--pareto: cannot be combined with --by"
        in call("compare", "r.jsonl", "--by", "corruption", "--pareto", check=2).line
    )
    assert call("compare", "r.jsonl", "--by", "colour", check=2).line.startswith("bsk: --by colour: ")
    (tmp_path / "clean.jsonl").write_text(dumps(make("bs", 1)) + "\n")
    said = call("compare", "clean.jsonl", "--by", "corruption", check=3)
    assert "clean.jsonl: no evaluations on corrupted images; run bsk evaluate --data data/cifar10-c" in said.line
