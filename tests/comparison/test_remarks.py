"""What a reader of a table must be told: doubts, unfinished trainings, other code, other attacks, estimates."""

from __future__ import annotations

from typing import Any

import pytest

from bsk.comparison.classes import by_class
from bsk.comparison.classes import cells as class_cells
from bsk.comparison.compare import COLUMNS, Row, compare
from bsk.comparison.corruptions import by_corruption
from bsk.comparison.requirements import failures, parse
from bsk.comparison.tables import caption, cells, footnotes, render
from bsk.records.words import probability

Make = Any
WEAK, STRONG = "1111111110", "1110000000"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_result_under_another_seed_of_the_attack_is_not_replaced_in_silence(
    make: Make, place: Make, order: tuple[int, int]
) -> None:
    two = [make("bs", 1, correct=bits, attack_parameters={"seed": k}) for k, bits in enumerate((STRONG, WEAK))]
    (row,), (notice,) = compare(place([two[k] for k in order]))
    assert row["robust"] == (0.9, 0.3)[order[0]] and notice.endswith("results.jsonl:2 with another seed of the attack")
    same = [make("bs", 1, attack_parameters={"seed": k}) for k in (0, 1)]
    assert compare(place(same))[1] == []  # the same verdicts


def test_doubts_are_remarks_counted_over_seeds(make: Make, place: Make) -> None:
    said = "PGD on cross entropy misses {} that the margin finds: use cw-100 too"
    records = [{**make("bs", s), "doubts": [said.format(f"{10 + s}%")] if s < 3 else []} for s in (1, 2, 3)]
    rows, _ = compare(place([*records, {**make("fast-at", 1), "doubts": ["its gradients are zero; see square"]}]))
    assert rows[0]["note"] == f"doubtful (2 of 3 seeds): {said.format('11%')}"
    assert footnotes(rows)[1:] == [
        "[2] difference over 1 common seed: its interval does not cover new seeds",
        "[3] doubtful: its gradients are zero, see square",
    ]
    assumed = "3 images were not attacked because they stood at larger radii: leave out --largest-first"
    (row,), _ = compare(place([{**make("bs", 1), "doubts": [assumed], "carried": 3, "carried_from": [0.3]}]))
    assert row["note"] == "images that stood at larger radii of the same run are assumed to stand"  # once


def test_assumed_verdicts_are_compared_only_with_their_like(make: Make, place: Make) -> None:
    assumed = {"carried": 3, "carried_from": [0.3]}
    rows, _ = compare(place([make("fast-at", 1), make("bs", 1, **assumed)]))
    assert rows[1]["difference"] is None
    assert "verdicts assumed from larger radii in only one of the two" in str(rows[1]["note"])
    rows, _ = compare(place([make("fast-at", 1, **assumed), make("bs", 1, **assumed)]))
    assert rows[1]["difference"] == pytest.approx(0.2)
    rows, _ = compare(place([make("fast-at", 1), make("bs", 1, carried=3, carried_from=[0.1])]))
    assert rows[1]["difference"] == pytest.approx(0.2)  # those that fell at a smaller radius have fallen


@pytest.mark.parametrize("more", [{"complete": False, "epoch": 3}, {"selected": "last", "epoch": 3}])
def test_a_network_from_the_middle_of_its_training_is_no_seed_of_the_others(
    make: Make, place: Make, more: dict[str, Any]
) -> None:
    rows, _ = compare(place([make("bs", 1), make("bs", 3), {**make("bs", 2), **more}]))
    assert [(row["seeds"], row["note"]) for row in rows][0] == (2, None)
    assert rows[1]["seeds"] == 1 and "training unfinished at epoch 3" in str(rows[1]["note"])


def test_seeds_trained_by_different_code_are_different_rows_and_the_name_tells_them(make: Make, place: Make) -> None:
    of = {s: {**make("bs", s), "method": "mine:own", "method_code": sha * 8} for s, sha in ((1, "aaaa"), (2, "bbbb"))}
    rows, _ = compare(place([of[1], of[2], {**make("bs", 3), "method": "mine:own", "method_code": "aaaa" * 8}]))
    assert [(row["name"], row["seeds"]) for row in rows] == [
        ("mine:own method_code=aaaaaaaa", 2),
        ("mine:own method_code=bbbbbbbb", 1),
    ]


