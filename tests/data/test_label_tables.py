"""Images without class folders, whose labels are in tables."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from made_archives import tarred, unpacked
from PIL import Image

from bsk.data.sources import prepare
from bsk.data.store import SPLITS, open_data
from bsk.errors import InputError, UsageError

CLASSES = ("bird", "cat", "dog")


def png(number: int) -> bytes:
    """An image whose first pixel is its number."""
    pixels = np.random.default_rng(number).integers(0, 256, (6, 5), np.uint8)
    pixels[0, 0] = number
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def flat(at: str = "", start: int = 0, n: int = 20) -> dict[str, bytes]:
    return {f"{at}{i}.png": png(start + i) for i in range(n)}


def table(rows: str = "{i},{name}", head: str = "id,label", n: int = 20, start: int = 0) -> bytes:
    lines = [rows.format(i=i, name=CLASSES[i % 3], number=i % 3) for i in range(start, start + n)]
    return "\n".join([*([head] if head else []), *lines, ""]).encode()


def labels_of(tmp_path: Path, files: dict[str, bytes], *tables: str, said: list[str] | None = None) -> dict[str, dict]:
    """Return for each split the label of each image, by its number."""
    source = unpacked(tmp_path / "in", files)
    out = tmp_path / "out.safetensors"
    prepare("folder", str(source), out, labels=tables, force=True, notice=None if said is None else said.append)
    data = open_data(out)
    splits = {name: data.split(name) for name in SPLITS if data.counts[name]}
    return {
        name: {int(image[0, 0, 0]): data.classes[label] for image, label in zip(s.images, s.labels, strict=True)}
        for name, s in splits.items()
    }


def whole(found: dict[str, dict]) -> dict[int, str]:
    return {number: label for split in found.values() for number, label in split.items()}


RIGHT = {i: CLASSES[i % 3] for i in range(20)}


@pytest.mark.parametrize(
    ("rows", "head"),
    [
        ("{i},{name}", "id,label"),
        ("{i}.png,{name}", "Image,Class"),
        ("{i}.png,{name}", "file_name,Category"),
        ("{name},{i}.png", "diagnosis,id_code"),
        ("train/{i}.png,{name}", "path,target"),
        ("../input/train/{i}.png,{name}", "filepath,breed"),
        ("{i},{name}", "ID,what it shows"),
        ("{i}.png;{name}", "image;label"),
        ("{i}.png\t{name}", "image\tlabel"),
        ("{i}.png {name}", "image label"),
        ("{i}.png|{name}", "image|label"),
        ('"{i}.png","{name}"', '"image","label"'),
        ("7,{i}.png,{i},{name}", "width,image,id,label"),
        ("{i}.png,{name}", ""),
        ("{i}.png,{name},x", "image,label,remark"),
    ],
)
def test_columns_by_their_usual_names(tmp_path: Path, rows: str, head: str) -> None:
    files = flat("train/") | {"labels.csv": b"\xef\xbb\xbf" + table(rows, head)}
    found = labels_of(tmp_path, files, "labels.csv")
    assert whole(found) == RIGHT
    assert {name: len(split) for name, split in found.items()} == {"train": 15, "val": 1, "test": 4}


def test_a_table_of_a_spreadsheet(tmp_path: Path) -> None:
    text = table("{i}.png\t{name}", "image\tlabel").decode().replace("\n", "\r\n")
    assert whole(labels_of(tmp_path, flat() | {"t.txt": text.encode("utf-16")}, "t.txt")) == RIGHT


def test_numbers_as_labels_are_not_taken_for_names_of_images(tmp_path: Path) -> None:
    found = labels_of(tmp_path, flat() | {"t.csv": table("{number},{i}", "level,image")}, "t.csv")
    assert whole(found) == {i: str(i % 3) for i in range(20)}
    lines = b"image,label\n" + b"".join(b"%d.png,%d\n" % (i, 9 + i % 2) for i in range(20))
    found = labels_of(tmp_path, flat() | {"t.csv": lines}, "t.csv")
    assert open_data(tmp_path / "out.safetensors").classes == ["9", "10"]
    assert whole(found) == {i: str(9 + i % 2) for i in range(20)}
    found = labels_of(tmp_path, flat() | {"t.csv": table("{i}.png,{number}", "")}, "t.csv")
    assert whole(found) == {i: str(i % 3) for i in range(20)}
    with pytest.raises(InputError, match="t.csv: none of the columns id, label names images"):
        labels_of(tmp_path, flat() | {"t.csv": table("00{i},{number}")}, "t.csv")


def test_numbers_as_labels_are_classes_in_their_order(tmp_path: Path) -> None:
    for end in ("", ".0"):
        lines = "id,label\n" + "".join(f"{i},{i % 12}{end}\n" for i in range(20))
        labels_of(tmp_path, flat() | {"t.csv": lines.encode()}, "t.csv")
        assert open_data(tmp_path / "out.safetensors").classes == [f"{i}{end}" for i in range(12)]


def test_one_number_in_two_spellings_is_not_two_classes(tmp_path: Path) -> None:
    lines = "id,label\n" + "".join(f"{i},{i % 2}{'.0' if i > 9 else ''}\n" for i in range(20))
    with pytest.raises(InputError, match=r"the labels 0 and 0.0 are the same number; write it in one way"):
        labels_of(tmp_path, flat() | {"t.csv": lines.encode()}, "t.csv")


def test_a_split_that_is_none_is_refused_and_not_made_train(tmp_path: Path) -> None:
    rows = [f"{i},{CLASSES[i % 3]},{'test' if i > 13 else 'train' if i > 1 else ''}" for i in range(20)]
    with pytest.raises(InputError, match=r"t.csv:2: '' in column split is no split; write train, val or test"):
        labels_of(tmp_path, flat() | {"t.csv": "\n".join(["id,label,split", *rows]).encode()}, "t.csv")


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    said: list[str] = []
    labels_of(tmp_path, flat() | {"t.csv": table("{i},{name},{number}", "id,label,partition")}, "t.csv", said=said)
    assert any(line.endswith("t.csv: columns not used: partition") for line in said), said


def test_a_table_named_after_a_split_speaks_of_its_folder(tmp_path: Path) -> None:
    said: list[str] = []
    files = flat("train/") | flat("test/", 100) | {"trainLabels.csv": table()}
    assert whole(labels_of(tmp_path, files, "trainLabels.csv", said=said)) == RIGHT
    assert f"{tmp_path / 'in'}: 20 of 40 images have no label in the table" in said
    files["test_labels.csv"] = table("{i},{name}", n=9)
    found = labels_of(tmp_path, files, "trainLabels.csv", "test_labels.csv")
    assert found["test"] == {100 + i: CLASSES[i % 3] for i in range(9)}
    assert found["train"] | found["val"] == RIGHT


def test_a_column_may_say_which_split(tmp_path: Path) -> None:
    usage = ("Training", "Training", "Training", "Training", "PublicTest")
    rows = b"".join(b"%d,%s,%s\n" % (i, CLASSES[i % 3].encode(), usage[i % 5].encode()) for i in range(20))
    found = labels_of(tmp_path, flat() | {"all.csv": b"id,label,Usage\n" + rows}, "all.csv")
    assert sorted(found["test"]) == [4, 9, 14, 19]
    assert whole(found) == RIGHT


def test_the_table_lies_here_or_in_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    archive = tarred(tmp_path / "x.tar.gz", "x/y", flat("images/") | {"data/t.csv": table()})
    record = prepare("folder", str(archive), tmp_path / "a.safetensors", labels=["t.csv"])
    Path("mine.csv").write_bytes(table())
    assert (
        prepare("folder", str(archive), tmp_path / "a.safetensors", labels=["mine.csv"])["sha256"] == record["sha256"]
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (table("{i},{name},{number}", "id,label,class"), "columns label, class may each be the labels; keep one"),
        (table("{i},1,0,0", "image,MEL,NV,BCC"), "columns MEL, NV, BCC may each be the labels"),
        (table("{i}", "image"), "no column besides image for the labels"),
        (table("{i},{number},{name}", "a,b,c"), "columns a, b may each name the images; keep one, named image"),
        (table("x{i},{name}", "id,label"), "none of the columns id, label names images of --from"),
        (table(n=22), "t.csv:22: no image 20 (2 of 22 are missing)"),
        (table() + b"3,dog\n", "t.csv:22: 3.png has two labels, bird and dog"),
        (table() + b"3\n", "t.csv:22: 1 columns, expected 2"),
        (table().replace(b"\n5,dog", b"\n5,"), "t.csv:7: no label for 5.png"),
        (b"PK\x03\x04\xff", "t.csv: is not text in UTF-8; save the table as CSV in UTF-8"),
        (table("{i},caf\xe9").decode().encode("latin-1"), "t.csv: is not text in UTF-8; save"),
        (b"", "t.csv: none of the columns  names images"),
        (b'"i\nd",label\n"x\ny",dog\n', r"t.csv: none of the columns 'i\nd', label names images"),
        (b'id,label\n"' + b"x" * 200_000, "t.csv:2: cannot be read"),
    ],
)
def test_ambiguous_tables_are_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        labels_of(tmp_path, flat() | {"t.csv": content}, "t.csv")
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message
    assert "; " in message


def test_an_ambiguous_image_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t.csv:2: 0 may be a/0.png or b/0.png; add folder"):
        labels_of(tmp_path, flat("a/") | flat("b/", 100) | {"t.csv": table()}, "t.csv")
    found = labels_of(tmp_path, flat("a/") | flat("b/", 100) | {"t.csv": table("a/{i},{name}")}, "t.csv")
    assert whole(found) == RIGHT


def test_names_are_relative_to_the_folder_of_a_table(tmp_path: Path) -> None:
    """As in the metadata.csv of Hugging Face's image folders."""
    files = flat("train/") | flat("test/", 100, 9)
    files |= {"train/metadata.csv": table("{i}.png,{name}"), "test/metadata.csv": table("{i},{name}", n=9)}
    for start in ("", f"{tmp_path / 'in'}/"):
        found = labels_of(tmp_path, files, f"{start}train/metadata.csv", f"{start}test/metadata.csv")
        assert found["test"] == {100 + i: CLASSES[i % 3] for i in range(9)}
        assert found["train"] | found["val"] == RIGHT


def test_tables_must_exist_and_are_only_for_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--labels no.csv: 0 such files here and in .*; give its path"):
        labels_of(tmp_path, flat(), "no.csv")
    with pytest.raises(UsageError, match="--labels: digits has labels and a fixed image size"):
        prepare("digits", None, tmp_path / "a.safetensors", labels=["t.csv"])
