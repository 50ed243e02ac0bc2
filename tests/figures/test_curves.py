from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsk.comparison.evidence import collect
from bsk.errors import InputError, UsageError
from bsk.figures.curves import ACCURACIES, MOST_FIELDS, STYLES, _line, draw_curves
from bsk.figures.placement import spread
from bsk.figures.series import series

Make = Any


def logs(make_log: Make, place: Make, methods: tuple[str, ...] = ("fast-at", "bs"), **more: Any) -> list[Any]:
    """Three epochs of two seeds of each method; seed 2 has twice the divergences of seed 1."""
    items = []
    for number, method in enumerate(methods, 1):
        for seed in (1, 2):
            records = make_log(method, seed, epochs=3)
            records[0]["val_n"] = 200
            for record in records[1:-1]:
                epoch = record["epoch"]
                record.update(kl_start=0.01 * seed * epoch, kl_ascent=0.1 * seed * number, kl_n=128, val_natural=0.9)
                record.update(more)
            items += place(records, f"{method}-{seed}.jsonl")
    return items


def said(path: Path) -> list[str]:
    """The texts of an SVG."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [line[4:-3].strip() for line in lines if line.startswith("<!--")]


def test_a_line_is_the_mean_of_seeds_and_its_band_their_ends(make_log: Make, place: Make) -> None:
    (group,) = series(collect(logs(make_log, place, ("bs",))).trainings, "method")
    line = _line(group, 0, "kl_start", "method")
    assert line.epochs == [1, 2, 3] and line.mean == pytest.approx([0.015, 0.03, 0.045])
    assert line.low == pytest.approx([0.01, 0.02, 0.03]) and line.high == pytest.approx([0.02, 0.04, 0.06])
    assert _line(group, 0, "val_natural", "method").mean == pytest.approx([90] * 3), "percent for people"


def test_passes_are_forward_plus_backward(make_log: Make, place: Make, tmp_path: Path) -> None:
    items = logs(make_log, place, ("bs",), forward_passes=400, backward_passes=300, seconds=2.0)
    (group,) = series(collect(items).trainings, "method")
    assert _line(group, 0, "passes", "method").mean == [700, 700, 700]
    draw_curves(items, "method", ["loss", "passes", "seconds"], [tmp_path / "a.svg"])
    assert {"loss", "passes", "seconds"} <= set(said(tmp_path / "a.svg")), "an axis each"
    with pytest.raises(InputError, match="an epoch without forward_passes"):
        draw_curves(logs(make_log, place), "method", ["passes"], [tmp_path / "b.svg"])


def test_fields_of_the_monitor_may_be_missing_in_some_epochs(make_log: Make, place: Make, tmp_path: Path) -> None:
    start, *epochs = make_log("bs", 1, epochs=4)
    looked = [
        {**each, "monitor_fgsm": 0.5, "monitor_cosine": 0.25} if each.get("epoch") in (2, 4) else each
        for each in epochs
    ]
    items = place([start, *looked], "bs.jsonl")
    (group,) = series(collect(items).trainings, "method")
    line = _line(group, 0, "monitor_fgsm", "method")
    assert line.epochs == [2, 4] and line.mean == [50, 50]
    draw_curves(items, "method", ["monitor_fgsm", "monitor_cosine"], [tmp_path / "a.svg"])
    assert {"monitor_cosine", "accuracy FGSM, %"} <= set(said(tmp_path / "a.svg"))
    with pytest.raises(InputError, match="an epoch without monitor_pgd"):
        draw_curves(items, "method", ["monitor_pgd"], [tmp_path / "b.svg"])


def test_every_line_is_named_and_the_facts_stand_above(make_log: Make, place: Make, tmp_path: Path) -> None:
    items = logs(make_log, place)
    assert draw_curves(items, "method", ["kl_start", "kl_ascent"], [tmp_path / "a.svg", tmp_path / "a.png"]) == []
    texts = said(tmp_path / "a.svg")
    for method in ("fast-at", "bs"):
        assert f"{method}, after the start" in texts and f"{method}, after the ascent" in texts
    headline = "digits, cnn, eps 0.2, 2 seeds, KL on 128 val images; mean over seeds, band from minimum to maximum"
    assert headline in " ".join(texts) and "epoch" in texts
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_logs_give_the_same_bytes(make_log: Make, place: Make, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw_curves(logs(make_log, place), "method", ["kl_start"], [tmp_path / name], log=True)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes() and ET.parse(tmp_path / "a.svg")


def test_fields_of_other_units_have_their_own_panel(make_log: Make, place: Make, tmp_path: Path) -> None:
    draw_curves(logs(make_log, place), "method", ["loss", "val_natural", "val_robust"], [tmp_path / "a.svg"])
    texts = said(tmp_path / "a.svg")
    assert texts.count("fast-at") == 1 and "fast-at, natural on val" in texts and "fast-at, PGD-20 on val" in texts
    assert "loss" in texts and "accuracy, %" in texts and "200 val images" in " ".join(texts)


def test_an_epoch_without_the_field_names_the_next_step(make_log: Make, place: Make, tmp_path: Path) -> None:
    plain = place(make_log("bs", 1, epochs=2), "bs.jsonl")
    with pytest.raises(InputError, match=r"^bs.jsonl:2: an epoch without kl_start; train with --log-divergence$"):
        draw_curves(plain, "method", ["kl_start"], [tmp_path / "a.png"])
    with pytest.raises(InputError, match=r"^bs.jsonl:2: an epoch without los; did you mean loss\?$"):
        draw_curves(plain, "method", ["los"], [tmp_path / "a.png"])
    with pytest.raises(InputError, match="bs.jsonl:2: loss: expected a number"):
        draw_curves(
            place([*make_log("bs", 1, epochs=0)[:1], {"kind": "epoch", "epoch": 1, "loss": "low"}], "bs.jsonl"),
            "method",
            ["loss"],
            [tmp_path / "a.png"],
        )
    assert not list(tmp_path.iterdir())


def test_logs_that_differ_in_more_than_the_seed_are_refused(make_log: Make, place: Make, tmp_path: Path) -> None:
    items = logs(make_log, place, ("bs",))
    items[5].record["flags"]["gamma"] = 2.0
    with pytest.raises(
        InputError, match=r"bs-2.jsonl:1: has the same method \(bs\) as bs-1.jsonl:1, but another gamma"
    ):
        draw_curves(items, "method", ["loss"], [tmp_path / "a.png"])
    items[0].record["flags"]["gamma"] = 1.0
    draw_curves(items, "gamma", ["loss"], [tmp_path / "a.svg"])
    assert "gamma 1" in said(tmp_path / "a.svg") and "gamma 2" in said(tmp_path / "a.svg")


def test_an_interrupted_training_is_drawn_with_a_notice(make_log: Make, place: Make, tmp_path: Path) -> None:
    cut = place(make_log("bs", 2, epochs=2, end=False), "cut.jsonl")
    items = [*place(make_log("bs", 1, epochs=4), "whole.jsonl"), *cut]
    notices = draw_curves(items, "method", ["loss"], [tmp_path / "a.png"])
    assert notices == ["runs/bs-2.safetensors: interrupted at epoch 2 of 15; drawn up to there"]
    (group,) = series(collect(items).trainings, "method")
    assert _line(group, 0, "loss", "method").epochs == [1, 2], "only epochs that all seeds have"


def test_a_resumed_log_is_one_log(make_log: Make, place: Make) -> None:
    first, again = make_log("bs", 1, epochs=2, end=False), make_log("bs", 1, epochs=3)
    again[2]["loss"] = 7.0  # epoch 2 again
    (training,) = collect(place([*first, again[0], *again[2:]])).trainings
    assert sorted(training.log) == [1, 2, 3] and training.log[2].record["loss"] == 7.0


def test_a_log_that_is_given_twice_is_one_seed(make_log: Make, place: Make, tmp_path: Path) -> None:
    log = make_log("bs", 1, epochs=3)
    begun = log[:3]  # a copy of its first epochs
    items = [*place(begun, "begun.jsonl"), *place(log, "a.jsonl"), *place(log, "copy.jsonl")]
    assert draw_curves(items, "method", ["loss"], [tmp_path / "a.svg"]) == []
    assert any("1 seed" in text for text in said(tmp_path / "a.svg"))
    other = make_log("bs", 1, epochs=3)
    other[2]["loss"] = 7.0
    draw_curves([*place(log, "a.jsonl"), *place(other, "b.jsonl")], "method", ["loss"], [tmp_path / "b.svg"])
    assert any("2 seeds" in text for text in said(tmp_path / "b.svg")), "nothing is left out silently"


def test_zero_is_not_on_a_logarithmic_scale(make_log: Make, place: Make, tmp_path: Path) -> None:
    items = logs(make_log, place, ("natural",), kl_start=0.0) + logs(make_log, place, ("bs",))
    notices = draw_curves(items, "method", ["kl_start"], [tmp_path / "a.svg"], log=True)
    assert notices == ["natural: kl_start is always 0, so a logarithmic scale cannot show it"]
    assert "natural" not in said(tmp_path / "a.svg")
    with pytest.raises(UsageError, match="leave out --log"):
        draw_curves(
            logs(make_log, place, ("bs",), kl_start=0.0), "method", ["kl_start"], [tmp_path / "b.svg"], log=True
        )


def test_other_errors_are_one_line(make: Make, place: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no epochs among the records; give logs of bsk train"):
        draw_curves(place([make("bs", 1)]), "method", ["loss"], [tmp_path / "a.png"])
    with pytest.raises(UsageError, match="expected at most 6 different fields"):
        draw_curves([], "method", ["loss", "loss"], [tmp_path / "a.png"])


def test_labels_in_a_cluster_are_centred_on_their_mean() -> None:
    assert spread([10.0, 11.0, 50.0], 4.0) == [8.5, 12.5, 50.0]
    assert spread([11.0, 10.0], 4.0) == [12.5, 8.5]


@given(st.lists(st.floats(0, 100), max_size=9), st.floats(0.1, 30))
def test_labels_keep_their_order_and_distance(heights: list[float], gap: float) -> None:
    found = spread(heights, gap)
    assert sum(found) == pytest.approx(sum(heights), abs=1e-6)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    for low, high in zip(order, order[1:], strict=False):
        assert found[high] - found[low] >= gap - 1e-6


def test_every_field_of_a_panel_has_a_line_of_its_own(place: Make, make_log: Make, tmp_path: Path) -> None:
    assert len(set(STYLES)) == len(STYLES) >= MOST_FIELDS
    values = {field: place / 10 for place, field in enumerate(ACCURACIES)}
    draw_curves(logs(make_log, place, ("bs",), **values), "method", list(ACCURACIES), [tmp_path / "six.svg"])
    drawn = (tmp_path / "six.svg").read_text()
    assert all(f"bs, {words}" in drawn for words in ACCURACIES.values())
