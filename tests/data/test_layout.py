"""Typical folder layouts: which folders are splits, which are classes, and which are neither."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from made_archives import cifar10_python, cifar100_binary, unpacked
from PIL import Image

from bsk.data.formats.layout import split_of
from bsk.data.sources import prepare
from bsk.data.store import DataFile, open_data
from bsk.errors import InputError, UsageError

CLASSES = ("bird", "cat", "dog")


def png(seed: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)).save(file, kind)
    return file.getvalue()


def images(at: str = "", n: int = 5, classes: tuple[str, ...] = CLASSES) -> dict[str, bytes]:
    start = sum(at.encode()) * 100  # other images in another folder
    return {f"{at}{name}/{i}.png": png(start + 10 * k + i) for k, name in enumerate(classes) for i in range(n)}


def made(tmp_path: Path, files: dict[str, bytes], said: list[str] | None = None, **more: str) -> DataFile:
    tmp_path.mkdir(exist_ok=True)
    out = tmp_path / "out.safetensors"
    source = unpacked(tmp_path / "in", files)
    source.mkdir(exist_ok=True)
    prepare("folder", str(source), out, notice=None if said is None else said.append, **more)
    return open_data(out)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (
            "train",
            "train Train TRAIN training Training train_set train-set trainset TrainSet seg_train train2017",
        ),
        ("train", "trainingData Training_Images trainLabels asl_alphabet_train training-set trn train.1"),
        ("val", "val valid Validation validation_set dev devset VAL val2017 seg_val valImages"),
        (
            "test",
            "test Testing test_set seg_test TEST testset evaluation eval_images PublicTest Holdout",
        ),
        (
            None,
            "cat trainer contest latest testament valley devil attest train_val trainval strain data set images 2017",
        ),
    ],
)
def test_names_of_splits_in_any_usual_spelling(split: str | None, names: str) -> None:
    assert {name: split_of(name) for name in names.split()} == dict.fromkeys(names.split(), split)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("train_set", "test_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("TRAIN", "TEST"),
    ],
)
def test_folders_for_train_and_test(tmp_path: Path, train: str, test: str) -> None:
    data = made(tmp_path, images(f"{train}/") | images(f"{test}/", 2) | images("seg_pred/", 1, ("seg_pred",)))
    assert (data.classes, data.counts) == (list(CLASSES), {"train": 14, "val": 1, "test": 6})


@pytest.mark.parametrize("val", ["val", "Validation", "valid", "dev"])
def test_a_val_folder_is_the_val_split(tmp_path: Path, val: str) -> None:
    files = images("training/") | images(f"{val}/", 3)
    three = made(tmp_path / "a", files | images("test/", 2))
    assert (three.classes, three.counts) == (list(CLASSES), {"train": 15, "val": 9, "test": 6})
    assert three.val_rule == "the source's own"
    two = made(tmp_path / "b", files)
    assert two.counts == {"train": 12, "val": 9, "test": 3}
    assert two.split("val").images.equal(three.split("val").images)
    tested = made(tmp_path / "c", files, test_split="val")
    assert tested.counts == {"train": 14, "val": 1, "test": 9}
    assert tested.split("test").images.equal(three.split("val").images)
    assert made(tmp_path / "d", files | images("test/", 2), test_split="val").sha256 == tested.sha256


def test_data_to_evaluate_on_have_no_train_split(tmp_path: Path) -> None:
    said: list[str] = []
    data = made(tmp_path / "a", images("test/"), said)
    assert (data.classes, data.counts) == (list(CLASSES), {"train": 0, "val": 0, "test": 15})
    assert f"{tmp_path / 'a/in'}: has no train split, so the data are for evaluation only" in said
    with pytest.raises(InputError, match="no train examples \\(it has 0 train, 0 val, 15 test"):
        data.split("train")
    both = made(tmp_path / "b", images("val/", 2) | images("Testing/"))
    assert both.counts == {"train": 0, "val": 6, "test": 15}
    assert both.split("test").images.equal(data.split("test").images) is False
    with pytest.raises(InputError, match="has only a val split; pass --test-split val"):
        made(tmp_path / "c", images("val/"))
    assert made(tmp_path / "c", images("val/"), test_split="val").counts == {"train": 0, "val": 0, "test": 15}


def test_all_images_are_train_images_except_those_of_other_splits(tmp_path: Path) -> None:
    said: list[str] = []
    files = images("train/") | images("val/", 2)
    for other, left in ({}, "6 val"), (images("test/", 1), "6 val and 3 test"):
        data = made(tmp_path / left, files | other, said, test_split="none")
        assert data.counts == {"train": 15, "val": 0, "test": 0}
        there = f"{tmp_path / left / 'in'}: without its {left} images, all are train images; use them with bsk train"
        assert said[-2].startswith(there)
    made(tmp_path / "train", images("train/"), said, test_split="none")
    assert f"{tmp_path / 'train/in'}: all images are train images; use them with bsk train --extra" in said
    with pytest.raises(UsageError, match="--test-split none: .* has no train split; leave it out"):
        made(tmp_path / "test", images("test/"), test_split="none")


@pytest.mark.parametrize("flag", ["val", "train_limit"])
def test_numbers_of_train_images_need_a_train_split(tmp_path: Path, flag: str) -> None:
    with pytest.raises(UsageError, match=f"--{flag.replace('_', '-')} 3: .* has no train split; leave --"):
        made(tmp_path, images("test/"), **{flag: 3})


def test_a_requested_val_split_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--test-split val: .* has no val split; leave it out"):
        made(tmp_path, images("train/") | images("test/"), test_split="val")
    np.savez(tmp_path / "a.npz", x_test=np.zeros((9, 8, 8), np.uint8), y_test=np.arange(9) % 2)
    with pytest.raises(UsageError, match=r"--test-split val: .*a.npz has no val split; leave it out"):
        prepare("folder", str(tmp_path / "a.npz"), tmp_path / "a.safetensors", test_split="val")
    with pytest.raises(UsageError, match=r"--test-split val: .*only/in has no val split; leave it out"):
        made(tmp_path / "only", images("in/test/"), test_split="val")
    with pytest.raises(UsageError, match="--test-split dev: no such test-split"):
        made(tmp_path, images("train/"), test_split="dev")


def test_train_alone_gives_a_fifth_to_test(tmp_path: Path) -> None:
    said: list[str] = []
    assert made(tmp_path, images("Training/"), said).counts == {"train": 11, "val": 1, "test": 3}
    assert f"{tmp_path / 'in'}: has no test split; 3 of 15 images become test" in said


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            images("photo/") | images("sketch/"),
            "photo/ and sketch/ have the same subfolders bird, cat, dog, so they are not classes",
        ),
        (
            images("cat/", classes=("train", "test")) | images("dog/", classes=("train", "test")),
            "cat/ and dog/ have the same subfolders test, train",
        ),
        (images("test-tube/") | images("beaker/") | images("flask/"), "have the same subfolders bird, cat, dog"),
        (images("test-tube/") | images("beaker/"), "test-tube/ next to beaker/ may be a split or a class; rename one"),
        (images("train/", classes=("cat",)) | images("other/"), "train/ next to other/ may be a split or a class"),
        (
            images("train/") | images("Training/") | images("test/"),
            "both indicate train; remove or rename one",
        ),
        (images("", classes=("train", "test")), "images in 0 class folders, expected 2 or more: "),
        (images("", classes=("train", "test", "sample")), "images in 0 class folders, expected 2 or more: "),
        (
            images("", classes=("Training", "valid")) | {"labels.csv": b"id,label\n"},
            "pass --labels FILE.csv (such as labels.csv)",
        ),
        (images("", classes=("train", "unlabelled")), "expected 2 or more: train/0.png is in none; sort them"),
        (images("test/", classes=("",)), "images in 0 class folders, expected 2 or more"),
        (images() | {"fish/0.heic": b"x"}, "fish/: no supported image, expected .png .jpg"),
        (
            images("train/") | images("test/") | {"train/fish/0.avi": b"x", "test/fish/0.avi": b"x"},
            "train/fish/: no supported image",
        ),
        (images("train/") | images("test/") | {"test/fish/0.avi": b"x"}, "test/fish/: no supported image"),
    ],
)
def test_other_folders_are_one_line_errors(tmp_path: Path, files: dict[str, bytes], expected: str) -> None:
    files = {name.replace("//", "/"): content for name, content in files.items()}
    with pytest.raises(InputError) as caught:
        made(tmp_path, files)
    message = str(caught.value)
    assert expected in message
    assert message.startswith(str(tmp_path / "in"))
    assert "\n" not in message
    assert "; " in message


def test_classes_may_be_named_like_splits_and_have_folders_of_one_name(tmp_path: Path) -> None:
    vehicles = ("bus", "car", "train")
    assert made(tmp_path / "a", images(classes=vehicles)).classes == list(vehicles)
    deep = {name.replace("/", "/images/"): content for name, content in images(classes=vehicles).items()}
    assert made(tmp_path / "b", deep).classes == list(vehicles)
    assert made(tmp_path / "c", deep).sha256 == made(tmp_path / "d", images(classes=vehicles)).sha256


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "in" / split / "fish").mkdir(parents=True)
    files = images("train/") | images("test/")
    with pytest.raises(InputError, match=r"train/fish/: no supported image"):
        made(tmp_path, files)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "in", arcname="x")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.mkdir("x/train/fish")
        for name, content in files.items():
            packed.writestr(f"x/{name}", content)
    for name in ("x.tar", "x.zip"):
        with pytest.raises(InputError, match=re.escape(f"{name}: train/fish/: no supported image")):
            prepare("folder", str(tmp_path / name), tmp_path / "out.safetensors")


def test_a_folder_of_classes_beside_others_is_advised(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"in: parts/: no supported image, expected .*; give only images/"):
        made(tmp_path, images("images/") | {"parts/parts.txt": b"1", "classes.txt": b"1 bird"})


def test_every_usual_ending_of_jpeg_is_read(tmp_path: Path) -> None:
    files = images("train/") | images("test/")
    for i, end in enumerate(("jfif", "JFIF", "jpe", "jpg", "JPEG")):
        files |= {f"{split}/fish/{i}.{end}": png(9000 + i + len(split), "JPEG") for split in ("train", "test")}
    data = made(tmp_path, files)
    assert (data.classes, data.counts["test"]) == ([*CLASSES, "fish"], 20)


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    said: list[str] = []
    made(tmp_path, images("train/") | images("test/") | images("extra/", 2) | {"notes.txt": b"x"}, said)
    assert f"{tmp_path / 'in'}: 7 other files are ignored (extra/)" in said
    assert f"{tmp_path / 'in'}: classes bird, cat, dog" in said


def test_names_that_begin_with_a_dot_or_have_backslashes(tmp_path: Path) -> None:
    files = images("train/") | images("test/", 2)
    plain = made(tmp_path, files)
    for mode, arcname in (("w:gz", "."), ("w", "./")):
        with tarfile.open(tmp_path / "x.tar", mode) as archive:
            archive.add(tmp_path / "in", arcname=arcname)
        prepare("folder", str(tmp_path / "x.tar"), tmp_path / "a.safetensors")
        assert open_data(tmp_path / "a.safetensors").sha256 == plain.sha256
    for start, slash in (("./", "/"), ("", "\\"), (".\\x\\", "\\")):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
            for name, content in files.items():
                packed.writestr(start + name.replace("/", slash), content)
        prepare("folder", str(tmp_path / "x.zip"), tmp_path / "a.safetensors")
        assert open_data(tmp_path / "a.safetensors").sha256 == plain.sha256


@pytest.mark.parametrize(
    ("start", "found", "advice"),
    [
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and give the folder"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "save its arrays with numpy.savez"),
        (b"MATLAB 5.0 MAT-file, ", "a MATLAB file", "save its arrays with numpy.savez"),
        (b"\x80\x04\x95", "a pickle, which could run code", "save its arrays with numpy.savez"),
        (b"\x00\x00\x08\x03", "an image file in MNIST's IDX format", "save images and labels with numpy.savez"),
        (b"\x89PNG\r\n\x1a\n", "a single image", "give a folder with one subfolder of images per class"),
        (b"ARROW1\x00\x00", "an Arrow file", "save it as parquet"),
        (b"of no kind", "an unknown kind of file", "unpack it and give the folder"),
        (b'\x28\0\0\0\0\0\0\0{"x":', "a safetensors file", "pass it with --data if prepare-data wrote it"),
        (b"version https://git-lfs.github.com/", "a Git LFS pointer instead of the file", "fetch it with git lfs pull"),
        (
            gzip.compress(b"\0\0\x08\x03" + bytes(99), mtime=0),
            "an image file in MNIST's IDX format",
            "save images and labels with nu",
        ),
    ],
)
@pytest.mark.parametrize("name", ["folder", "cifar10", "tiny-imagenet"])
def test_a_whole_file_of_another_kind_is_named(
    tmp_path: Path, name: str, start: bytes, found: str, advice: str
) -> None:
    (tmp_path / "x").write_bytes(start + bytes(600))
    with pytest.raises(InputError) as error:
        prepare(name, str(tmp_path / "x"), tmp_path / "a.safetensors")
    expected = "a .tar.gz, .tar or .zip archive, .parquet, .npz or .npy"
    assert str(error.value).startswith(f"{tmp_path / 'x'}: {found}, expected {expected}; {advice}")


def test_a_text_or_a_file_of_torch_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,label\n1.png,2\n")
    with pytest.raises(InputError, match="a text file, expected .*; give the images, and tables of their labels with"):
        prepare("folder", str(tmp_path / "a.csv"), tmp_path / "a.safetensors")
    torch.save({"x": torch.zeros(3)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="a file of torch.save, which is a pickle and could run code; save its arrays"):
        prepare("cifar10", str(tmp_path / "a.pt"), tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (cifar10_python(10, 10), "in: holds cifar10; use: bsk prepare-data cifar10 --from "),
        (cifar100_binary(10, 10), "in: holds cifar100; use: bsk prepare-data cifar100 --from "),
        (
            images("train/")
            | {"val/images/1.png": png(1), "val/val_annotations.txt": b"1.png\tcat\n", "wnids.txt": b"cat"},
            "in: holds tiny-imagenet; use: bsk prepare-data tiny-imagenet --from ",
        ),
        (
            {"dataset_dict.json": b"{}", "train/data-00000-of-00001.arrow": b"\xff\xff\xff\xff\xb0"},
            "in: train/data-00000-of-00001.arrow: an Arrow file; save it as parquet",
        ),
        (
            {"train-labels-idx1-ubyte": b"\0\0\x08\x01", "x-images-idx3-ubyte": b"\0\0\x08\x03"},
            "in: train-labels-idx1-ubyte: a label file in MNIST's IDX format; save images and labels with numpy.savez",
        ),
    ],
)
def test_a_folder_of_a_known_dataset_or_kind_is_named(tmp_path: Path, files: dict[str, bytes], expected: str) -> None:
    with pytest.raises(InputError, match=re.escape(expected)):
        made(tmp_path, files)


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_a_few_images_may_illustrate_other_files(tmp_path: Path, form: str) -> None:
    pixels, labels = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), np.uint8), np.arange(40) % 2
    source = unpacked(tmp_path / "in", {"figure.png": png(0)} | {f"assets/{i}.png": png(i) for i in range(8)})
    if form == "npz":
        np.savez(source / "train.npz", x=pixels, y=labels)
    else:
        table = pa.table({"image": [png(i) for i in range(40)], "label": labels})
        pq.write_table(table, source / "train.parquet")
    record = prepare("folder", str(source), tmp_path / "a.safetensors")
    assert (record["train"], record["val"], record["test"]) == (29, 3, 8)
    unpacked(source, {"cat/1.png": png(1)})
    assert prepare("folder", str(source), tmp_path / "b.safetensors")["class_names"] == ["assets", "cat"]
    unpacked(source / "many", {f"{i}.png": png(i) for i in range(10)})
    np.savez(source / "many" / "features.npz", x=pixels, y=labels)
    with pytest.raises(InputError, match="images in 0 class folders, .*: 0.png is in none"):
        prepare("folder", str(source / "many"), tmp_path / "c.safetensors")


def test_a_folder_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for i in range(3):
        (tmp_path / "x" / f"{i}.h5").write_bytes(b"x")
    (tmp_path / "x" / "labels.csv").write_bytes(b"x")
    with pytest.raises(InputError, match="images in 0 class folders, expected 2 or more, among 3 .h5, 1 .csv files; "):
        prepare("folder", str(tmp_path / "x"), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="no cifar10 in its 3 .h5, 1 .csv files, expected data_batch_1 and"):
        prepare("cifar10", str(tmp_path / "x"), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="no cifar10 in its 15 .png files, .*; use: bsk prepare-data folder --from "):
        prepare("cifar10", str(unpacked(tmp_path / "y", images())), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="no Tiny ImageNet in its 3 .h5, 1 .csv files, expected wnids.txt and"):
        prepare("tiny-imagenet", str(tmp_path / "x"), tmp_path / "a.safetensors")
