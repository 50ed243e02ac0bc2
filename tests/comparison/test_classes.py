from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import bsk
from bsk.comparison.classes import COLUMNS, TEXT, by_class, caption, cells
from bsk.comparison.tables import printed
from bsk.errors import InputError, UsageError
from bsk.evaluation.reports import by_class as counted

Make = Any
CAT, DOG = [4, 6], [0, 4]


def record(make: Make, attack: str, method: str = "bs", seed: int = 1, **counts: list[int]) -> dict[str, Any]:
    return make(method, seed, attack, by_class=counts)


@pytest.fixture
def records(make: Make) -> list[dict[str, Any]]:
    return [
        record(make, "natural", cat=[6, 6], dog=[3, 4]),
        record(make, "pgd-20", cat=CAT, dog=DOG),
        record(make, "pgd-20", "fast-at", cat=[1, 6], dog=[2, 4]),
    ]


def test_counts_by_hand() -> None:
    labels, correct = torch.tensor([0, 2, 2, 0, 2]), torch.tensor([True, False, True, True, True])
    assert counted(correct, labels, ["a", "b", "c"]) == {"by_class": {"a": [2, 2], "c": [2, 3]}}, "b has no example"


def test_one_row_per_class_with_wilsons_intervals(records: Make, place: Make) -> None:
    rows, notices = by_class(place(records))
    assert notices == [] and [(row["name"], row["class"], row["n"]) for row in rows] == [
        ("bs", "cat", 6),
        ("bs", "dog", 4),
        ("fast-at", "cat", 6),
        ("fast-at", "dog", 4),
    ]
    assert all(tuple(row) == COLUMNS for row in rows)
    cat, dog, other, _ = rows
    assert (cat["natural"], cat["robust"], dog["natural"], dog["robust"]) == (1.0, pytest.approx(4 / 6), 0.75, 0.0)
    # by hand: (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) with z = 1.959964
    assert (cat["robust_low"], cat["robust_high"]) == (pytest.approx(0.3000, abs=1e-4), pytest.approx(0.9032, abs=1e-4))
    assert (dog["robust_low"], dog["robust_high"]) == (pytest.approx(0.0), pytest.approx(0.4899, abs=1e-4))
    assert other["natural"] is None and other["robust"] == pytest.approx(1 / 6)


def test_seeds_are_pooled_and_make_intervals_wider_than_one_of_their_mean(make: Make, place: Make) -> None:
    seeds = [record(make, "pgd-20", seed=k, cat=[right, 100]) for k, right in ((1, 40), (2, 50), (3, 60))]
    ((row,), _) = by_class(place(seeds))
    assert row["robust"] == pytest.approx(0.5) and row["seeds"] == 3
    ((one,), _) = by_class(place([record(make, "pgd-20", cat=[50, 100])]))
    assert row["robust_low"] < one["robust_low"] < 0.5 < one["robust_high"] < row["robust_high"]


def test_records_without_class_counts_are_reported_or_refused(make: Make, records: Make, place: Make) -> None:
    with pytest.raises(InputError, match=r"results.jsonl:1: has no counts per class; run bsk evaluate again"):
        by_class(place([make("bs", 1)]))
    _, notices = by_class(place([*records, make("bs", 2)]))
    assert notices == ["1 record(s) without counts per class left out (audits, earlier versions)"]
    for wrong in ([7, 6], [0, 0], [1], ["1", 2]):
        with pytest.raises(InputError, match="by_class"):
            by_class(place([record(make, "pgd-20", cat=wrong)]))


def test_every_format_has_all_rows(records: Make, place: Make) -> None:
    rows, _ = by_class(place(records))
    header, *lines = printed(rows, "tsv", cells(rows), TEXT, caption(rows)).splitlines()
    assert tuple(header.split("\t")) == COLUMNS and len(lines) == 4
    assert [json.loads(line) for line in printed(rows, "jsonl", cells(rows), TEXT, caption(rows)).splitlines()] == rows
    for format in ("table", "markdown", "latex"):
        text = printed(rows, format, cells(rows), TEXT, caption(rows))
        assert text.count("cat") == text.count("dog") == 2 and "66.7 [30.0, 90.3]" in text.replace("66.67", "66.7")


def test_records_of_evaluate_are_compared_by_class(call, trained: Path, toy: Path, tmp_path: Path) -> None:
    words = ["--data", toy, "--attack", "natural,pgd-3", "--no-checks", "--limit", "50", "--out", "r.jsonl"]
    natural, robust = map(json.loads, call("evaluate", trained, *words).stdout.splitlines())
    held = load_file(tmp_path / "r.examples" / f"{robust['key']}.safetensors")
    for label, name in enumerate("abc"):
        mine = held["labels"] == label
        assert robust["by_class"][name] == [int((held["broken_by"][mine] < 0).sum()), int(mine.sum())]
    assert sum(right for right, _ in robust["by_class"].values()) == round(50 * robust["accuracy"])
    rows = [
        json.loads(line)
        for line in call("compare", "r.jsonl", "--by", "class", "--format", "jsonl").stdout.splitlines()
    ]
    assert [(row["class"], row["natural"]) for row in rows] == [
        (name, right / n) for name, (right, n) in natural["by_class"].items()
    ]
    assert (
        "--pareto: cannot be combined with --by"
        in call("compare", "r.jsonl", "--by", "class", "--pareto", check=2).line
    )
    assert "did you mean class" in call("compare", "r.jsonl", "--by", "clas", check=2).line
    shown = bsk.compare(tmp_path / "r.jsonl", by="class")
    assert list(shown) == rows and "percent with 95 % intervals" in repr(shown)
    with pytest.raises(UsageError, match="compare by class: cannot be combined with paper, title or pareto"):
        bsk.compare(tmp_path / "r.jsonl", by="class", title="x")