def test_networks_of_others_are_told_apart_by_their_normalisation_where_one_file_has_several(
    make: Make, place: Make
) -> None:
    foreign = {"method": None, "seed": None, "checkpoint": "a.pt", "checkpoint_sha256": "a", "selected": None}
    one, two = ({"mean": [mean], "std": [0.2]} for mean in (0.4, 0.5))
    old, new = {**make("bs", 1, "natural"), **foreign}, {**make("bs", 1), **foreign, **one}
    ((row,), notices) = compare(place([old, new]))  # a record of an earlier version lacks mean and std
    assert row["name"] == "a" and row["natural"] == 0.9 and notices == []
    rows, _ = compare(place([new, {**new, **two}]))
    assert [row["name"] for row in rows] == ["a mean=[0.4]", "a mean=[0.5]"]


def test_natural_accuracies_of_different_seeds_are_no_pair(make: Make, place: Make) -> None:
    robust = [make(method, s) for method in ("fast-at", "bs") for s in (1, 2, 3)]
    rows, _ = compare(place([*robust, make("fast-at", 1, "natural"), make("bs", 2, "natural")]))
    assert rows[1]["natural_difference_low"] is None
    assert "natural: no seed in common with the first row, so no paired test" in str(rows[1]["note"])
    alone, _ = compare(place([robust[0], robust[4], make("fast-at", 1, "natural"), make("bs", 2, "natural")]))
    assert alone[1]["natural_difference_low"] is not None  # a single network each, under attack too


def test_clean_and_corrupted_images_have_a_column_and_not_one_caption(make: Make, place: Make) -> None:
    fog = {"corruption": "fog", "severity": 3, "data_sha256": "f00"}
    rows, _ = compare(place([make("bs", 1), make("bs", 1, correct="1000000000", **fog)]))
    header, *lines = cells(rows)
    assert "fog" not in caption(rows) and "severity" not in caption(rows)
    assert [line[header.index("corruption")] for line in lines] == ["clean", "fog"]
    foreign = {**make("bs", 2), "method": None, "selected": None, "seed": None, "checkpoint": "theirs.pt"}
    rows, _ = compare(place([make("bs", 1), foreign]))
    assert "best epoch" not in caption(rows) and "selected" in cells(rows)[0]


def test_classes_and_corruptions_tell_their_rows_apart(make: Make, place: Make) -> None:
    other = {"attack_parameters": {"restarts": 10, "search": "bf16"}}
    counts = {"by_class": {"cat": [3, 5], "dog": [4, 5]}}
    rows, _ = by_class(place([{**make("bs", 1), **counts}, {**make("bs", 1, **other), **counts}]))
    said = ["attack restarts 10, not 1", "attack search bf16, not none", "searched in bf16, judged in fp32"]
    assert [row["note"] for row in rows] == [None, None, *["; ".join(said)] * 2]
    assert [line[-1] for line in class_cells(rows)] == ["", "", "", "[1, 2, 3]", "[1, 2, 3]"]

    fog = {"corruption": "fog", "severity": 3, "data_sha256": "f00"}
    last = {**make("bs", 1, correct=STRONG, **fog), "selected": "last", "epoch": 15}
    found, _ = by_corruption(place([make("bs", 1, **fog), last, make("bs", 1, **fog, **other)]))
    means = [row for row in found if row["corruption"] == "mean"]
    assert all(row["note"] is None for row in found[::2][:1]), "the row itself lacks nothing"
    few = "means over 1 corruption at severities 3, not the benchmark's 15 at 1 to 5"
    assert [(row["selected"], row["note"]) for row in means] == [
        ("best", few),
        ("last", few),
        ("best", "; ".join([*said, few])),
    ]
    rows, _ = by_corruption(
        place([make("bs", s, **fog) for s in (1, 2)] + [make("bs", 1, **{**fog, "corruption": "snow"})])
    )
    assert "some corruptions or severities have other seeds than others, and the mean mixes them" in str(
        rows[-1]["note"]
    )


def test_a_difference_that_cannot_be_detected_is_said_so(make: Make, place: Make) -> None:
    base = [make("bs", s, correct="1" * 5 + "0" * 5) for s in (1, 2)]
    collapsed = [make("fast-at", s, correct=bits) for s, bits in ((1, "1" * 10), (2, "0" * 10))]
    rows, _ = compare(place([*base, *collapsed]))
    assert float(rows[1]["detectable"] or 0) > 1
    said = "p from an exact paired test; no true difference has an interval that excludes 0 in 4 of 5 cases"
    assert said in caption(rows)


