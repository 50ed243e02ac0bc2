"""Images and labels in .npz files: read exactly, whatever their names and memory layout."""

from __future__ import annotations

import io
import runpy
import tracemalloc
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_archives import CIFAR10_NAMES, cifar10_python, images_and_labels, tarred
from numpy.typing import NDArray

from bsk.data.sources import prepare
from bsk.data.store import open_data
from bsk.errors import BskError, InputError

Array = NDArray[Any]


def examples(n: int, seed: int = 0, shape: tuple[int, ...] = (6, 5, 3), classes: int = 3) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return random.integers(0, 256, (n, *shape), np.uint8), random.permutation(labels)


def stored(path: Path, split: str) -> tuple[Array, Array]:
    """Return the images and labels of a split by their rows in the source."""
    found = open_data(path).split(split)
    order = np.argsort(found.index.numpy())
    return found.images.numpy()[order], found.labels.numpy()[order]


def made(source: Path, out: Path, name: str = "folder", **more: Any) -> dict[str, Any]:
    return prepare(name, str(source), out, **more)


@pytest.mark.parametrize(
    ("keys"),
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("trainX", "trainY", "testX", "testY"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("trainImages", "trainLabels", "testImages", "testLabels"),
        ("training_data", "training_targets", "testing_data", "testing_targets"),
        ("image", "label", "image_test", "label_test"),
        ("images", "labels", "images_eval", "class_eval"),
    ],
)
@pytest.mark.parametrize("form", ["npz", "compressed", "npy"])
def test_usual_names_are_read_to_the_bit(tmp_path: Path, keys: tuple[str, ...], form: str) -> None:
    train, test = examples(40), examples(12, 1)
    arrays = dict(zip(keys, (*train, *test), strict=True))
    source = tmp_path / "made.npz"
    if form == "npy":
        source = tmp_path / "made"
        source.mkdir()
        for key, array in arrays.items():
            np.save(source / f"{key}.npy", array)
    else:
        (np.savez if form == "npz" else np.savez_compressed)(source, **arrays)
    record = made(source, tmp_path / "a.safetensors", val=4)
    assert (record["train"], record["val"], record["test"], record["classes"]) == (36, 4, 12, 3)
    rows = np.concatenate([open_data(tmp_path / "a.safetensors").split(name).index for name in ("train", "val")])
    assert sorted(rows) == list(range(40))
    for name, (x, y) in {"train": train, "val": train, "test": test}.items():
        found = open_data(tmp_path / "a.safetensors").split(name)
        assert np.array_equal(found.images, x.transpose(0, 3, 1, 2)[found.index])
        assert np.array_equal(found.labels, y[found.index])


LIES = {
    "NHWC": lambda x: x.transpose(0, 2, 3, 1),
    "NCHW": lambda x: x,
    "column by column": lambda x: np.asfortranarray(x.transpose(0, 2, 3, 1)),
    "floats": lambda x: x / 255,
    "half": lambda x: (x / 255).astype(np.float32).transpose(0, 2, 3, 1),
    "big end first": lambda x: (x / 255).astype(">f4"),
}


