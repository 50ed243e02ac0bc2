from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bsk.comparison.compare import COLUMNS, compare
from bsk.comparison.significance import mcnemar_exact
from bsk.comparison.statistics import detectable
from bsk.comparison.tables import render
from bsk.evaluation.intervals import wilson

Make = Any
SEEDS = {"fast-at": (1, 2, 3), "bs": (3, 1, 2), "trades": (1, 2, 3), "at": (1,)}


def test_columns_that_scripts_rely_on() -> None:
    assert COLUMNS[:5] == ("name", "model", "eps", "natural", "robust")
    assert len(COLUMNS) == len(set(COLUMNS)) == 54


def test_three_seeds_of_two_methods_by_hand(results: Make, place: Make) -> None:
    rows, notices = compare(place(results))
    fast_at, bs = rows
    assert notices == [] and [row["name"] for row in rows] == ["fast-at", "bs"]
    assert all(tuple(row) == COLUMNS for row in rows)

    assert fast_at["natural"] == 1 and fast_at["robust"] == pytest.approx(0.5)  # 5, 6, 4 of 10
    assert fast_at["robust_sd"] == pytest.approx(0.1)
    spread = (fast_at["robust_sd_low"], fast_at["robust_sd_high"])
    assert spread == pytest.approx([0.1 * (2 / q) ** 0.5 for q in (7.3778, 0.050636)], rel=1e-4)  # chi-squared, 2
    assert fast_at["train_passes_ratio"] == 1 and fast_at["natural_difference"] is None
    natural = [bs[f"natural_difference{end}"] for end in ("_low", "", "_high")]
    assert natural[1] == pytest.approx(bs["natural"] - fast_at["natural"]) and natural == sorted(natural)
    assert bs["natural"] == pytest.approx(28 / 30) and bs["robust"] == pytest.approx(20 / 30)  # 7, 6, 7
    assert bs["robust_sd"] == pytest.approx(math.sqrt(0.01 / 3))
    assert (bs["seeds"], bs["n"], bs["attack"], bs["eps"], bs["model"]) == (3, 10, "pgd-20", 0.2, "cnn")
    assert (bs["dataset"], bs["split"], bs["selected"], bs["note"]) == ("digits", "test", "best", None)
    assert bs["train_seconds"] == 6.5 and bs["train_forward_passes"] == 1000 and bs["train_backward_passes"] == 500
    assert type(bs["train_forward_passes"]) is int

    assert fast_at["difference"] is fast_at["p"] is fast_at["difference_low"] is None
    assert bs["difference"] == pytest.approx(5 / 30)
    # image by image, three pairs each: -1 0 0 0 1 2 2 1 0 0; of 32 signs of (1, 1, 2, 2, 1), 4 sum to 5 or more
    assert bs["p"] == pytest.approx(8 / 32)
    assert bs["difference_low"] < 0 < 5 / 30 < bs["difference_high"]
    assert bs["robust_low"] < 20 / 30 < bs["robust_high"]
    assert bs["p_holm"] == bs["p"], "one comparison"
    assert bs["difference_seeds_low"] < 5 / 30 < bs["difference_seeds_high"], "of 2, 0 and 3 of 10"
    assert bs["difference_boot_low"] <= 5 / 30 <= bs["difference_boot_high"] and bs["detectable"] > 0.1


def test_a_ratio_that_overflows_is_none(make: Make, place: Make) -> None:
    rows, _ = compare(place([make("fast-at", 1, train_seconds=1e-310), make("bs", 1, train_seconds=100.0)]))
    assert rows[1]["train_time_ratio"] is None and render(rows, "jsonl").count("\n") == 2


def test_times_of_different_devices_have_no_ratio(make: Make, place: Make) -> None:
    """The device of a training is its record's, else the evaluation's own; several in one row are different too."""
    gpu = {"train_device": "cuda X", "device": "cpu"}
    records = [make("fast-at", 1), make("bs", 1, **gpu), make("trades", 1, correct="1111110000")]
    rows, _ = compare(place([{"device": "cpu", **each, "train_seconds": 10.0} for each in records]))
    assert [row["train_time_ratio"] for row in rows] == [1, None, 1]
    assert rows[1]["note"] == "trained on cpu and cuda X: times are not compared"
    assert rows[1]["train_seconds"] == 10 and rows[1]["train_passes_ratio"] is not None
    both = [make("fast-at", 1), make("fast-at", 2, **gpu)]
    rows, _ = compare(place([{"device": "cpu", **each, "train_seconds": 10.0} for each in both]))
    assert rows[0]["train_time_ratio"] is None and "times are not compared" in rows[0]["note"]


