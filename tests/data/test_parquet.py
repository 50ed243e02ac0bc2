"""Parquet files of Hugging Face data sets and others: read exactly, or refused in one line."""

from __future__ import annotations

import io
import json
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_archives import CIFAR10_NAMES, cifar10_python, cifar100_python, images_and_labels, tarred
from numpy.typing import NDArray
from PIL import Image

from bsk.data.sources import prepare
from bsk.data.store import open_data
from bsk.errors import BskError, InputError

Pixels = NDArray[np.uint8]
FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(pixels: Pixels, kind: str = "PNG", **more: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **more)
    return file.getvalue()


def pictures(n: int, seed: int = 0, shape: tuple[int, ...] = (6, 5, 3)) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


def columns(x: Pixels, y: Any, image: str = "img", label: str = "label") -> dict[str, Any]:
    files = [{"bytes": png(each), "path": None} for each in x]
    return {image: pa.array(files, FILE), label: pa.array(np.asarray(y).tolist())}


def written(path: Path, content: dict[str, Any], names: dict[str, list[str]] | None = None, **more: Any) -> Path:
    """Write a table; `names` are those of the classes by column, as Hugging Face's library keeps them."""
    features: dict[str, Any] = {name: {"names": each, "_type": "ClassLabel"} for name, each in (names or {}).items()}
    features |= {name: {"_type": "Image"} for name in content if name in ("img", "image")}
    table = pa.table(content)
    if names is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **more)
    return path


def made(source: Path, out: Path, name: str = "folder", **more: Any) -> dict[str, Any]:
    return prepare(name, str(source), out, **more)


def check(out: Path, split: str, x: Pixels, y: Any) -> None:
    found = open_data(out).split(split)
    expected = x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)
    assert np.array_equal(found.images, expected[found.index]) and np.array_equal(found.labels, y[found.index])


def test_a_hugging_face_folder_is_read_to_the_bit(tmp_path: Path) -> None:
    x, y = pictures(50), np.arange(50) % 3
    for i, rows in enumerate((slice(0, 30), slice(30, 50))):  # the second file has more groups of rows
        path = tmp_path / "made" / "data" / f"train-0000{i}-of-00002.parquet"
        written(path, columns(x[rows], y[rows]), {"label": ["a", "b", "ü"]}, row_group_size=50 if i == 0 else 7)
    test, its = pictures(12, 1), np.arange(12) % 2
    written(tmp_path / "made" / "data" / "test-00000-of-00001.parquet", columns(test, its), {"label": ["a", "b", "ü"]})
    (tmp_path / "made" / "README.md").write_text("x")
    record = made(tmp_path / "made", tmp_path / "a.safetensors", val=5)
    assert (record["train"], record["val"], record["test"]) == (45, 5, 12)
    assert record["class_names"] == ["a", "b", "ü"]
    check(tmp_path / "a.safetensors", "train", x, y)
    check(tmp_path / "a.safetensors", "val", x, y)
    check(tmp_path / "a.safetensors", "test", test, its)


def test_a_column_of_splits_is_refused_and_other_columns_are_named(tmp_path: Path) -> None:
    x, y = pictures(40), np.arange(40) % 2
    said: list[str] = []
    written(tmp_path / "a.parquet", columns(x, y) | {"id": pa.array(range(40)), "photographer": pa.array(["me"] * 40)})
    made(tmp_path / "a.parquet", tmp_path / "a.safetensors", labels=["label"], notice=said.append)
    assert any(line.endswith("labels are label; columns not used: id, photographer") for line in said), said
    written(tmp_path / "b.parquet", columns(x, y) | {"split": pa.array(["train"] * 30 + ["test"] * 10)})
    with pytest.raises(InputError, match=r"b.parquet: column split has several splits; write each split to a file"):
        made(tmp_path / "b.parquet", tmp_path / "b.safetensors", labels=["label"])
    for name, splits in (("split", ["train"] * 40), ("subset", ["indoor", "outdoor"] * 20)):  # these tell nothing new
        written(tmp_path / "c.parquet", columns(x, y) | {name: pa.array(splits)})
        made(tmp_path / "c.parquet", tmp_path / "c.safetensors", labels=["label"], force=True)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
@pytest.mark.parametrize(
    ("kind", "text"),
    [(pa.binary(), pa.string()), (pa.large_binary(), pa.large_string()), (pa.binary_view(), pa.string_view())],
)
def test_plain_bytes_and_texts_are_accepted(tmp_path: Path, compression: str, kind: Any, text: Any) -> None:
    x, y = pictures(40), np.array(["dog", "cat"] * 20)
    content = {"picture": pa.array([png(each) for each in x], kind), "class": pa.array(y.tolist(), text)} | {
        "id": range(40)
    }
    written(tmp_path / "a.parquet", content, compression=compression)
    record = made(tmp_path / "a.parquet", tmp_path / "a.safetensors")
    assert (record["test"], record["class_names"]) == (8, ["cat", "dog"])
    for split in ("train", "val", "test"):
        check(tmp_path / "a.safetensors", split, x, (y == "dog").astype(int))


