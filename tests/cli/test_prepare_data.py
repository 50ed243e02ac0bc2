"""`bsk prepare-data` as a shell sees it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bsk.data.sources import prepare
from bsk.data.store import open_data


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def pictures(home: Path) -> Path:
    random = np.random.default_rng(0)
    for split in ("Train", "Test"):
        for name in ("cat", "dog"):
            (home / "in" / split / name).mkdir(parents=True)
            for i in range(6):
                image = Image.fromarray(random.integers(0, 256, (8, 8), np.uint8))
                image.save(home / "in" / split / name / f"{i}.png")
    return home / "in"


def test_a_tilde_that_the_shell_left_is_the_home_folder(call, home: Path, pictures: Path, tmp_path: Path) -> None:
    record = json.loads(call("prepare-data", "folder", "--from", "~/in", "--out", "~/new/a.safetensors").stdout)
    assert record["path"] == str(home / "new/a.safetensors")
    log = [
        "--epochs",
        "1",
        "--model",
        "cnn-4",
        "--schedule",
        "cyclic",
        "--threads",
        "1",
        "--quiet",
        "--batch-size",
        "4",
    ]
    call("train", "--data", "~/new/a.safetensors", "--out", "~/m.safetensors", *log)
    call("evaluate", "~/m.safetensors", "--data", "~/new/a.safetensors", "--attack", "natural", "--out", "~/r.jsonl")
    call("compare", "~/r.jsonl", "--out", "~/t.md")
    assert {each.name for each in home.iterdir()} >= {"m.safetensors", "r.jsonl", "t.md"}
    assert not list(tmp_path.glob("~*"))
    assert "~nobody-here/x: no such file" in call("prepare-data", "folder", "--from", "~nobody-here/x", check=3).stderr


def test_its_record_names_the_classes_and_its_notes_the_images(call, pictures: Path) -> None:
    said = call("prepare-data", "folder", "--from", pictures, "--out", "a.safetensors")
    record = json.loads(said.stdout)
    assert (record["classes"], record["class_names"], record["test"]) == (2, ["cat", "dog"], 12)
    assert f"{pictures}: classes cat, dog\n" in said.stderr
    digits = call("prepare-data", "digits").stderr
    rows = "sklearn.datasets.load_digits(), whose customary splits are others"
    assert f"data/digits.safetensors: train_index val_index test_index number the rows of {rows}; train your" in digits


def test_the_indices_are_rows_of_the_source(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    prepare("digits", None, tmp_path / "a.safetensors")
    digits = load_digits()
    rows = []
    for name in ("train", "val", "test"):
        split = open_data(tmp_path / "a.safetensors").split(name)
        index = split.index.numpy()
        assert np.array_equal(split.labels.numpy(), digits.target[index])
        assert np.array_equal(split.images[:, 0].numpy(), np.rint(digits.images[index] * 255 / 16))
        rows += index.tolist()
    assert sorted(rows) == list(range(1797))


@pytest.mark.parametrize("name", ["digits", "cifar10", "folder", "tiny-imagenet"])
def test_an_empty_source_is_refused(call, name: str) -> None:
    expected = "bsk: --from: is empty; give an archive, a folder or a URL\n"
    assert call("prepare-data", name, "--from", "", check=2).stderr == expected


def test_other_data_are_replaced_only_when_forced(call, tmp_path: Path) -> None:
    call("prepare-data", "digits")
    before = (tmp_path / "data/digits.safetensors").read_bytes()
    call("prepare-data", "digits")
    assert "data/digits.safetensors: has other data" in call("prepare-data", "digits", "--val", "700", check=3).stderr
    assert (tmp_path / "data/digits.safetensors").read_bytes() == before
    assert json.loads(call("prepare-data", "digits", "--val", "700", "--force").stdout)["val"] == 700


def test_data_for_evaluation_only_are_refused_in_training(call, pictures: Path) -> None:
    for each in (pictures / "Train").rglob("*.png"):
        each.unlink()
    for each in sorted((pictures / "Train").rglob("*"), reverse=True):
        each.rmdir()
    (pictures / "Train").rmdir()
    record = json.loads(call("prepare-data", "folder", "--from", pictures, "--out", "a.safetensors").stdout)
    assert (record["train"], record["val"], record["test"]) == (0, 0, 12)
    said = call("train", "--data", "a.safetensors", "--model", "cnn", check=3).stderr.splitlines()
    expected = "no train examples (it has 0 train, 0 val, 12 test); choose another split, or raise the limit"
    assert said == [f"bsk: a.safetensors: {expected}"]


def test_data_that_are_not_converted_yet_are_not_written_over_on_advice(call, tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(b"PK")
    for flags in (["--data", "mine.npz"], ["--dataset", "digits", "--extra", "mine.npz"]):
        call("prepare-data", "digits")
        said = call("train", *flags, "--model", "cnn-4", "--epochs", 1, check=3).line
        assert said.startswith("bsk: mine.npz: not a ")
        assert said.endswith("; convert it first: bsk prepare-data folder --from mine.npz")
    said = call("train", "--dataset", "digits", "--extra", "digit", "--model", "cnn-4", "--epochs", 1, check=2).line
    assert said == "bsk: --extra digit: no data/digit.safetensors; did you mean digits?"


def test_the_command_suggested_for_missing_data_exists(call) -> None:
    said = call("train", "--data", "mine.safetensors", check=3).stderr
    advice = "check the path, or make it with: bsk prepare-data folder --from FOLDER --out mine.safetensors"
    assert said == f"bsk: mine.safetensors: no such file; {advice}\n"
    assert call("train", check=3).stderr.endswith("no such file; make it with: bsk prepare-data cifar10\n")