def test_one_seed_is_wilson_and_mcnemar(make: Make, place: Make) -> None:
    rows, _ = compare(place([make("fast-at", 1), make("bs", 1)]))
    assert (rows[1]["robust_low"], rows[1]["robust_high"]) == wilson(7, 10)
    assert rows[1]["robust_sd"] is None and rows[1]["natural"] is None
    assert rows[1]["difference"] == pytest.approx(0.2) and rows[1]["p"] == mcnemar_exact(2, 0) == 0.5


def test_rows_with_the_same_seeds_share_the_estimate_of_detectable(make: Make, place: Make) -> None:
    random = np.random.default_rng(0)
    right = {(method, s): random.random(60) < 0.5 for method, seeds in SEEDS.items() for s in seeds}
    text = {key: "".join("01"[int(each)] for each in bits) for key, bits in right.items()}
    rows, _ = compare(place([make(*key, correct=bits) for key, bits in text.items()]))
    first = np.array([right["fast-at", s] for s in (1, 2, 3)]).astype(int)
    pairs = {m: np.array([right[m, s] for s in sorted(SEEDS[m])]) - first[: len(SEEDS[m])] for m in SEEDS}
    together = detectable([pairs["bs"], pairs["trades"]])
    assert [row["detectable"] for row in rows] == pytest.approx([None, *together, *detectable([pairs["at"]])])


def test_differences_are_to_the_first_row_of_the_same_attack(make: Make, place: Make) -> None:
    attacks = ("pgd-20", "autoattack")
    rows, notices = compare(place([make(m, 1, a) for m in ("fast-at", "bs") for a in attacks]))
    assert [(row["name"], row["attack"]) for row in rows] == [(m, a) for m in ("fast-at", "bs") for a in attacks]
    assert [row["difference"] for row in rows] == [None, None, pytest.approx(0.2), pytest.approx(0.2)]
    assert notices == []


def test_natural_accuracy_joins_every_attack_and_stands_alone_without_one(make: Make, place: Make) -> None:
    records = [make("bs", 1, "natural"), make("fast-at", 1, "natural"), make("bs", 1), make("bs", 1, "apgd-ce")]
    rows, notices = compare(place(records))
    assert [(r["name"], r["attack"], r["natural"], r["robust"]) for r in rows] == [
        ("fast-at", None, 1.0, None),
        ("bs", "pgd-20", 0.9, 0.7),
        ("bs", "apgd-ce", 0.9, 0.7),
    ]
    assert rows[0]["seeds"] == 1 and rows[0]["natural_low"] == wilson(10, 10)[0] and notices == []


def test_natural_accuracy_does_not_depend_on_eps(make: Make, place: Make) -> None:
    records = [
        make("bs", 1, "natural", eps=0.2, train_eps=0.2),
        make("bs", 1, eps=0.3, train_eps=0.2, flags={"eps": 0.2, "step": 0.2}),
    ]
    (row,), notices = compare(place(records))
    assert (row["natural"], row["robust"], row["eps"], row["note"]) == (0.9, 0.7, 0.3, "trained at eps 0.2")
    assert notices == []


def test_names_have_the_flags_that_differ(make: Make, place: Make) -> None:
    records = [
        make("bs", 1, flags={"gamma": 1, "lr": 0.1, "device": "cpu", "out": "a"}),
        make("bs", 2, flags={"gamma": 1.0, "lr": 0.1, "device": "cuda", "log_divergence": True}),
        make("bs", 3, flags={"gamma": 2.0, "lr": 0.1, "step": 8 / 255}),
        make("fast-at", 1, flags={"gamma": None}),
    ]
    rows, _ = compare(place(records))
    assert [row["name"] for row in rows] == ["bs gamma=1 step=0.2", "bs gamma=2 step=8/255", "fast-at"]
    assert rows[0]["seeds"] == 2


