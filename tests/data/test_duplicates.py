"""Duplicate images: counted, reported, and on request left out of training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from numpy.typing import NDArray

import bsk as package
from bsk.data import order
from bsk.data.duplicates import Copies, examined
from bsk.data.sources import prepare, read
from bsk.data.splits import Contents, Request
from bsk.data.store import Part, open_data
from bsk.errors import InputError
from bsk.records.fields import convert
from bsk.records.schema import DataRecord

Examples = list[tuple[int, int]]  # what an image is, and its label


def part(examples: Examples) -> Part:
    images = np.zeros((len(examples), 1, 2, 2), np.uint8)
    images[:, 0, 1, 0] = [image for image, _ in examples]
    return Part(images, np.array([label for _, label in examples], np.int64))


def contents(train: Examples, test: Examples, val: Examples | None = None) -> Contents:
    own = None if val is None else part(val)
    return Contents(["a", "b", "c"], part(train), part(test), {}, official=False, val=own)


def naive(train: Examples, others: Examples) -> tuple[Copies, Copies]:
    """Count pair by pair what the second repeats of itself, and of the first."""
    before = [[label for same, label in others[:i] if same == image] for i, (image, _) in enumerate(others)]
    within = [(found[0], label) for found, (_, label) in zip(before, others, strict=True) if found]
    in_train = [([each for same, each in train if same == image], label) for image, label in others]
    across = [(found, label) for found, label in in_train if found]
    return (
        Copies(len(within), sum(first != label for first, label in within)),
        Copies(len(across), sum(label not in found for found, label in across)),
    )


EXAMPLES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=12)


@given(EXAMPLES, EXAMPLES, st.none() | EXAMPLES)
def test_counts_are_those_of_all_pairs(train: Examples, test: Examples, val: Examples | None) -> None:
    whole = contents(train, test, val)
    _, found = examined(whole, False, "x")
    expected = {"train": naive([], train)[0], "test": naive(train, test)[0], "train test": naive(train, test)[1]}
    if val is not None:
        expected |= {"val": naive(train, val)[0], "train val": naive(train, val)[1], "val test": naive(val, test)[1]}
    assert found.counts == {name: copies for name, copies in expected.items() if copies.images}
    assert found.dropped is None
    leaks = {image for image, _ in [*test, *(val or [])]}
    kept = [row for row, (image, _) in enumerate(train) if image not in leaks]
    if train and not kept:
        with pytest.raises(InputError, match="x: all training images are also test images; leave --drop-leaks out"):
            examined(whole, True, "x")
    else:
        clean, without = examined(whole, True, "x")
        seen = {image for image, _ in test}
        own = [row for row, (image, _) in enumerate(val or []) if image not in seen]
        assert without.counts == found.counts
        assert without.dropped == len(train) - len(kept) + len(val or []) - len(own)
        assert clean.val is None or sorted(clean.val.ordered()) == own
        assert sorted(clean.train.ordered()) == kept and len(clean.test.labels) == len(test)


def arrays(train: Examples, test: Examples) -> dict[str, Any]:
    x, y = part(train), part(test)
    return {"train": (x.images, x.labels), "test": (y.images, y.labels)}


TRAIN = [(i, i % 2) for i in range(100)] + [(3, 1), (4, 1), (4, 0)]  # 4 is of class 0
TEST = [(200 + i, i % 2) for i in range(20)] + [(200, 0), (7, 1), (8, 1), (9, 0)]  # of train 7 is 1, 8 is 0, 9 is 1


def test_they_are_in_the_record_and_in_one_line(call, tmp_path: Path) -> None:
    made = arrays(TRAIN, TEST)
    keys = {f"{axis}_{split}": made[split][i] for split in made for i, axis in enumerate("xy")}
    np.savez(tmp_path / "a.npz", **keys)
    said = call("prepare-data", "folder", "--from", "a.npz", "--out", "a.safetensors", "--val", 6)
    record = json.loads(said.stdout)
    assert record["duplicates"] == {
        "train": {"images": 3, "relabelled": 1},
        "test": {"images": 1, "relabelled": 0},
        "train test": {"images": 3, "relabelled": 2},
    }
    assert "dropped" not in record and record["train"] == 97
    within = "repeated within train: 3 images (1 with a different label); repeated within test: 1 image"
    line = f"bsk: a.npz: {within}; of test also in train: 3 images (2 with a different label)"
    assert f"{line}; --drop-leaks removes these from train and val\n" in said.stderr
    assert convert({key: value for key, value in record.items() if key != "kind"}, DataRecord).duplicates is not UNSET
    said = call("prepare-data", "folder", "--from", "a.npz", "--out", "b.safetensors", "--val", 6, "--drop-leaks")
    record = json.loads(said.stdout)
    assert (record["train"], record["val"], record["test"], record["dropped"]) == (94, 6, 24, 3)
    assert f"{line}; 3 removed from train and val\n" in said.stderr
    data = open_data(tmp_path / "b.safetensors")
    rows = np.concatenate([data.split(name).index for name in ("train", "val")])
    assert sorted(rows) == [row for row in range(103) if row not in (7, 8, 9)]  # the places in the source stay


def test_data_without_copies_give_no_notice(call, tmp_path: Path) -> None:
    said = call("prepare-data", "digits", "--drop-leaks")
    record = json.loads(said.stdout)
    assert (record["duplicates"], record["dropped"]) == ({}, 0)
    assert record["sha256"] == json.loads(call("prepare-data", "digits").stdout)["sha256"]
    assert "repeated" not in said.stderr and "also in train" not in said.stderr


def test_python_drops_them_too(tmp_path: Path) -> None:
    whole, clean = (package.prepare(arrays(TRAIN, TEST), val=6, drop_leaks=drop) for drop in (False, True))
    assert (whole.counts["train"], clean.counts["train"]) == (97, 94)
    np.savez(tmp_path / "a.npz", x=part(TRAIN).images, y=part(TRAIN).labels, x_test=part(TEST).images, y_test=TEST_Y)
    found = package.prepare("folder", source=str(tmp_path / "a.npz"), val=6, drop_leaks=True)
    for split in ("train", "val", "test"):
        assert found.split(split).index.tolist() == clean.split(split).index.tolist()


TEST_Y: NDArray[np.int64] = part(TEST).labels


@pytest.mark.parametrize("name", ["digits", "npz"])
def test_no_image_is_hashed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Neither for test, nor for val, nor for the duplicates."""
    np.savez(tmp_path / "a.npz", x=part(TRAIN).images, y=part(TRAIN).labels)
    seen: list[bytes] = []

    def sha256(data: bytes) -> Any:
        seen.append(data)
        return hashlib.sha256(data)

    monkeypatch.setattr(order, "sha256", sha256)
    source = None if name == "digits" else str(tmp_path / "a.npz")
    read(Request("digits" if name == "digits" else "folder", source, tmp_path))
    assert len(seen) == (1797 if name == "digits" else len(TRAIN))


def test_older_files_have_no_counts_of_copies(tmp_path: Path) -> None:
    record = prepare("digits", None, tmp_path / "a.safetensors")
    old = {key: value for key, value in record.items() if key not in ("kind", "duplicates")}
    assert convert(old, DataRecord).duplicates is UNSET
