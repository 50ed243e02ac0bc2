"""The identity of data in records: it depends on tensors, classes and default settings, and nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_archives import cifar10_binary, cifar10_python, tarred, unpacked
from safetensors.numpy import load_file, save_file

from bsk.data import store
from bsk.data.arrays import from_arrays
from bsk.data.sources import Request, prepare, read
from bsk.data.store import Info, Part, open_data, write
from bsk.errors import InputError

INFO = Info("tiny", ["a", "b"], 0.031, [0.5], [0.25], source={"files": {"x": "md5:1"}}, val_rule="some")
DIGITS = "413bbe1a7271c27f5de1593595a298cf96089fabcb2da49afd9b2f3155a09552"  # in the records of `results`
DIGITS_200 = "24aeb3b913103979796303e40c63b382bca1f0aaf5284ca32588fcb2651bb993"  # of files of before, --train-limit 200


def parts(pixel: int = 0, label: int = 0, row: int = 0) -> dict[str, Part]:
    images = np.arange(8 * 16, dtype=np.uint8).reshape(8, 1, 4, 4)
    labels = np.arange(8) % 2
    images[0, 0, 0, 0], labels[0] = pixel, label
    rows = {"train": [row, 1, 2], "val": [3], "test": [5, 6, 7]}
    return {name: Part(images, labels, np.array(its)) for name, its in rows.items()}


def named(path: Path, info: Info = INFO, **changed: int) -> str:
    write(path, parts(**changed), info)
    return open_data(path).sha256


def older(path: Path) -> Path:
    """Turn it into a file of 0.1.0, without an identity, with its tensors unchanged."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + length])
    header = json.loads(head["__metadata__"]["bsk"])
    del header["named_by"]
    header["version"] = "0.1.0"
    head["__metadata__"]["bsk"] = json.dumps(header, sort_keys=True)
    packed = json.dumps(head, separators=(",", ":")).encode()
    packed += b" " * (-len(packed) % 8)
    path.write_bytes(len(packed).to_bytes(8, "little") + packed + content[8 + length :])
    return path


def test_the_identity_does_not_depend_on_source_or_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    first = named(path)
    content = path.read_bytes()
    assert named(path, replace(INFO, name="other", source={"files": {"y": "md5:2"}, "official": True})) == first
    assert named(path, replace(INFO, limits={"train": None})) == first
    monkeypatch.setattr(store, "VERSION", "9.9")
    assert named(path) == first
    assert path.read_bytes() != content


def test_the_identity_depends_on_tensors_classes_and_defaults(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    found = [named(path), named(path, pixel=1), named(path, label=1), named(path, row=4)]
    changes = [{"classes": ["a", "c"]}, {"eps": 0.1}, {"mean": [0.1]}, {"std": [0.1]}, {"augment": "flip"}]
    found += [named(path, replace(INFO, **change)) for change in [*changes, {"model": "resnet18"}]]
    assert len(set(found)) == len(found)


def test_tensors_that_are_changed_behind_the_header_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    first = named(path)
    tensors = load_file(path)
    bsk = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])["__metadata__"]
    save_file(tensors, path, bsk)  # in another order
    assert open_data(path).sha256 == first
    save_file(tensors | {"test_images": tensors["test_images"] ^ 1}, path, bsk)
    assert open_data(path).sha256 != first


def test_an_older_file_keeps_its_identity_in_records(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    first = named(path)
    data = open_data(older(path))
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() != first
    assert data.identity == first


def test_the_identity_of_the_digits_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "digits.safetensors"
    assert prepare("digits", None, path)["sha256"] == read(Request("digits", None, tmp_path)).sha256 == DIGITS
    assert hashlib.sha256(path.read_bytes()).hexdigest() != DIGITS
    assert open_data(older(path)).sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == DIGITS
    assert prepare("digits", None, tmp_path / "200.safetensors", train_limit=200)["sha256"] == DIGITS_200


def test_the_same_images_from_any_source_have_one_identity(tmp_path: Path) -> None:
    python, binary = cifar10_python(40, 60), cifar10_binary(40, 60)
    sources = [
        tarred(tmp_path / "one.tar.gz", "cifar-10-batches-py", python),
        tarred(tmp_path / "two.tgz", "other", python),
        tarred(tmp_path / "three.tar", "x", python, mode="w"),
        unpacked(tmp_path / "four", python),
        tarred(tmp_path / "five.tar.gz", "cifar-10-batches-bin", binary),
    ]
    made = [prepare("cifar10", str(each), tmp_path / f"{each.stem}.safetensors", val=20) for each in sources]
    assert len({each["sha256"] for each in made}) == 1
    out = tmp_path / "one.safetensors"
    assert prepare("cifar10", str(sources[1]), out, val=20)["sha256"] == made[0]["sha256"]  # no other data: no --force
    assert prepare("cifar10", str(sources[0]), tmp_path / "b.safetensors", val=21)["sha256"] != made[0]["sha256"]


def test_arrays_in_memory_have_the_identity_of_their_file(tmp_path: Path) -> None:
    images, labels = np.arange(40 * 16, dtype=np.uint16).astype(np.uint8).reshape(40, 1, 4, 4), np.arange(40) % 2
    images[:, 0, 0, 0] = np.arange(40)
    data = from_arrays((images, labels), test=(images[:9], labels[:9]), name="mine")
    write(tmp_path / "a.safetensors", data.parts, data)
    assert open_data(tmp_path / "a.safetensors").sha256 == data.sha256
    assert from_arrays((images, labels), test=(images[:9], labels[:9]), name="other").sha256 == data.sha256
    assert from_arrays((images, labels), test=(images[:8], labels[:8]), name="mine").sha256 != data.sha256


def test_other_data_are_not_replaced_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "digits.safetensors"
    prepare("digits", None, path)
    before = older(path).read_bytes()
    assert prepare("digits", None, path)["sha256"] == DIGITS
    assert path.read_bytes() == before  # records go on naming it
    with pytest.raises(InputError) as caught:
        prepare("digits", None, path, val=700)
    counts = "train 1200, val 200, test 397 and train 700, val 700, test 397 images"
    expected = f"{path}: has other data ({counts}); choose another --out, or pass --force"
    assert str(caught.value) == expected
    assert path.read_bytes() == before
    assert prepare("digits", None, path, val=700, force=True)["val"] == 700
    path.write_bytes(before[:-1])
    with pytest.raises(InputError, match="is no data file"):
        prepare("digits", None, path)
    assert prepare("digits", None, path, force=True)["val"] == 200