def test_seeds_with_their_own_initial_weights_are_in_one_row(make: Make, place: Make) -> None:
    def begun(init: str, seed: int):  # type: ignore[no-untyped-def]
        return make("bs", seed, flags={"init": init})

    own = [begun(f"runs/natural-{seed}.safetensors", seed) for seed in (1, 2, 3)]
    rows, _ = compare(place(own))
    assert [row["seeds"] for row in rows] == [3]
    one = [begun("runs/natural-12.safetensors", seed) for seed in (1, 2, 3)]
    others = [begun("runs/other.last.safetensors", 1), begun("runs/2-other.safetensors", 2)]
    rows, _ = compare(place([*one, *others, make("bs", 1)]))
    assert [row["seeds"] for row in rows] == [3, 1, 1, 1], "12 is no seed 2, and what begins the name is none"


def test_numbers_carried_from_other_radii_are_rows_of_their_own(make: Make, place: Make) -> None:
    carried = make("bs", 2, eps=0.2, carried=3, carried_from=[0.1])
    assumed = make("bs", 3, eps=0.2, carried=3, carried_from=[0.3])
    rows, _ = compare(place([make("bs", 1, eps=0.2), carried, assumed]))
    assert [row["seeds"] for row in rows] == [1, 1, 1]
    assert "images that fell at smaller radii of the same run count as fallen" in str(rows[1]["note"])
    assert "images that stood at larger radii of the same run are assumed to stand" in str(rows[2]["note"])
    assert "stood" not in str(rows[0]["note"]) and "fell" not in str(rows[0]["note"])


@pytest.mark.parametrize("name", ["init", "extra"])
def test_input_files_of_a_training_are_identified_by_content(name: str, make: Make, place: Make) -> None:
    def given(path: str, sha256: str, seed: int):  # type: ignore[no-untyped-def]
        return make("bs", seed, flags={name: path}, **{f"{name}_sha256": sha256})

    rows, _ = compare(place([given("a/start.safetensors", "x1", 1), given("./start.safetensors", "x1", 2)]))
    assert [row["seeds"] for row in rows] == [2]
    rows, _ = compare(place([given("start.safetensors", "x1", 1), given("start.safetensors", "x2", 2)]))
    assert [row["seeds"] for row in rows] == [1, 1]
    epochs = [given(f"x.epoch-{seed}.safetensors", f"x{seed}", seed) for seed in (1, 2)]
    rows, _ = compare(place(epochs))
    assert [row["seeds"] for row in rows] == [1, 1], "an epoch is no seed"


def test_a_step_that_follows_eps_is_not_in_the_name(make: Make, place: Make) -> None:
    records = [make("bs", 1, eps=8 / 255), make("bs", 1, eps=16 / 255, checkpoint_sha256="other")]
    rows, _ = compare(place(records))
    assert [row["name"] for row in rows] == ["bs", "bs"] and [row["eps"] for row in rows] == [8 / 255, 16 / 255]


def test_the_radius_of_training_is_in_the_name_where_no_column_shows_it(make: Make, place: Make) -> None:
    records = [make("bs", 1), make("bs", 1, train_eps=0.1, checkpoint_sha256="other")]
    rows, _ = compare(place(records))
    assert [row["name"] for row in rows] == ["bs eps=0.2", "bs eps=0.1"]
    assert rows[1]["note"] == "trained at eps 0.1"


@pytest.mark.parametrize(
    "paths, expected",
    [
        (["a/model.pt", "b/model.pt"], ["a/model", "b/model"]),
        (["a/x/model.pt", "b/x/model.pt", "c/net.pt"], ["a/x/model", "b/x/model", "net"]),
        (["model.pt", "a/model.pt"], ["model", "a/model"]),
        (["a/model.pt", "a/model.safetensors"], ["model 0000aaaa", "model 1000aaaa"]),
        (["Net", "Net"], ["Net 0000aaaa", "Net 1000aaaa"]),
    ],
)
def test_two_files_of_one_name_are_told_apart(place: Make, make: Make, paths: list[str], expected: list[str]) -> None:
    foreign = {"method": None, "seed": None, "train_eps": None, "flags": None, "train_seconds": None, "model": None}
    records = [
        {**make("bs", 2), **foreign, "checkpoint": path, "checkpoint_sha256": f"{k}000aaaa{k}"}
        for k, path in enumerate(paths)
    ]
    rows, _ = compare(place(records))
    assert [row["name"] for row in rows] == expected
    rows, _ = compare(place([records[0], records[0] | {"checkpoint": "elsewhere/" + paths[0]}]))
    assert len(rows) == 1, "one file at two places"


