"""A network is evaluated on the data set it was trained on, or a doubt reports that it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

WORDS = ("--model", "cnn-4", "--epochs", "1", "--threads", "1", "--quiet")


def doubts(said: Any) -> list[list[str]]:
    return [json.loads(line)["doubts"] for line in said.stdout.splitlines()]


@pytest.fixture
def two(call, tmp_path: Path) -> tuple[str, str]:
    """Networks trained on all digits, by their name, and on 200 of them, by the path of their file."""
    call("prepare-data", "digits", "--quiet")
    call("prepare-data", "digits", "--train-limit", "200", "--out", "few.safetensors", "--quiet")
    call("train", "--dataset", "digits", *WORDS, "--out", "all.m.safetensors")
    call("train", *WORDS, "--data", "few.safetensors", "--out", "few.m.safetensors")
    return "all.m.safetensors", "few.m.safetensors"


def test_trainings_on_different_data_are_not_seeds_of_one_row(call, two) -> None:
    said = call("evaluate", *two, "--data", "data/digits.safetensors", "--attack", "natural", "--out", "r.jsonl")
    assert [len(each) for each in doubts(said)] == [0, 1]
    rows = [json.loads(line) for line in call("compare", "r.jsonl", "--format", "jsonl").stdout.splitlines()]
    assert [row["seeds"] for row in rows] == [1, 1] and rows[1]["name"].startswith("bs train_data=")
    assert rows[0]["note"] is None  # the images are the same, so they may be compared, but the doubt is told
    assert rows[1]["note"].startswith("doubtful: this digits is not the file that it was trained on")


def test_the_file_that_it_was_trained_on_is_taken(call, two, tmp_path: Path) -> None:
    first, second = (json.loads(call("evaluate", each, "--attack", "natural").stdout) for each in two)
    assert first["doubts"] == second["doubts"] == [] and first["data_sha256"] != second["data_sha256"]
    assert second["train_data_sha256"] == second["data_sha256"]
    (tmp_path / "few.safetensors").unlink()
    moved = call("evaluate", two[1], "--attack", "natural")
    assert json.loads(moved.stdout)["data_sha256"] == first["data_sha256"] and len(doubts(moved)[0]) == 1


@pytest.mark.parametrize("split", ["val", "train", "test"])
def test_data_prepared_anew_with_other_splits_are_a_doubt(call, two, split: str) -> None:
    call("prepare-data", "digits", "--val", "500", "--force", "--quiet")
    ((doubt,),) = doubts(call("evaluate", two[0], "--split", split, "--limit", "60", "--attack", "natural"))
    assert "not the file that it was trained on" in doubt and (split == "test" or f"its {split} images" in doubt)