def test_dictionaries_and_small_numbers_are_labels(tmp_path: Path) -> None:
    x, y = pictures(40), np.arange(40) % 4
    content = columns(x, y)
    content["label"] = pa.array([f"c{each}" for each in y]).dictionary_encode()
    written(tmp_path / "a.parquet", content)
    assert made(tmp_path / "a.parquet", tmp_path / "a.safetensors")["class_names"] == ["c0", "c1", "c2", "c3"]
    written(tmp_path / "b.parquet", columns(x, y.astype(np.int8)))
    assert made(tmp_path / "b.parquet", tmp_path / "b.safetensors")["class_names"] == ["0", "1", "2", "3"]
    check(tmp_path / "b.safetensors", "train", x, y)


def test_gray_stays_gray_and_among_colours_becomes_one(tmp_path: Path) -> None:
    gray, y = pictures(30, shape=(6, 5)), np.arange(30) % 2
    written(tmp_path / "gray" / "train.parquet", columns(gray, y))
    written(tmp_path / "gray" / "test.parquet", columns(gray[:6] ^ 1, y[:6]))
    made(tmp_path / "gray", tmp_path / "a.safetensors")
    check(tmp_path / "a.safetensors", "train", gray, y)
    check(tmp_path / "a.safetensors", "test", gray[:6] ^ 1, y)
    colours = np.repeat(gray[..., None], 3, 3)
    colours[9] = pictures(1)[0]
    content = columns(gray, y)
    files = [png(colours[i] if i == 9 else each) for i, each in enumerate(gray)]
    content["img"] = pa.array([{"bytes": each, "path": "x.png"} for each in files], FILE)
    written(tmp_path / "mixed" / "train.parquet", content)
    written(tmp_path / "mixed" / "test.parquet", columns(gray[:6] ^ 1, y[:6]))
    made(tmp_path / "mixed", tmp_path / "b.safetensors")
    check(tmp_path / "b.safetensors", "train", colours, y)
    check(tmp_path / "b.safetensors", "test", np.repeat(gray[:6, ..., None] ^ 1, 3, 3), y)