def test_foreign_checkpoints_have_the_name_of_their_file_and_are_not_seeds_of_one_another(
    make: Make, place: Make
) -> None:
    foreign = {"method": None, "seed": None, "train_eps": None, "flags": None, "train_seconds": None, "model": None}
    records = [make("bs", 1)]
    for name in ("engstrom", "rice"):
        records.append({**make("bs", 2), **foreign, "checkpoint": f"zoo/{name}.pt", "checkpoint_sha256": name})
    rows, _ = compare(place(records))
    assert [row["name"] for row in rows] == ["bs", "engstrom", "rice"]
    assert rows[1]["difference"] == pytest.approx(-0.1) and rows[1]["p"] == 1.0  # paired, whatever the seeds
    assert rows[1]["train_seconds"] is None and rows[1]["model"] is None


@pytest.mark.parametrize(
    ("change", "note", "notice"),
    [
        (
            {"eps": 8 / 255},
            "eps 8/255, not 0.031",
            "rows of different eps (0.031, 8/255) are not compared with one another",
        ),
        ({"split": "val"}, "split val, not test", "rows of different split (test, val) are not"),
        (
            {"data_sha256": "ff00"},
            "data digits ff00, not digits abcdef012345",
            "rows of different data (digits abcdef01",
        ),
        ({"dataset": "cifar10"}, "data cifar10 abcdef01234", "rows of different data"),
        ({"correct": "11111"}, "n 5, not 10", "rows of different n (10, 5)"),
        ({"attack_parameters": {"step": 0.1}}, "attack step 0.1, not 0.05", "rows of pgd-20 with different parameters"),
        (
            {"attack_parameters": {"step": 0.05, "restarts": 1, "search": "bf16"}},
            "attack search bf16, not none; searched in bf16, judged in fp32",
            "parameters",
        ),
        (
            {"attack_parameters": {"step": 0.05, "restarts": 1, "a": {"search": "bf16"}, "b": {"search": "bf16"}}},
            "attack search bf16, not none; searched in bf16, judged in fp32",
            "parameters",
        ),
        (
            {"attack_parameters": {"restarts": 5, "new": True}},
            "attack restarts 5, not 1; attack new true, not none",
            "parameters",
        ),
    ],
)
def test_rows_that_are_not_comparable_have_no_difference_but_a_note(
    make: Make, place: Make, change: dict[str, Any], note: str, notice: str
) -> None:
    first = make("fast-at", 1, eps=0.031)
    other = make("bs", 1, **{"eps": 0.031, **change})
    rows, notices = compare(place([first, other]))
    assert note in str(rows[1]["note"]) and rows[0]["note"] is None
    assert rows[1]["difference"] is rows[1]["p"] is rows[1]["difference_low"] is rows[1]["difference_high"] is None
    assert len(notices) == 1 and notice in notices[0] and "\n" not in notices[0]


def test_another_attack_seed_is_the_same_attack(make: Make, place: Make) -> None:
    rows, notices = compare(place([make("bs", s, attack_parameters={"seed": s}) for s in (1, 2, 3)]))
    assert len(rows) == 1 and rows[0]["seeds"] == 3 and notices == []


def test_the_last_of_repeated_records_counts(make: Make, place: Make) -> None:
    rows, notices = compare(place([make("bs", 1), make("bs", 2), make("bs", 1)]))
    assert rows[0]["seeds"] == 2 and notices == []  # the same twice needs no word
    rows, notices = compare(place([make("bs", 1), make("bs", 2), make("bs", 1, correct="1110000000")]))
    assert rows[0]["seeds"] == 2 and rows[0]["robust"] == pytest.approx((0.3 + 0.6) / 2)
    assert len(notices) == 1 and "1 record(s)" in notices[0] and "results.jsonl:1" in notices[0]


