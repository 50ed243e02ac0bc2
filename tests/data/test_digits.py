from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from bsk.data.sources import prepare
from bsk.data.store import open_data
from bsk.errors import UsageError


def test_digits_by_default(tmp_path: Path) -> None:
    record = prepare("digits", None, tmp_path / "digits.safetensors")
    assert (record["train"], record["val"], record["test"]) == (1200, 200, 397)
    assert (record["classes"], record["eps"], record["official"]) == (10, 0.2, True)
    data = open_data(tmp_path / "digits.safetensors")
    assert (data.augment, data.model, data.sha256) == ("none", "cnn", record["sha256"])
    digits = load_digits()
    seen: list[int] = []
    for name in ("train", "val", "test"):
        split = data.split(name)
        rows = split.index.numpy()
        seen += rows.tolist()
        assert split.images.shape[1:] == (1, 8, 8)
        assert np.array_equal(split.images.numpy()[:, 0], np.rint(digits.images[rows] * 255 / 16))
        assert np.array_equal(split.labels.numpy(), digits.target[rows])
        if name != "train":
            counts = np.bincount(split.labels)
            assert counts.max() - counts.min() <= 1
    assert sorted(seen) == list(range(1797))


def test_mean_and_std_are_those_of_the_train_pixels(tmp_path: Path) -> None:
    prepare("digits", None, tmp_path / "digits.safetensors")
    data = open_data(tmp_path / "digits.safetensors")
    pixels = data.split("train").images.numpy() / 255
    assert data.mean == [round(pixels.mean(), 4)]
    assert data.std == [round(pixels.std(), 4)]


def test_limits_above_the_size_change_nothing(tmp_path: Path) -> None:
    whole = prepare("digits", None, tmp_path / "whole.safetensors")
    limits = {"train_limit": whole["train"], "test_limit": whole["test"] + 1}
    assert prepare("digits", None, tmp_path / "limited.safetensors", **limits)["sha256"] == whole["sha256"]
    less = prepare("digits", None, tmp_path / "less.safetensors", train_limit=whole["train"] - 1)
    assert less["sha256"] != whole["sha256"]


def test_limits_and_val(tmp_path: Path) -> None:
    record = prepare("digits", None, tmp_path / "a.safetensors", val=50, train_limit=100, test_limit=30)
    assert (record["train"], record["val"], record["test"]) == (100, 50, 30)
    data = open_data(tmp_path / "a.safetensors")
    assert np.bincount(data.split("train").labels).tolist() == [10] * 10
    assert data.limits == {"train": 100, "test": 30}
    more = prepare("digits", None, tmp_path / "b.safetensors", train_limit=10**6)
    assert more["train"] == 1200


def test_bad_requests(tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    with pytest.raises(UsageError, match=r"did you mean cifar10\?"):
        prepare("cifar-10", None, out)
    with pytest.raises(UsageError, match="known: digits, cifar10"):
        prepare("zzz", None, out)
    with pytest.raises(UsageError, match="come with scikit-learn"):
        prepare("digits", "x.tar", out)
    for flag in ("val", "train_limit", "test_limit", "size"):
        with pytest.raises(UsageError, match="expected a whole number above 0"):
            prepare("digits", None, out, **{flag: 0})
    with pytest.raises(UsageError, match="--size"):
        prepare("digits", None, out, size=32)
    assert not out.exists()