def test_size_makes_all_images_equally_large(tmp_path: Path) -> None:
    content = columns(pictures(20), np.arange(20) % 2)
    other = [png(pictures(1, i, (8, 8, 3))[0], "JPEG", quality=90) for i in range(20)]
    content["img"] = pa.array([{"bytes": each, "path": None} for each in other], FILE)
    mixed = pa.concat_tables([pa.table(content), pa.table(columns(pictures(20), np.arange(20) % 2))])
    pq.write_table(mixed, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a.parquet: row 20: 5x6 pixels, expected 8x8 like the others; pass --size N"):
        made(tmp_path / "a.parquet", tmp_path / "a.safetensors")
    made(tmp_path / "a.parquet", tmp_path / "a.safetensors", size=4)
    assert open_data(tmp_path / "a.safetensors").split("train").images.shape[1:] == (3, 4, 4)


def hugging_face_cifar(folder: Path, batch: int, test: int, classes: int) -> Path:
    """The images of `cifar10_python` or `cifar100_python` as Hugging Face has them."""
    for split, n, seed in (("train", batch, 0), ("test", test, 1)):
        images, labels = images_and_labels(n, classes, seed)
        x = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        names = {"label": CIFAR10_NAMES}
        content = columns(x, labels)
        if classes == 100:
            content = columns(x, labels, label="fine_label") | {"coarse_label": pa.array((labels % 20).tolist())}
            names = {"fine_label": [f"fine{i}" for i in range(100)], "coarse_label": [f"coarse{i}" for i in range(20)]}
        written(folder / f"{split}-00000-of-00001.parquet", content, names)
    return folder


def test_cifar10_has_the_name_that_its_archive_has(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar.gz", "cifar-10-batches-py", cifar10_python(40, 60))
    source = hugging_face_cifar(tmp_path / "made", 200, 60, 10)
    records = [made(each, tmp_path / "a.safetensors", "cifar10", val=20) for each in (archive, source)]
    assert records[0]["sha256"] == records[1]["sha256"] and not records[1]["official"]
    assert open_data(tmp_path / "a.safetensors").mean == [0.4914, 0.4822, 0.4465]


def test_cifar100_has_fine_labels_unless_coarse_ones_are_asked_for(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar.gz", "cifar-100-python", cifar100_python(400, 200))
    source = hugging_face_cifar(tmp_path / "made", 400, 200, 100)
    records = [made(each, tmp_path / "a.safetensors", "cifar100", val=20) for each in (archive, source)]
    assert records[0]["sha256"] == records[1]["sha256"]
    coarse = made(source, tmp_path / "b.safetensors", "cifar100", val=20, labels=["coarse_label"])
    assert coarse["class_names"] == [f"coarse{i}" for i in range(20)]
    _, labels = images_and_labels(400, 100)
    found = open_data(tmp_path / "b.safetensors").split("train")
    assert np.array_equal(found.labels, labels[found.index] % 20)


def test_tiny_imagenet_is_tested_on_valid(tmp_path: Path) -> None:
    names, y = [f"n{i:08d}" for i in range(200)], np.arange(400) % 200
    x, its = pictures(400, shape=(64, 64, 3)), np.arange(200)
    x[5] = x[5, :, :, :1]  # gray, as some are
    written(tmp_path / "made" / "train-00000-of-00001.parquet", columns(x, y, "image"), {"label": names})
    written(tmp_path / "made" / "valid-00000-of-00001.parquet", columns(x[:200] ^ 1, its, "image"), {"label": names})
    record = made(tmp_path / "made", tmp_path / "a.safetensors", "tiny-imagenet", val=40)
    assert (record["train"], record["val"], record["test"], record["classes"]) == (360, 40, 200, 200)
    check(tmp_path / "a.safetensors", "train", x, y)
    check(tmp_path / "a.safetensors", "test", x[:200] ^ 1, its)


X, Y = pictures(20), np.arange(20) % 2
GOOD = columns(X, Y)
DEEP = png(X[0, :, :, 0].astype(np.uint16))
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no images": ({"a": [1, 2], "label": [0, 1]}, "no images in the columns a (int64), label (int64); expected"),
    "no labels": (
        {"name": [0] * 20, "img": GOOD["img"]},
        "no labels in the columns name (int64), img (struct<bytes: binary, path: string>); expected one named label; "
        "pass --labels NAME",
    ),
    "pixels": (
        {"image": X.tolist(), "label": [0] * 20},
        "no images in the columns image (list<element: list<element: list<element), label (int64); expected image",
    ),
    "fractions": ({**GOOD, "label": [0.0] * 20}, "column label is double, expected one integer or text per image; con"),
    "identifiers": ({**GOOD, "label": pa.array([0, 2**63] * 10, pa.uint64())}, "train labels: 9223372036854775808, ex"),
    "two images": ({"mask": GOOD["img"], **GOOD}, "columns mask, img may each be the images; keep one"),
    "two labels": ({**GOOD, "label_2": [0] * 20}, "columns label, label_2 may each be the labels; pass --labels NAME"),
    "paths": ({**GOOD, "img": pa.array([{"bytes": None, "path": "a.png"}] * 20, FILE)}, "row 0 has no image data, at"),
    "no label": ({**GOOD, "label": [0] * 19 + [None]}, "train row 19 has no label; remove such rows, or"),
    "hidden labels": (
        {**GOOD, "label": [-1] * 20},
        "train row 0 has the label '-1', which train does not have; remove such rows",
    ),
    "torn": ({**GOOD, "img": pa.array([{"bytes": png(X[0])[:60]}] * 20, FILE)}, "row 0: a corrupt image; remove it"),
    "sixteen bits": (
        {**GOOD, "img": pa.array([{"bytes": png(X[0, :, :, 0].astype(np.uint16))}] * 20, FILE)},
        "row 0: ",
    ),
    "no rows": ({**GOOD, "img": GOOD["img"][:0], "label": GOOD["label"][:0]}, "no rows in its parquet files; check"),
}


@pytest.mark.parametrize("case", WRONG)
def test_invalid_tables_are_one_line_errors(tmp_path: Path, case: str) -> None:
    content, expected = WRONG[case]
    written(tmp_path / "a.parquet", content)
    with pytest.raises(InputError) as error:
        made(tmp_path / "a.parquet", tmp_path / "a.safetensors")
    assert expected in str(error.value) and str(error.value).startswith(str(tmp_path / "a.parquet"))
    assert "\n" not in str(error.value)


def test_several_labels_an_image_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", {"img": GOOD["img"], "labels": pa.array([[0, 1]] * 20)})
    for asked in ([], ["labels"]):
        with pytest.raises(InputError, match=r"column labels is list<.*>, expected one integer or text"):
            made(tmp_path / "a.parquet", tmp_path / "a.safetensors", labels=asked)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([GOOD["img"], Y, Y], ["img", "label", "label"]), tmp_path / "a.parquet")
    for asked in ([], ["label"]):
        with pytest.raises(InputError, match="a.parquet: columns label, label may each be the labels; pass"):
            made(tmp_path / "a.parquet", tmp_path / "a.safetensors", labels=asked)


def test_splits_are_of_one_data_set(tmp_path: Path) -> None:
    written(tmp_path / "made" / "train.parquet", GOOD, {"label": ["a", "b"]})
    written(tmp_path / "made" / "test.parquet", GOOD, {"label": ["b", "a"]})
    with pytest.raises(InputError, match="its splits differ in columns or classes; give one dataset"):
        made(tmp_path / "made", tmp_path / "a.safetensors")
    written(tmp_path / "texts" / "train.parquet", {**GOOD, "label": ["x", "y"] * 10})
    written(tmp_path / "texts" / "test.parquet", GOOD)
    with pytest.raises(InputError, match="its splits differ in columns or classes; give one dataset"):
        made(tmp_path / "texts", tmp_path / "a.safetensors")
    written(tmp_path / "made" / "test.parquet", columns(pictures(9, shape=(8, 8, 3)), Y[:9]), {"label": ["a", "b"]})
    with pytest.raises(InputError, match=r"test.parquet: row 0: 8x8 pixels, expected 5x6 like the others"):
        made(tmp_path / "made", tmp_path / "a.safetensors")


def test_folders_of_several_data_sets_are_not_joined(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("small", "large"):
            written(tmp_path / "made" / name / f"{split}-00000-of-00001.parquet", GOOD)
    with pytest.raises(InputError, match="made: test is in two folders, large/ and small/; give one dataset"):
        made(tmp_path / "made", tmp_path / "a.safetensors")
    assert made(tmp_path / "made" / "small", tmp_path / "a.safetensors")["classes"] == 2


def test_useless_metadata_are_ignored(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"info": 3}', '{"info": {"features": {"label": {"names": [1]}}}}', "[" * 9000):
        table = pa.table(GOOD).replace_schema_metadata({"huggingface": text})
        pq.write_table(table, tmp_path / "a.parquet")
        assert made(tmp_path / "a.parquet", tmp_path / "a.safetensors", force=True)["class_names"] == ["0", "1"]


def test_without_pyarrow_one_line_says_what_is_missing(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "a.parquet", GOOD)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = call("prepare-data", "folder", "--from", "a.parquet", check=2)
    expected = "a.parquet: parquet needs pyarrow, which is not installed; pip install pyarrow"
    assert said.line == f"bsk: {expected}"


def test_other_files_of_that_name_are_named(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "train.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(InputError, match="train.parquet: a Git LFS pointer instead of the file, .*git lfs pull"):
        made(tmp_path / "made", tmp_path / "a.safetensors")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("train.parquet", b"PAR1")
    with pytest.raises(InputError, match="a.zip: parquet files in an archive; unpack it and give the folder"):
        made(tmp_path / "a.zip", tmp_path / "a.safetensors")


def test_small_files_do_not_become_large(tmp_path: Path) -> None:
    """Neither repeated values in a column nor pictures of one colour."""
    big = png(np.zeros((2000, 2000), np.uint8))
    written(tmp_path / "a.parquet", {"img": pa.array([{"bytes": big}] * 400, FILE), "label": [0, 1] * 200})
    with pytest.raises(InputError, match="400 images of 2000x2000 pixels from such small files are refused"):
        made(tmp_path / "a.parquet", tmp_path / "a.safetensors")
    padded = png(X[0]) + bytes(100_000)
    content = {"img": pa.array([{"bytes": padded}] * 2000, FILE), "label": [0, 1] * 1000}
    written(tmp_path / "b.parquet", content, use_dictionary=False, compression="zstd")
    with pytest.raises(InputError, match="b.parquet: expands to an unreasonable size"):
        made(tmp_path / "b.parquet", tmp_path / "a.safetensors")


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    whole, random = written(tmp_path / "a.parquet", GOOD).read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        (tmp_path / "b.parquet").write_bytes(whole[: random.integers(5, len(whole))])
        with pytest.raises(BskError) as error:
            made(tmp_path / "b.parquet", tmp_path / "a.safetensors")
        assert "\n" not in str(error.value)


def test_memory_stays_within_the_data_and_a_piece(tmp_path: Path) -> None:
    x, y = pictures(3000, shape=(32, 32, 3)), np.arange(3000) % 10
    written(tmp_path / "a.parquet", columns(x, y), row_group_size=3000)
    del x
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    made(tmp_path / "a.parquet", tmp_path / "a.safetensors")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * (tmp_path / "a.safetensors").stat().st_size
    assert pa.total_allocated_bytes() - before < 1 << 20