def test_seeds_that_only_one_row_has_are_left_out_of_the_difference(make: Make, place: Make) -> None:
    records = [make("fast-at", s) for s in (1, 2, 3)] + [make("bs", s) for s in (2, 3)]
    rows, _ = compare(place(records))
    assert rows[1]["robust"] == pytest.approx(0.65) and rows[1]["difference"] == pytest.approx(
        (0.6 - 0.6 + 0.7 - 0.4) / 2
    )
    assert rows[1]["note"] == "difference over 2 common seeds"
    rows, _ = compare(place([make("fast-at", 1), make("fast-at", 2), make("bs", 3)]))
    assert rows[1]["difference"] == pytest.approx(0.7 - 0.55) and rows[1]["p"] is None
    assert rows[1]["note"] == "no seed in common with the first row, so no paired test"


def test_without_outcomes_there_is_no_paired_test(make: Make, place: Make) -> None:
    rows, _ = compare(place([make("fast-at", 1), {**make("bs", 1), "correct": None}]))
    assert rows[1]["difference"] == pytest.approx(0.2) and rows[1]["p"] is None
    assert (rows[1]["robust_low"], rows[1]["robust_high"]) == pytest.approx(wilson(7, 10))
    assert rows[1]["note"] == "no `correct` bits, so no paired test"
    rows, _ = compare(place([{**make("bs", s), "correct": None} for s in (1, 2, 3)]))
    assert rows[0]["robust_low"] < 2 / 3 < rows[0]["robust_high"]


def test_fewer_natural_than_robust_seeds_are_noted(make: Make, place: Make) -> None:
    rows, _ = compare(place([make("bs", 1), make("bs", 2), make("bs", 1, "natural")]))
    assert rows[0]["note"] == "natural over 1 seed"


def of_kind(record: Any, selected: str) -> Any:
    sha256 = f"{record['checkpoint_sha256']} {selected}"
    return {**record, "selected": selected, "epoch": 15, "checkpoint_sha256": sha256}


def test_each_kind_of_checkpoint_is_compared_with_the_first_of_its_own(make: Make, place: Make) -> None:
    kinds = ("best", "last", "best ema 0.999", "last ema 0.999")
    records = [of_kind(make(method, 1), kind) for method in ("fast-at", "bs") for kind in kinds]
    rows, notices = compare(place([*records, of_kind(make("bs", 1, correct="1110000000"), "best ema 0.9")]))
    assert [row["selected"] for row in rows] == [*kinds, *kinds, "best ema 0.9"]
    assert [row["difference"] for row in rows] == pytest.approx([None] * 4 + [0.2] * 4 + [-0.2])
    assert all(row["p"] is not None and row["note"] is None for row in rows[4:]) and notices == []
    assert "; difference from the first row of the same kind of checkpoint, p from" in render(rows, "markdown")
    slower, _ = compare(place([of_kind(make("bs", 1), f"best ema 0.{nines}") for nines in ("99", "999")]))
    assert slower[1]["difference"] == 0 and "; difference from the first row, p from" in render(slower, "markdown")


def test_networks_without_a_kind_of_checkpoint_are_compared_with_the_very_first(make: Make, place: Make) -> None:
    last, foreign = of_kind(make("bs", 1), "last"), {**make("bs", 2), "method": "foreign", "selected": None}
    rows, _ = compare(place([make("fast-at", 1), foreign, last]))
    assert [row["difference"] for row in rows] == [None, pytest.approx(0.1), None]
    rows, _ = compare(place([foreign, make("fast-at", 1), last]))
    assert [row["difference"] for row in rows] == [None, pytest.approx(-0.1), pytest.approx(0.1)]
    assert "; difference from the first row, p from" in render(rows, "markdown")