def test_images_that_selected_the_epoch_are_a_remark(make: Make, place: Make) -> None:
    """Accuracies on them are too high, wherever the table is kept."""
    said = "these images selected the epoch, so accuracies on them are too high"
    for split, selected, so in (
        ("val", "best", True),
        ("val", "best ema 0.999", True),
        ("val", "last", False),
        ("test", "best", False),
        ("test", "best-on-test", True),
        ("val", "best-on-test", False),
    ):
        (row,), _ = compare(place([make("bs", 1, split=split, selected=selected)]))
        assert (said in str(row["note"])) is so, (split, selected)
        (row,), _ = compare(place([make("bs", 1, split=split, selected=selected, train_data_sha256="other")]))
        assert said not in str(row["note"]), "other data"


def test_natural_accuracies_of_other_seeds_are_told_and_not_compared(make: Make, place: Make) -> None:
    robust = [make(method, s) for method in ("fast-at", "bs") for s in (1, 2)]
    natural = [make(method, s, "natural") for method, seeds in (("fast-at", (2, 3)), ("bs", (2, 3))) for s in seeds]
    rows, _ = compare(place([*robust, *natural]))
    assert all("natural over other seeds" in str(row["note"]) for row in rows)
    alone, _ = compare(place([*(each for each in robust if each["seed"] == 2), *natural[::2]]))
    assert rows[1]["natural_difference"] == alone[1]["natural_difference"], "over the seed that is compared"
    third = [make(method, 3, "natural") for method in ("fast-at", "bs")]
    rows, _ = compare(place([*robust, *third]))
    assert rows[1]["natural_difference"] is None and rows[1]["difference"] is not None
    assert "natural: no seed in common with the first row" in str(rows[1]["note"])


def test_conditions_skip_every_baseline_and_forgive_floating_point(make: Make, place: Make) -> None:
    records = [make(method, 1, attack) for attack in ("pgd-20", "pgd-100") for method in ("fast-at", "bs")]
    rows, _ = compare(place(records))
    assert [row["baseline"] for row in rows] == [1, 0, 1, 0]
    assert failures(parse("difference > -1"), rows) == []
    assert (
        failures(parse("difference > 0.5"), rows) == ["--require 'difference > 0.5': bs: 0.2 > 0.5 does not hold"] * 2
    )
    seven = [make("bs", 1, correct="1" * 7 + "0" * 3), make("fast-at", 1, correct="1" * 6 + "0" * 4)]
    both, _ = compare(place(seven))
    assert failures(parse("bs.robust - fast-at.robust >= 0.1"), both) == []
    assert failures(parse("bs.robust - fast-at.robust > 0.1"), both)  # 0.7 - 0.6 is 0.09999999999999998


def test_pareto_judges_each_model_alone_and_says_what_it_does_not_judge(make: Make, place: Make) -> None:
    foreign = {**make("bs", 3), "method": None, "checkpoint": "theirs.pt", "train_forward_passes": None}
    small, large = make("bs", 1), {**make("fast-at", 1, correct=WEAK), "model": "wrn-34-10"}
    rows, notices = compare(place([small, large, foreign]), pareto=True)
    assert [row["pareto"] for row in rows] == [1, 1, None]
    assert "--pareto: 1 row without an attack or passes, or with an estimate, not judged" in notices
    header, *lines = cells(rows)
    assert [line[header.index("pareto")] for line in lines] == ["*", "*", "?"]
    same, _ = compare(place([small, {**large, "model": "cnn"}]), pareto=True)
    assert [row["pareto"] for row in same] == [0, 1]


def test_numbers_for_programs_have_no_exponent_and_p_is_told_from_its_neighbours() -> None:
    blank: Row = dict.fromkeys(COLUMNS)
    for value in (1e-7, 1.8665272370064378e-301, 1e17):
        found = render([{**blank, "name": "bs", "p": value}], "tsv").splitlines()[1].split("\t")[18]
        assert "e" not in found and float(found) == value
    assert [probability(p) for p in (0.0451, 0.0549, 0.0149, 0.33)] == ["0.045", "0.055", "0.015", "0.33"]