@pytest.mark.parametrize("lies", LIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_any_memory_layout_is_read(tmp_path: Path, lies: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bsk.data.formats.npy.CHUNK", 7 * channels * 30)  # pieces of images, with a rest
    x, y = examples(30, shape=(channels, 6, 5))
    test, labels = examples(9, 1, (channels, 6, 5))
    kinds = (np.uint8, np.int32)
    arrays = {"x_train": LIES[lies](x), "y_train": y[:, None].astype(kinds[0]), "x_test": LIES[lies](test)}
    np.savez(tmp_path / "a.npz", **arrays, y_test=labels.astype(kinds[1]))
    made(tmp_path / "a.npz", tmp_path / "a.safetensors", val=3)
    assert np.array_equal(stored(tmp_path / "a.safetensors", "test")[0], test)
    assert np.array_equal(stored(tmp_path / "a.safetensors", "test")[1], labels)
    found = open_data(tmp_path / "a.safetensors").split("train")
    assert np.array_equal(found.images, x[found.index])


def test_gray_images_have_no_channels(tmp_path: Path) -> None:
    x, y = examples(30, shape=(28, 28))
    np.savez(tmp_path / "a.npz", train_images=x, train_labels=y, val_images=x[:6] ^ 1, val_labels=y[:6])
    record = made(tmp_path / "a.npz", tmp_path / "a.safetensors", test_split="val")
    assert (record["train"], record["val"], record["test"]) == (27, 3, 6)
    assert np.array_equal(stored(tmp_path / "a.safetensors", "test")[0], (x[:6] ^ 1)[:, None])


def test_shared_cases(tmp_path: Path, shared: Path) -> None:
    runpy.run_path(str(shared / "cases" / "make_data.py"))["main"](tmp_path)
    out = tmp_path / "a.safetensors"
    assert made(tmp_path / "generated.npz", out)["test"] == 60
    with np.load(tmp_path / "generated.npz") as given:
        for split in ("train", "val", "test"):
            found = open_data(out).split(split)
            assert np.array_equal(found.images, given["image"].transpose(0, 3, 1, 2)[found.index])
            assert np.array_equal(found.labels, given["label"][found.index])
    record = made(tmp_path / "medical.npz", out, force=True)
    assert (record["train"], record["val"], record["test"], record["classes"]) == (60, 15, 15, 2)
    with np.load(tmp_path / "medical.npz") as given:
        for split in ("train", "val", "test"):
            images, labels = stored(out, split)
            assert np.array_equal(images[:, 0], given[f"{split}_images"])
            assert np.array_equal(labels, given[f"{split}_labels"][:, 0])
    record = made(tmp_path / "parquet", out, force=True)
    assert (record["train"], record["val"], record["test"]) == (90, 10, 40)


def test_file_names_may_give_the_split(tmp_path: Path) -> None:
    x, y = examples(20)
    np.savez(tmp_path / "my_test.npz", images=x, labels=y)
    record = made(tmp_path / "my_test.npz", tmp_path / "a.safetensors")
    assert (record["train"], record["val"], record["test"]) == (0, 0, 20)
    folder = tmp_path / "both"
    (folder / "sub").mkdir(parents=True)
    np.savez(folder / "sub" / "train.npz", x=x, y=y)
    np.savez(folder / "sub" / "test.npz", x=x[::-1], y=y[::-1])
    record = made(folder, tmp_path / "b.safetensors", val=2)
    assert (record["train"], record["val"], record["test"]) == (18, 2, 20)
    assert np.array_equal(stored(tmp_path / "b.safetensors", "test")[0], x[::-1].transpose(0, 3, 1, 2))
    nested = tmp_path / "nested"
    for split in ("train", "test"):
        (nested / split).mkdir(parents=True)
        np.save(nested / split / "images.npy", x)
        np.save(nested / split / "labels.npy", y)
    assert made(nested, tmp_path / "c.safetensors", val=2)["test"] == 20


def test_one_file_of_many_takes_its_labels_along(tmp_path: Path) -> None:
    (old, its), (new, others) = examples(20), examples(16, 1)
    for name, array in {"v4_data": old, "v4_labels": its, "v6_data": new, "v6_labels": others}.items():
        (tmp_path / "made").mkdir(exist_ok=True)
        np.save(tmp_path / "made" / f"set1.1_{name}.npy", array)
    assert made(tmp_path / "made" / "set1.1_v4_data.npy", tmp_path / "a.safetensors", val=2)["test"] == 4
    with pytest.raises(InputError, match="train has 2 arrays of images, set1.1_v4_data .*; keep one of them"):
        made(tmp_path / "made", tmp_path / "b.safetensors")


def test_names_of_classes_may_be_an_array(tmp_path: Path) -> None:
    x, y = examples(20)
    said: list[str] = []
    more = {"class_names": np.array(["a", "b", "ü"]), "filenames": np.array(["f"] * 20), "meta": np.array([{}])}
    np.savez(tmp_path / "a.npz", x=x, y=y, **more)
    record = made(tmp_path / "a.npz", tmp_path / "a.safetensors", notice=said.append)
    assert record["class_names"] == ["a", "b", "ü"]
    assert f"{tmp_path / 'a.npz'}: ignored: filenames (20,), meta ()" in said
    np.savez(tmp_path / "c.npz", images=x, target=y, target_names=np.array(["a", "b", "c"]))  # as in scikit-learn
    assert made(tmp_path / "c.npz", tmp_path / "c.safetensors")["class_names"] == ["a", "b", "c"]
    np.savez(tmp_path / "b.npz", x=x, y=y, class_names=np.array(["a", "b", "c\x1b"]))
    with pytest.raises(InputError, match="is not printable"):
        made(tmp_path / "b.npz", tmp_path / "b.safetensors")


def test_several_labels_an_image_are_chosen_by_name(tmp_path: Path) -> None:
    x, y = examples(20)
    np.savez(tmp_path / "a.npz", images=x, fine_labels=y, coarse_labels=y // 2)
    assert made(tmp_path / "a.npz", tmp_path / "a.safetensors")["classes"] == 3
    assert made(tmp_path / "a.npz", tmp_path / "b.safetensors", labels=["coarse_labels"])["classes"] == 2
    np.savez(tmp_path / "b.npz", images=x, label_sex=y, label_age=y)
    with pytest.raises(InputError, match=r"label_sex \(20,\), label_age \(20,\); pass --labels NAME"):
        made(tmp_path / "b.npz", tmp_path / "c.safetensors")


def test_any_array_may_be_named_as_labels(tmp_path: Path) -> None:
    x, y = examples(20)
    np.savez(tmp_path / "a.npz", x_train=x, race_train=y, x_test=x, race_test=y, race_2_train=y % 2, race_2_test=y % 2)
    for name, classes in {"race": 3, "race_test": 3, "race_2": 2}.items():
        assert made(tmp_path / "a.npz", tmp_path / f"{name}.safetensors", labels=[name])["classes"] == classes
    check = partial(pytest.raises, InputError)
    with check(match=r"a.npz: --labels age: no such array of train among x_train .*, race_train \(20,\), .*; name one"):
        made(tmp_path / "a.npz", tmp_path / "b.safetensors", labels=["age"])
    with check(match="a.npz: train has no labels; add an array"):
        made(tmp_path / "a.npz", tmp_path / "b.safetensors")
    np.savez(tmp_path / "b.npz", x=x, race=y.astype(str))
    with check(match=r"array race \(20,\) has text labels, expected integers from 0; convert"):
        made(tmp_path / "b.npz", tmp_path / "b.safetensors", labels=["race"])


def cifar10_arrays(batch: int, test: int) -> dict[str, Array]:
    """The images of `cifar10_python` as arrays."""
    arrays = {}
    for split, n, seed in (("train", 5 * batch, 0), ("test", test, 1)):
        images, labels = images_and_labels(n, 10, seed)
        arrays |= {f"x_{split}": images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), f"y_{split}": labels[:, None]}
    return arrays


def test_the_same_images_have_the_same_name_in_records(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar.gz", "cifar-10-batches-py", cifar10_python(40, 60))
    np.savez(tmp_path / "a.npz", **cifar10_arrays(40, 60))
    records = [made(each, tmp_path / "a.safetensors", "cifar10", val=20) for each in (archive, tmp_path / "a.npz")]
    assert records[0]["sha256"] == records[1]["sha256"]  # the second found the file of the first
    assert records[1]["class_names"] == CIFAR10_NAMES
    assert open_data(tmp_path / "a.safetensors").eps == 0.031


def test_other_images_are_not_cifar10(tmp_path: Path) -> None:
    x, y = examples(20)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    with pytest.raises(InputError, match=r"10 classes of images \(3, 6, 5\), expected 10 of \(3, 32, 32\) for"):
        made(tmp_path / "a.npz", tmp_path / "a.safetensors", "cifar10")


X, Y = examples(20)
BOTH = {"x_test": X, "y_test": Y}
WRONG: dict[str, tuple[Mapping[str, Any], str]] = {
    "multi-label": (
        {"x": X, "y": np.eye(3, dtype=np.uint8)[Y]},
        "y.npy: shape (20, 3), expected one label per image, (N,) or (N, 1); convert one-hot labels with",
    ),
    "objects": ({"x": X, "y": np.array([{}] * 20)}, "y.npy: has Python objects, which need pickle"),
    "no labels": ({"x_train": X, **BOTH}, "train has no labels; add an array for them, as x_train and y_train"),
    "other names": ({"faces": X, "ids": Y}, "no images among the arrays faces (20, 6, 5, 3), ids (20,); expected"),
    "flat": ({"x": X.reshape(20, -1), "y": Y}, "no images among the arrays x (20, 90), y (20,); expected names such"),
    "too few": ({"x": X, "y": Y[:9]}, "train labels: shape (9,), expected (20,), one label per image"),
    "fractions": ({"x": X, "y": Y / 2}, "train labels: float64, expected integers from 0"),
    "text": (
        {"x": X, "y": np.array(["cat", "dog", "owl"])[Y]},
        "array y (20,) has text labels, expected integers from 0; ",
    ),
    "text of labels": (
        {"images": X, "labels": np.array([b"a", b"b", b"c"])[Y]},
        "convert them: classes, labels = numpy.",
    ),
    "bools": ({"x": X, "y": Y > 0}, "train labels: bool, expected integers from 0; convert them with astype(int)"),
    "empty labels": ({"x": X, "y": Y[:0]}, "train labels: shape (0,), expected (20,), one label per image"),
    "no shape": ({"x": X, "y": np.array(3)}, "train has no labels; add an array for them, as x_train and y_train"),
    "identifiers": ({"x": X, "y": Y + 10**12}, "train labels: 1000000000002, expected integers below 32768; convert"),
    "names of classes only": ({"x": X, "class_names": np.array(["a", "b"])}, "train has no labels; add an array for"),
    "negative": ({"x": X, "y": Y - 1}, "train labels: -1, expected integers from 0"),
    "sizes": (
        {"x": X, "y": Y, "x_test": X[:, :5], "y_test": Y},
        "image shapes differ (train (3, 6, 5), test (3, 5, 5)); use",
    ),
    "levels": ({"x": X.astype(float), "y": Y}, "x.npy: values from 0 to 255, expected floats in [0, 1]; rescale them"),
    "ints": (
        {"x": X.astype(np.int64), "y": Y},
        "x.npy: int64, expected uint8, or float in [0, 1]; convert levels from 0 to 255",
    ),
    "none": ({"x": X[:0], "y": Y[:0]}, "x.npy: shape (0, 6, 5, 3), expected (N, C, H, W), (N, H, W, C) or (N, H, W)"),
    "no names": ({"arr_0": X, "arr_1": Y, "arr_2": X, "arr_3": Y}, "4 arrays without names; save them with names, as"),
    "unlabelled test": (
        {"x": X, "y": Y, "x_test": X},
        "test has no labels; add an array for them, as x_test and y_test",
    ),
    "val alone": ({"x_val": X, "y_val": Y}, "has only a val split; pass --test-split val to evaluate on it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_invalid_files_are_one_line_errors(tmp_path: Path, case: str) -> None:
    arrays, expected = WRONG[case]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError) as error:
        made(tmp_path / "a.npz", tmp_path / "a.safetensors")
    assert expected in str(error.value) and str(error.value).startswith(str(tmp_path / "a.npz"))
    assert "\n" not in str(error.value)


def npy(array: Array, header: bytes | None = None) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    content = file.getvalue()
    if header is None:
        return content
    start = 10 + int.from_bytes(content[8:10], "little")
    return content[:8] + len(header).to_bytes(2, "little") + header + content[start:]


def header(shape: str, kind: str = "|u1") -> bytes:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (npy(X, header("(200000000000, 6, 5, 3)")), "its header says (200000000000, 6, 5, 3) of uint8, but it has"),
        (npy(X, header("(-20, 6, -5, 3)")), "its header says (-20, 6, -5, 3) of uint8, but it has 1800 bytes"),
        (npy(X, header("(20, 6, 5, 3)", "|O")), "has Python objects"),
        (npy(X, header("(20, 6, 5, 3)", "zzz")), "its header is invalid"),
        (npy(X, header("__import__('os').abort()")), "its header is invalid"),
        (npy(X, b"(" * 9000), "its header is invalid"),
        (npy(X, header("(20, 6, 5, 3)") + b" " * 20_000), "a header of 20067 bytes, expected at most 10000"),
        (npy(X)[:-1], "its header says (20, 6, 5, 3) of uint8, but it has 1799 bytes"),
        (b"\x93NUMPY\x07\x00" + npy(X)[8:], "not an array written by numpy.save"),
        (b"PICKLE" + npy(X), "not an array written by numpy.save"),
    ],
)
def test_hostile_headers_are_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
        archive.writestr("y.npy", npy(Y))
    with pytest.raises(InputError) as error:
        made(tmp_path / "a.npz", tmp_path / "a.safetensors")
    assert f"x.npy: {expected}" in str(error.value) and "\n" not in str(error.value)


def test_small_files_do_not_become_large_arrays(tmp_path: Path) -> None:
    x = np.zeros((100, 1000, 1000), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x=x, y=np.arange(100))
    tracemalloc.start()
    with pytest.raises(InputError, match="expands to an unreasonable size"):
        made(tmp_path / "a.npz", tmp_path / "a.safetensors")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_damaged_files_are_refused_or_read_correctly(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.savez(file, x=X, y=Y)
    whole, random = file.getvalue(), np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        for place in random.integers(0, len(content), 3):
            content[place] = random.integers(0, 256)
        (tmp_path / "a.npz").write_bytes(content[: random.integers(1, len(content)) if random.random() < 0.2 else None])
        try:
            made(tmp_path / "a.npz", tmp_path / "a.safetensors", force=True)
        except BskError as error:
            assert "\n" not in str(error)


def test_memory_stays_within_the_data_and_a_piece(tmp_path: Path) -> None:
    x, y = examples(8000, shape=(32, 32, 3))
    np.savez(tmp_path / "a.npz", x_train=x[:7000], y_train=y[:7000], x_test=x[7000:], y_test=y[7000:])
    del x
    tracemalloc.start()
    made(tmp_path / "a.npz", tmp_path / "a.safetensors")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * (tmp_path / "a.safetensors").stat().st_size


def test_meaningless_flags_are_refused(call, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    said = call("prepare-data", "folder", "--from", "a.npz", "--size", 8, check=2)
    assert said.line == "bsk: --size: arrays are not resized; leave it out, or resize the images in a.npz"
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.write(tmp_path / "a.npz", "a.npz")
    said = call("prepare-data", "folder", "--from", "b.zip", check=3)
    assert said.line == "bsk: b.zip: a.npz: a .npz file in an archive; unpack it and give the folder"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["0", "1", "10", "2"], "so that class 2 is '10'"),  # as `class_encode_column` of datasets 5.2.0 makes them
        (["1", "0", "2", "3"], "so that class 0 is '1'"),
        (["0", "1", "2", "10"], ""),
        (["7", "8", "9", "10"], ""),
        (["0", "1", "10", "b"], ""),
        (["9" * 5000, "8", "7", "6"], ""),
    ],
)
def test_numbers_as_class_names_out_of_order_are_told(call, tmp_path: Path, names: list[str], said: str) -> None:
    x, y = np.random.default_rng(0).integers(0, 256, (80, 4, 4), np.uint8), np.arange(80) % 4
    np.savez(tmp_path / "one.npz", x=x, y=y, class_names=np.array(names))
    found = call("prepare-data", "folder", "--from", "one.npz", "--out", "one.safetensors", "--test-split", "none")
    assert ("the class names are numbers in the order of text" in found.stderr) is bool(said) and said in found.stderr


def test_labels_counted_from_one_and_classes_of_one_name_are_told(call, tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).integers(0, 256, (60, 4, 4), np.uint8), np.arange(60) % 3 + 1
    np.savez(tmp_path / "one.npz", x=x, y=y)
    said = call("prepare-data", "folder", "--from", "one.npz", "--out", "one.safetensors", "--test-split", "none")
    assert "one.npz: 1 of 4 classes have no image in train (0)" in said.stderr
    np.savez(tmp_path / "zero.npz", x=x, y=y - 1)
    said = call("prepare-data", "folder", "--from", "zero.npz", "--out", "zero.safetensors", "--test-split", "none")
    assert "have no image" not in said.stderr
    np.savez(tmp_path / "twice.npz", x=x, y=y - 1, class_names=np.array(["crane", "b", "crane"]))
    said = call("prepare-data", "folder", "--from", "twice.npz", "--out", "t.safetensors", check=3)
    assert "two classes are named 'crane'; names must be unique" in said.stderr