def test_epochs_chosen_on_test_images_are_never_mixed_with_others(make: Make, place: Make) -> None:
    chosen = [
        {**make(m, s, flags={"select": "test"}), "selected": "best-on-test", "checkpoint_sha256": f"{m}-{s}-test"}
        for m in ("fast-at", "bs")
        for s in (1, 2)
    ]
    rows, notices = compare(place([make("bs", 1), make("bs", 2, flags={"select": "val"}), *chosen]))
    assert [(row["name"], row["selected"], row["seeds"]) for row in rows] == [
        ("bs", "best", 2),
        ("fast-at", "best-on-test", 2),
        ("bs", "best-on-test", 2),
    ]
    assert [row["difference"] for row in rows] == [None, None, pytest.approx(0.1)]
    assert notices == ["rows of different epoch (best, best-on-test) are not compared with one another"]
    for format in ("table", "markdown", "latex", "tsv", "jsonl"):
        assert render(rows, format).count("best-on-test") >= 2
    among, notices = compare(place(chosen))
    assert among[1]["difference"] == pytest.approx(0.1) and notices == []
    assert "cnn, best-on-test epoch, eps 0.2" in render(among, "table")


# --- logs


def test_logs_alone_give_validation_rows(make_log: Make, place: Make) -> None:
    items = place(make_log("bs", 1, val=(0.9, 0.6)), "a.jsonl") + place(make_log("bs", 2, val=(0.8, 0.5)), "b.jsonl")
    (row,), notices = compare(items)
    assert (row["natural"], row["robust"], row["seeds"]) == (pytest.approx(0.85), pytest.approx(0.55), 2)
    assert (row["split"], row["attack"], row["selected"], row["n"]) == ("val", "pgd-20 (val)", "best", None)
    assert row["train_seconds"] == 7.0 and row["train_forward_passes"] == 2000
    assert row["robust_sd"] == pytest.approx(0.1 / math.sqrt(2)) and row["robust_low"] is None  # of unknown n
    assert notices == ["checkpoints were selected by pgd-20 (val), so it is biased upwards; run bsk evaluate"]


def test_validation_rows_with_a_known_n_have_wilsons_interval(make_log: Make, place: Make) -> None:
    start, *rest = make_log("bs", 1)
    (row,), _ = compare(place([{**start, "val_n": 100}, *rest]))
    assert (row["robust_low"], row["robust_high"], row["n"]) == (*wilson(60, 100), 100)


def test_an_interrupted_training_is_reported_and_left_out(make_log: Make, place: Make) -> None:
    rows, notices = compare(place(make_log("bs", 1)) + place(make_log("bs", 2, epochs=7, end=False), "b.jsonl"))
    assert [(row["seeds"], row["robust"], row["note"]) for row in rows] == [
        (1, 0.6, "these images selected the epoch, so accuracies on them are too high"),
        (1, None, "interrupted at epoch 7 of 15"),
    ]
    assert (
        "runs/bs-2.safetensors: interrupted at epoch 7 of 15; left out of the means; "
        "run its bsk train command again to resume" in notices
    )


def test_an_evaluated_checkpoint_of_an_interrupted_training_has_its_own_row(
    make: Make, make_log: Make, place: Make
) -> None:
    items = place([make("bs", 1), make("bs", 2)]) + place(make_log("bs", 2, epochs=7, end=False), "b.jsonl")
    rows, notices = compare(items)
    assert [(row["seeds"], row["note"]) for row in rows][0] == (1, None)
    assert rows[1]["note"] is not None and "interrupted at epoch 7 of 15" in rows[1]["note"]
    assert any(notice.startswith("runs/bs-2.safetensors: interrupted") for notice in notices)


@pytest.mark.parametrize("which", ["last", "ema", "ema-last"])
def test_other_checkpoints_of_an_interrupted_training_are_interrupted_too(
    make: Make, make_log: Make, place: Make, which: str
) -> None:
    beside = {"selected": which, "checkpoint_sha256": None, "epoch": 15}
    records = [{**make("bs", s), "checkpoint": f"runs/bs-{s}.{which}.safetensors", **beside} for s in (1, 2)]
    rows, _ = compare(place(records) + place(make_log("bs", 2, epochs=7, end=False), "b.jsonl"))
    assert [(row["seeds"], row["note"]) for row in rows] == [(1, None), (1, "interrupted at epoch 7 of 15")]


