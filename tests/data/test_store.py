from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from bsk.data.store import DataFile, Info, Part, balanced_order, open_data, write
from bsk.data.unchanged import Unchanged
from bsk.errors import InputError

INFO = Info("tiny", ["a", "b", "c"], 0.031, [0.5, 0.5, 0.5], [0.25, 0.25, 0.25], augment="flip", model="resnet18")


def _parts(n: int = 90) -> dict[str, Part]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (n, 3, 4, 4), np.uint8)
    labels = random.permutation(np.arange(n) % 3)
    order = random.permutation(n)
    test = Part(random.integers(0, 256, (30, 3, 4, 4), np.uint8), np.arange(30) % 3)
    return {"train": Part(images, labels, order[9:]), "val": Part(images, labels, order[:9]), "test": test}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "tiny.safetensors"
    write(target, _parts(), INFO)
    return target


def test_what_is_written_is_read(path: Path) -> None:
    data = open_data(path)
    assert (data.name, data.classes, data.eps, data.model) == ("tiny", ["a", "b", "c"], 0.031, "resnet18")
    assert data.counts == {"train": 81, "val": 9, "test": 30}
    for name, part in _parts().items():
        split = data.split(name)
        assert (split.images.dtype, split.labels.dtype, split.index.dtype) == (torch.uint8, torch.int64, torch.int64)
        rows = split.index.numpy()
        expected = np.arange(30) if part.rows is None else np.sort(part.rows)
        assert np.sort(rows).tolist() == expected.tolist()
        assert np.array_equal(split.images.numpy(), part.images[rows])
        assert np.array_equal(split.labels.numpy(), part.labels[rows])


def test_splits_come_in_balanced_order_and_a_limit_is_a_prefix(path: Path) -> None:
    data = open_data(path)
    whole = data.split("train")
    in_source_order = whole.labels[whole.index.argsort()].numpy()
    assert whole.labels.tolist() == in_source_order[balanced_order(in_source_order)].tolist()
    for limit in (1, 6, 50, 81, 1000):
        some = data.split("train", limit)
        assert torch.equal(some.images, whole.images[:limit])
        assert torch.equal(some.index, whole.index[:limit])
    assert whole.labels[:6].tolist() == [0, 1, 2, 0, 1, 2]
    with pytest.raises(InputError, match="no train examples"):
        data.split("train", 0)


def test_the_library_reads_the_file_and_it_has_one_metadata_key(path: Path) -> None:
    tensors = load_file(path)
    parts = ("images", "index", "labels")
    assert sorted(tensors) == [f"{split}_{part}" for split in ("test", "train", "val") for part in parts]
    assert tensors["val_images"].shape == (9, 3, 4, 4)
    head = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    metadata = json.loads(head)["__metadata__"]
    assert list(metadata) == ["bsk"]
    header = json.loads(metadata["bsk"])
    assert list(header) == sorted(header)
    assert (header["schema"], header["kind"]) == (1, "data")


def test_the_same_input_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    parts = _parts()
    parts["train"] = replace(parts["train"], rows=np.sort(parts["train"].rows)[::-1])
    write(tmp_path / "again.safetensors", parts, INFO)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    assert open_data(path).sha256 == open_data(tmp_path / "again.safetensors").sha256


def test_writing_and_opening_do_not_import_torch(tmp_path: Path) -> None:
    code = "import sys, bsk.data.store, bsk.data.sources; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_data(path)
    message = str(caught.value)
    assert message.startswith(str(path)), message
    assert "\n" not in message
    assert "; " in message, "no next step"
    return message


def test_missing_folder_and_foreign_files_are_named(tmp_path: Path) -> None:
    assert "no such file; make it with: bsk prepare-data digits" in _refused(tmp_path / "digits.safetensors")
    assert "is a folder" in _refused(tmp_path)
    foreign = (b"", b"\x08", b"PK\x03\x04" * 100, b"hello world, this is text", b"\x02" + bytes(7) + b"{}")
    for i, content in enumerate(foreign):
        other = tmp_path / f"{i}.safetensors"
        other.write_bytes(content)
        _refused(other)
    save_file({"x": np.zeros(3)}, tmp_path / "x.safetensors")
    assert "not written by bsk" in _refused(tmp_path / "x.safetensors")


@pytest.mark.parametrize("size", [4, 8, 100, 2000, -1])
def test_a_truncated_file_is_refused(path: Path, size: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:size])
    assert "not a whole safetensors file" in _refused(path) or size < 8


