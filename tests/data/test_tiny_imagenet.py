from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from made_archives import unpacked
from PIL import Image
from safetensors.numpy import load_file

from bsk.data.sources import prepare
from bsk.data.store import open_data
from bsk.errors import InputError

WNIDS = ["n03", "n01", "n02"]  # not sorted, as in the official list


def picture(value: int, mode: str = "RGB", size: tuple[int, int] = (64, 64), kind: str = "JPEG") -> bytes:
    colour: int | tuple[int, ...] = value if mode == "L" else (value, value // 2, 255 - value)
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, kind)
    return file.getvalue()


def tiny(per_class: int = 4) -> dict[str, bytes]:
    files = {"wnids.txt": "\n".join([*WNIDS, ""]).encode(), "words.txt": b"n01\tfish\n"}
    for i, wnid in enumerate(sorted(WNIDS)):
        for j in range(per_class):
            mode = "L" if j == 1 else "RGB"
            files[f"train/{wnid}/images/{wnid}_{j}.JPEG"] = picture(80 * i + 5 * j, mode)
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"x\t0\t0\t1\t1\n"
    lines = []
    for j, wnid in enumerate(WNIDS * 2):
        files[f"val/images/val_{j}.JPEG"] = picture(10 * j + 3)
        lines.append(f"val_{j}.JPEG\t{wnid}\t0\t0\t63\t63\n")
    files["val/val_annotations.txt"] = "".join(lines).encode()
    files["test/images/test_0.JPEG"] = picture(1)
    return files


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"tiny-imagenet-200/{name}", content)
    return path


def test_zip_and_folder_give_the_same(tmp_path: Path) -> None:
    record = prepare("tiny-imagenet", str(zipped(tmp_path / "t.zip", tiny())), tmp_path / "a.safetensors")
    folder = unpacked(tmp_path / "tiny-imagenet-200", dict(reversed(tiny().items())))
    prepare("tiny-imagenet", str(folder), tmp_path / "b.safetensors")
    a, b = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert (record["train"], record["val"], record["test"], record["classes"]) == (11, 1, 6, 3)
    data = open_data(tmp_path / "a.safetensors")
    assert (data.classes, data.augment, data.model) == (["n01", "n02", "n03"], "flip", "resnet50")
    assert data.mean == [0.485, 0.456, 0.406]


def test_the_test_split_follows_the_annotations(tmp_path: Path) -> None:
    prepare("tiny-imagenet", str(unpacked(tmp_path / "t", tiny())), tmp_path / "a.safetensors")
    split = open_data(tmp_path / "a.safetensors").split("test")
    assert [sorted(WNIDS)[label] for label in split.labels] == [(WNIDS * 2)[row] for row in split.index]
    for image, row in zip(split.images.numpy(), split.index.tolist(), strict=True):
        assert abs(int(image[0].mean()) - (10 * row + 3)) <= 2


def test_a_grayscale_image_becomes_rgb(tmp_path: Path) -> None:
    prepare("tiny-imagenet", str(unpacked(tmp_path / "t", tiny())), tmp_path / "a.safetensors")
    data = load_file(tmp_path / "a.safetensors")
    images = dict(zip(data["train_index"].tolist(), data["train_images"], strict=True))
    images |= dict(zip(data["val_index"].tolist(), data["val_images"], strict=True))
    assert np.array_equal(images[1][0], images[1][2])  # the second image of the first class
    assert not np.array_equal(images[0][0], images[0][2])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"wnids.txt": None},
            "no Tiny ImageNet in its 19 .jpeg, 5 .txt files, expected wnids.txt and val/val_annotations.txt",
        ),
        ({"val/images/val_2.JPEG": None}, "val/images/val_2.JPEG is missing"),
        ({"val/val_annotations.txt": b"val_0.JPEG\n"}, "val_annotations.txt:1: expected a name, a tab and a class"),
        ({"val/val_annotations.txt": b"val_0.JPEG\tn09\t0\n"}, "class n09 is not in wnids.txt"),
        ({"val/val_annotations.txt": b"../../x\tn01\t0\n"}, "val/images/../../x is missing"),
        ({"val/val_annotations.txt": b""}, "no train or no val images"),
        ({"wnids.txt": b"n01\nn02\n"}, "class n03 is not in wnids.txt"),
        ({"train/n02/images/n02_1.JPEG": b"no image"}, "n02_1.JPEG: not an image"),
        ({"train/n02/images/n02_1.JPEG": picture(9)[:400]}, "n02_1.JPEG: a corrupt image"),
        ({"train/n02/images/n02_1.JPEG": picture(9, size=(32, 64))}, "32x64 pixels, expected 64x64 like"),
    ],
)
def test_what_is_missing_or_broken(tmp_path: Path, change: dict[str, bytes | None], expected: str) -> None:
    files = {name: content for name, content in (tiny() | change).items() if content is not None}
    folder = unpacked(tmp_path / "t", files)
    with pytest.raises(InputError) as caught:
        prepare("tiny-imagenet", str(folder), tmp_path / "a.safetensors")
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(folder))
    assert not (tmp_path / "a.safetensors").exists()


def test_real_images(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "tiny-imagenet-200-subset.zip"
    if not source.exists():
        pytest.skip("no Tiny ImageNet")
    few = tmp_path / "few.zip"  # 10 classes of it, for time
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(few, "w") as part:
        kept = whole.read("tiny-imagenet-200/wnids.txt").decode().split()[:10]
        lines = whole.read("tiny-imagenet-200/val/val_annotations.txt").decode().splitlines()
        lines = [line for line in lines if line.split("\t")[1] in kept]
        names = [each for each in whole.namelist() if each.endswith(".JPEG") and each.split("/")[2] in kept]
        names += [f"tiny-imagenet-200/val/images/{line.split()[0]}" for line in lines]
        for name in names:
            part.writestr(name, whole.read(name))
        part.writestr("tiny-imagenet-200/wnids.txt", "\n".join(kept))
        part.writestr("tiny-imagenet-200/val/val_annotations.txt", "\n".join(lines))
        first = np.asarray(Image.open(io.BytesIO(whole.read(names[-1]))).convert("RGB"))
    record = prepare("tiny-imagenet", str(few), tmp_path / "a.safetensors")
    assert (record["train"], record["val"], record["test"]) == (450, 50, 100)
    data = open_data(tmp_path / "a.safetensors")
    assert np.bincount(data.split("train").labels).tolist() == [45] * 10
    split = data.split("test")
    assert np.bincount(split.labels).tolist() == [10] * 10
    place = split.index.tolist().index(99)
    assert np.array_equal(split.images[place].permute(1, 2, 0), first)
    assert data.classes[split.labels[place]] == lines[-1].split("\t")[1]