def test_a_resumed_log_is_one_training(make_log: Make, place: Make) -> None:
    first, again = make_log("bs", 1, epochs=7, end=False), make_log("bs", 1)
    (row,), notices = compare(place([*first, again[0], *again[8:]]))
    assert row["robust"] == 0.6 and row["seeds"] == 1 and len(notices) == 1
    (row,), notices = compare(place([*first, again[0]]))
    assert row["note"] == "interrupted at epoch 7 of 15"


def test_the_record_that_train_prints_is_a_training_of_its_own(make_log: Make, place: Make) -> None:
    start, *_, end = make_log("bs", 1)
    (row,), _ = compare(place([{**start, **end}]))
    assert row["robust"] == 0.6 and row["train_seconds"] == 7.0


def test_logs_supply_the_cost_that_evaluations_lack(make: Make, make_log: Make, place: Make) -> None:
    bare = {**make("bs", 1), "train_seconds": None, "train_forward_passes": None, "train_backward_passes": None}
    (row,), notices = compare(place([bare]) + place(make_log("bs", 1), "bs-1.jsonl"))
    assert (row["train_seconds"], row["train_forward_passes"], row["train_backward_passes"]) == (7.0, 2000, 700)
    assert notices == []
    (row,), _ = compare(place([make("bs", 1)]) + place(make_log("bs", 1), "bs-1.jsonl"))
    assert row["train_seconds"] == 6.25  # its own stands


def test_trainings_without_evaluation_and_other_records_are_counted(make: Make, make_log: Make, place: Make) -> None:
    others = [{"kind": "attack"}, {"kind": "data"}, {"no": "kind"}]
    _, notices = compare(place([make("bs", 1), *others]) + place(make_log("bs", 3), "bs-3.jsonl"))
    assert notices == [
        "1 finished training(s) have no evaluation; run bsk evaluate runs/bs-3.safetensors",
        "3 record(s) of other kinds ignored",
    ]


# --- invariants


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31))
def test_the_order_of_records_changes_no_accuracy(results: Make, make: Make, place: Make, seed: int) -> None:
    records = [*results, *(make("bs", s, flags={"gamma": 2.0}, checkpoint_sha256=f"x{s}") for s in (1, 2))]
    shuffled = random.Random(seed).sample(records, len(records))
    relative = {"p", "p_holm", "detectable", "note", "baseline", "train_time_ratio", "train_passes_ratio"}
    relative |= {column for column in COLUMNS if "difference" in column}

    def numbers(rows: Any) -> dict[Any, list[Any]]:
        return {row["name"]: [row[column] for column in COLUMNS if column not in relative] for row in rows}

    before, after = numbers(compare(place(records))[0]), numbers(compare(place(shuffled))[0])
    assert before.keys() == after.keys()
    for name, cells in before.items():
        for mine, other in zip(cells, after[name], strict=True):
            assert other == (pytest.approx(mine, abs=1e-12) if isinstance(mine, float) else mine)


def test_differences_of_two_rows_are_each_others_negative(results: Make, place: Make) -> None:
    (_, forward), _ = compare(place(results))
    (_, backward), _ = compare(place(results[6:] + results[:6]))
    assert forward["difference"] == pytest.approx(-backward["difference"]) and forward["p"] == backward["p"]
    assert forward["difference_low"] == pytest.approx(-backward["difference_high"])


ROW = {"start": "backward", "inner": "kl_to_clean", "outer": "trades", "noise": 2.0, "bound": 1.0, "replays": 1}
OLD_BS = {**ROW, "ramp": False, "rescue": None, "rescue_every": 20, "rescue_drop": 0.1, "gamma": 1.0, "beta": 10.0}


def test_trainings_from_before_methods_were_functions_are_seeds_of_the_same_row(make, place) -> None:
    new = {"start": "backward", "gamma": 1.0, "beta": 10.0, "steps": 1}
    records = [make("bs", 1, flags={**OLD_BS, "steps": 1}), make("bs", 2, flags=new)]
    rows, _ = compare(place(records))
    assert [(row["name"], row["seeds"]) for row in rows] == [("bs", 2)]
    other = make("bs", 3, flags={**OLD_BS, "steps": 1, "outer": "adversarial"})
    assert [row["seeds"] for row in compare(place([*records, other]))[0]] == [2, 1], "what was not the default counts"