def test_an_absurd_header_is_refused_before_it_is_read(path: Path) -> None:
    content = path.read_bytes()
    for length in (2**63, 2**40, 99_000_000):
        path.write_bytes(length.to_bytes(8, "little") + content[8:])
        assert f"a header of {length} bytes" in _refused(path)


def _rewritten(path: Path, change: dict[str, Any], **tensors: np.ndarray | None) -> Path:
    """Write the file again with another header or other tensors, None to leave one out."""
    found = load_file(path) | tensors
    head = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    header = json.loads(json.loads(head)["__metadata__"]["bsk"]) | change
    text = json.dumps({key: value for key, value in header.items() if value is not ...})
    save_file({name: each for name, each in found.items() if each is not None}, path, {"bsk": text})
    return path


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kind": "model"}, "expected a data file, found a model file"),
        ({"schema": 2}, "schema 2, this bsk reads 1"),
        ({"eps": ...}, "the header lacks eps"),
        ({"eps": float("nan")}, "'eps': not a finite number"),
        ({"eps": float("inf")}, "'eps': not a finite number"),
        ({"eps": "big"}, "eps is 'big', expected a number above 0, at most 1"),
        ({"eps": 8}, "eps is 8, expected a number above 0, at most 1"),
        ({"eps": True}, "eps is True, expected a number"),
        ({"classes": []}, "classes is [], expected a list of 1 to 32768 names"),
        ({"classes": "abc"}, "classes is 'abc', expected a list of 1 to 32768 names"),
        ({"classes": ["a", "b"]}, "label 2 is outside 0..1"),
        ({"mean": [0.5]}, "mean and std must have one number per channel"),
        ({"mean": [0.5], "std": [0.5]}, "expected one size with 1 channels"),
        ({"std": [0.2, 0.2, 0]}, "expected numbers from 0.0001 to 10000"),
        ({"std": [0.2, 0.2, 1e-320]}, "expected numbers from 0.0001 to 10000"),
        ({"mean": [0.2, 0.2, -1e300]}, "expected numbers from -10000 to 10000"),
        ({"mean": [0.2, 0.2, 10**400]}, "'mean': a number too large"),
        ({"model": "resnet18-9999"}, "model is 'resnet18-9999', expected resnet18, resnet50"),
        ({"classes": ["a"] * 40_000}, "expected a list of 1 to 32768 names"),
        ({"name": "/tmp/evil"}, "name is '/tmp/evil', expected letters"),
        ({"name": "../evil"}, "name is '../evil', expected letters"),
        ({"name": "..\\evil"}, "expected letters"),
        ({"name": ".."}, "name is '..', expected letters"),
        ({"name": "a\0"}, "expected letters"),
        ({"name": ""}, "expected letters"),
        ({"name": "a" * 101}, "expected letters"),
        ({"name": "a\n"}, "expected letters"),
        ({"name": "\ud800"}, "'name': a lone surrogate"),
        ({"classes": ["a", "b", "\udfff"]}, "'classes': a lone surrogate"),
        ({"augment": "mixup"}, "augment is 'mixup', expected crop-flip, flip or none"),
        ({"name": 3}, "name is 3, expected letters"),
        ({"val_rule": 3}, "val_rule is 3, expected text"),
        ({"limits": None}, "limits is None, expected an object"),
        ({"counts": {"train": 1}}, "the tensors have"),
    ],
)
def test_an_invalid_header_is_refused(path: Path, change: dict[str, Any], expected: str) -> None:
    assert expected in _refused(_rewritten(path, change))


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"val_images": None}, "val_images is missing"),
        ({"test_index": None}, "test_index is missing"),
        ({"val_images": np.zeros((9, 3, 4, 4), np.float32)}, "val_images are float32, expected uint8 in [0, 255]"),
        ({"val_labels": np.full(9, np.nan)}, "val_labels are float64, expected int64"),
        ({"val_labels": np.full(9, 3)}, "val label 3 is outside 0..2"),
        ({"val_labels": np.full(9, -1)}, "val label -1 is outside 0..2"),
        ({"val_labels": np.zeros(8, np.int64)}, "expected (N, C, H, W), (N,), (N,)"),
        ({"val_images": np.zeros((9, 48), np.uint8)}, "expected (N, C, H, W)"),
        ({"val_images": np.zeros((9, 3, 5, 4), np.uint8)}, "expected one size with 3 channels"),
    ],
)
def test_invalid_tensors_are_refused(path: Path, tensors: dict[str, Any], expected: str) -> None:
    assert expected in _refused(_rewritten(path, {}, **tensors))


def test_a_duplicate_key_is_refused(path: Path) -> None:
    tensors = load_file(path)
    save_file(tensors, path, {"bsk": '{"kind": "data", "schema": 1, "schema": 1}'})
    assert "duplicate key 'schema'" in _refused(path)
    save_file(tensors, path, {"bsk": "[" * 100_000})
    _refused(path)
    save_file(tensors, path, {"bsk": "[]"})
    _refused(path)


def test_a_file_that_vanishes_after_opening_is_a_one_line_error(path: Path) -> None:
    data: DataFile = open_data(path)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        data.split("train")
    with pytest.raises(InputError, match="no such file"):
        _ = data.sha256


def test_a_failed_write_leaves_what_was_there(path: Path) -> None:
    before = path.read_bytes()
    parts = _parts()
    parts["test"] = Part(parts["test"].images[:3], parts["test"].labels)  # rows that are not there
    with pytest.raises(IndexError):
        write(path, parts, INFO)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def _restored(path: Path, original: bytes, other: bytes) -> None:
    path.write_bytes(original)


def _touched(path: Path, original: bytes, other: bytes) -> None:
    os.utime(path, ns=(1, 1))


def _overwritten(path: Path, original: bytes, other: bytes) -> None:
    path.write_bytes(other)


def _replaced(path: Path, original: bytes, other: bytes) -> None:
    path.with_name("new").write_bytes(other)
    path.with_name("new").replace(path)


def _removed(path: Path, original: bytes, other: bytes) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("happens", "mapped", "read"),
    [
        (_restored, True, True),
        (_touched, True, True),
        (_overwritten, False, False),
        (_replaced, True, False),  # what is mapped is still the old file
        (_removed, True, False),
    ],
)
def test_a_file_that_changes_in_use_is_noticed(happens, mapped: bool, read: bool, path: Path) -> None:
    """Images of a split are mapped; those of a stream are read when they are taken."""
    data, original = open_data(path), path.read_bytes()
    split, stream, first = data.split("train"), data.stream("train"), torch.arange(20)
    before, labels, name = split.images.clone(), split.labels.clone(), data.sha256
    happens(path, original, original[:-5500] + bytes(5500))
    assert split.images.equal(before) == (happens is not _overwritten) and data.sha256 == name
    for noticed, look in ((not mapped, split.file.check_mapped), (not read, lambda: stream.take(first))):
        if noticed:
            with pytest.raises(InputError, match="no such file" if happens is _removed else "has changed while it was"):
                look()
        else:
            look()
    assert stream.labels.equal(labels)
    if read:
        assert stream.take(first).equal(before[:20])


@pytest.mark.parametrize("happens", [_overwritten, _replaced])
@pytest.mark.parametrize("named", [False, True])
def test_a_data_file_has_no_images_and_no_name_of_other_contents_than_when_it_was_opened(
    happens, named: bool, path: Path
) -> None:
    data, original = open_data(path), path.read_bytes()
    name = data.sha256 if named else ""
    happens(path, original, original[:-5500] + bytes(5500))
    for look in (lambda: data.split("train"), lambda: data.stream("test")):
        with pytest.raises(InputError, match="has changed while it was in use"):
            look()
    if named:
        assert data.sha256 == name
        path.write_bytes(original)
        assert data.split("train", 3).file is data.stream("test").file  # restored
    else:
        with pytest.raises(InputError, match="has changed while it was in use"):
            assert data.sha256


def test_a_change_before_the_contents_were_named_counts(path: Path) -> None:
    data = open_data(path)
    stream = data.stream("train")
    _touched(path, b"", b"")
    assert open_data(path).sha256
    with pytest.raises(InputError, match="has changed while it was in use; restore it"):
        stream.take(torch.arange(2))


def test_a_file_cut_short_in_use_is_noticed(path: Path) -> None:
    data = open_data(path)
    assert data.sha256
    stream = data.stream("train")
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(InputError, match="has changed while it was in use; restore it"):
        stream.take(torch.arange(2))


def test_a_mapped_file_that_can_no_longer_be_read_counts_as_changed(path: Path) -> None:
    def reread() -> str:
        raise PermissionError("no longer readable")

    file = Unchanged(path, lambda: "0" * 64, reread)
    file.check_mapped()
    _touched(path, b"", b"")
    with pytest.raises(InputError, match="has changed while it was in use"):
        file.check_mapped()
