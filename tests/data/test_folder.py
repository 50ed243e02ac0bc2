from __future__ import annotations

import io
import logging
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_archives import tarred, unpacked
from PIL import Image, ImageOps

from bsk.data.formats.folder import _around
from bsk.data.pictures import decode
from bsk.data.sources import prepare
from bsk.data.store import open_data
from bsk.data.tree import Tree
from bsk.errors import InputError, UsageError


def png(seed: int, shape: tuple[int, ...] = (6, 5, 3), kind: str = "PNG", mode: str | None = None) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


def classes(cats: int = 20, dogs: int = 20, shape: tuple[int, ...] = (6, 5, 3), at: str = "") -> dict[str, bytes]:
    files = {f"{at}cat/{i}.png": png(i, shape) for i in range(cats)}
    return files | {f"{at}dog/{i}.bmp": png(1000 + i, shape, "BMP") for i in range(dogs)}


def test_train_and_test_folders_are_the_splits(tmp_path: Path) -> None:
    files = classes(at="train/") | {f"test/dog/{i}.png": png(2000 + i) for i in range(4)}
    record = prepare("folder", str(unpacked(tmp_path / "x", files)), tmp_path / "a.safetensors")
    assert (record["train"], record["val"], record["test"], record["classes"]) == (36, 4, 4, 2)
    data = open_data(tmp_path / "a.safetensors")
    assert (data.classes, data.eps, data.augment, data.model) == (["cat", "dog"], 0.031, "crop-flip", "resnet18")
    split = data.split("train")
    names = sorted(name for name in files if name.startswith("train/"))
    for image, row, label in zip(split.images.numpy(), split.index.tolist(), split.labels.tolist(), strict=True):
        expected = np.asarray(Image.open(io.BytesIO(files[names[row]])))
        assert np.array_equal(image.transpose(1, 2, 0), expected)
        assert names[row].split("/")[1] == data.classes[label]
    pixels = split.images.numpy() / 255
    assert np.allclose(data.mean, pixels.mean((0, 2, 3)), atol=6e-5)
    assert np.allclose(data.std, pixels.std((0, 2, 3)), atol=6e-5)


def test_one_level_gives_a_fifth_to_test_whatever_holds_the_folders(tmp_path: Path) -> None:
    files = classes()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(f"outer/inner/{name}", content)
    said: list[str] = []
    sources = [tmp_path / "x.zip", unpacked(tmp_path / "x", files), tarred(tmp_path / "x.tar.gz", "outer", files)]
    found = []
    for source in sources:
        record = prepare("folder", str(source), tmp_path / "a.safetensors", val=4, notice=said.append)
        assert (record["train"], record["val"], record["test"]) == (28, 4, 8)
        data = open_data(tmp_path / "a.safetensors")
        assert np.bincount(data.split("test").labels).tolist() == [4, 4]
        assert np.bincount(data.split("val").labels).tolist() == [2, 2]
        found.append([data.split(name).index.tolist() for name in ("train", "val", "test")])
    assert found[0] == found[1] == found[2]
    assert sorted(sum(found[0], [])) == list(range(40))
    assert f"{sources[0]}: has no test split; 8 of 40 images become test" in said


def test_folders_in_folders_take_no_memory(tmp_path: Path) -> None:
    """At any depth, since names are shortened once."""
    deep = "d/" * 500
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, content in classes().items():
            archive.writestr(deep + name, content)
    tracemalloc.start()
    record = prepare("folder", str(tmp_path / "x.zip"), tmp_path / "a.safetensors", val=4)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert (record["train"], record["val"], record["test"], record["classes"]) == (28, 4, 8, 2)


PARTS = st.lists(st.sampled_from(["a", "b", ".h", "__MACOSX", "train", ""]), min_size=1, max_size=5)


@given(st.lists(PARTS.map(lambda parts: "/".join(["a", *parts][-5:])), max_size=4))
def test_common_parent_folders_are_ignored(names: list[str]) -> None:
    def seen(top: str) -> list[str]:
        inner = [name[len(top) :] for name in names if name.startswith(top)]
        return [name for name in inner if not name.startswith((".", "__MACOSX/"))]

    top = ""
    while len(firsts := {name.partition("/")[0] for name in seen(top)}) == 1:
        (first,) = firsts
        if first in seen(top):
            break
        top += f"{first}/"
    assert _around(names) == top


def test_a_small_class_keeps_training_images(tmp_path: Path) -> None:
    prepare("folder", str(unpacked(tmp_path / "x", classes(90, 3))), tmp_path / "a.safetensors")
    data = open_data(tmp_path / "a.safetensors")
    assert np.bincount(data.split("train").labels)[1] >= 1


def test_images_are_gray_unless_one_has_colour(tmp_path: Path) -> None:
    gray = classes(shape=(6, 5))
    prepare("folder", str(unpacked(tmp_path / "gray", gray)), tmp_path / "a.safetensors")
    data = open_data(tmp_path / "a.safetensors")
    assert data.split("train").images.shape[1:] == (1, 6, 5)
    assert len(data.mean) == 1
    mixed = gray | {"dog/2.png": png(7), "dog/3.png": png(8, (6, 5, 4)), "dog/4.gif": png(8, (6, 5), "GIF", "P")}
    prepare("folder", str(unpacked(tmp_path / "mixed", mixed)), tmp_path / "b.safetensors")
    data = open_data(tmp_path / "b.safetensors")
    names = sorted(mixed)
    for part in ("train", "val", "test"):
        split = data.split(part)
        assert split.images.shape[1:] == (3, 6, 5)
        for image, row in zip(split.images.numpy(), split.index.tolist(), strict=True):
            expected = np.asarray(Image.open(io.BytesIO(mixed[names[row]])).convert("RGB"))
            assert np.array_equal(image.transpose(1, 2, 0), expected)


def test_size_resizes_and_without_it_the_sizes_are_named(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "x", classes() | {"dog/5.png": png(5, (9, 8, 3))})
    with pytest.raises(InputError) as caught:
        prepare("folder", str(folder), tmp_path / "a.safetensors")
    expected = f"{folder}: dog/5.png: 8x9 pixels, expected 5x6 like the others; pass --size N to resize"
    assert str(caught.value) == expected
    prepare("folder", str(folder), tmp_path / "a.safetensors", size=4)
    assert open_data(tmp_path / "a.safetensors").split("train").images.shape[1:] == (3, 4, 4)


def test_other_files_are_left_out_with_a_notice(tmp_path: Path) -> None:
    said: list[str] = []
    files = classes() | {"cat/notes.txt": b"x", "cat/.hidden.png": b"x", "README": b"x", ".git/x.png": b"x"}
    record = prepare("folder", str(unpacked(tmp_path / "x", files)), tmp_path / "a.safetensors", notice=said.append)
    assert record["train"] + record["val"] + record["test"] == 40
    assert said[:2] == [f"{tmp_path / 'x'}: classes cat, dog", f"{tmp_path / 'x'}: 4 other files are ignored"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "images in 0 class folders, expected 2 or more"),
        (classes(4, 0), "images in 0 class folders, expected 2 or more"),
        ({"a.png": png(1), "b.png": png(2)}, "images in 0 class folders"),
        (classes(at="train/") | {"test/cow/1.png": png(1)}, "the class cow of test has no images in train"),
        (classes(4, 4, (6, 5), "train/") | {"test/cat/1.png": png(1)}, "train/ is grayscale but test/ has colour"),
        (classes() | {"cat/3.png": b"GIF89a"}, "cat/3.png: "),
        (classes() | {"cat/3.png": b"%!PS-Adobe EPSF"}, "cat/3.png: not an image"),
        (classes() | {"cat/3.png": b""}, "cat/3.png: not an image"),
        (
            classes() | {"cat/3.png": b"version https://git-lfs.github.com/spec/v1\n"},
            "3.png: a Git LFS pointer instead",
        ),
        (classes() | {"cat/3.png": png(3)[:-40]}, "cat/3.png: a corrupt image"),
        (classes() | {"c\nat/3.png": png(3)}, "the name of class folder 'c\\nat' is not printable"),
        (
            {f"{name}/1.png": png(i) for i, name in enumerate("ab")},
            "because its 2 images are too few; add images, or pass",
        ),
        (
            {f"{name}/{i}.png": png(1) for name in "ab" for i in range(9)},
            "because each of its 18 images has an identical copy; add images, or pass --test-split none",
        ),
    ],
)
def test_invalid_folders_are_refused(tmp_path: Path, files: dict[str, bytes], expected: str) -> None:
    folder = unpacked(tmp_path / "x", files)
    folder.mkdir(exist_ok=True)
    with pytest.raises(InputError) as caught:
        prepare("folder", str(folder), tmp_path / "a.safetensors")
    message = str(caught.value)
    assert expected in message
    assert message.startswith(str(folder))
    assert "\n" not in message
    assert "; " in message


def test_images_that_cannot_be_split_can_all_be_train(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "x", {f"{name}/1.png": png(i) for i, name in enumerate("ab")})
    record = prepare("folder", str(folder), tmp_path / "a.safetensors", test_split="none")
    assert (record["train"], record["val"], record["test"]) == (2, 0, 0)
    with pytest.raises(UsageError, match="--val 1: --test-split none leaves only train"):
        prepare("folder", str(folder), tmp_path / "a.safetensors", test_split="none", val=1)


def test_sixteen_bits_and_huge_images_are_refused(tmp_path: Path) -> None:
    deep = io.BytesIO()
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(deep, "PNG")
    folder = unpacked(tmp_path / "x", classes() | {"cat/3.png": deep.getvalue()})
    with pytest.raises(InputError, match="expected 8 bits per channel; convert it"):
        prepare("folder", str(folder), tmp_path / "a.safetensors")
    for side, expected in ((9_000, "9000x9000 pixels, expected at most"), (30_000, "a corrupt image")):
        folder = unpacked(tmp_path / "y", classes() | {"cat/3.png": announcing(side)})
        with pytest.raises(InputError, match=f"cat/3.png: {expected}"):
            prepare("folder", str(folder), tmp_path / "a.safetensors", size=8)


def deep_png(colour: int, channels: int) -> bytes:
    """A PNG of 5x6 pixels with 16 bits per sample; `colour` is its colour type."""
    lines = b"".join(b"\0" + bytes(2 * 5 * channels) for _ in range(6))
    parts = (
        (b"IHDR", struct.pack(">2I5B", 5, 6, 16, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rgb.png", deep_png(2, 3)),
        ("la.png", deep_png(4, 2)),
        ("rgba.png", deep_png(6, 4)),
        ("rgb.ppm", b"P6 5 6 4095\n" + bytes(2 * 5 * 6 * 3)),
        ("plain.ppm", b"P3 5 6 4095\n" + b"0 " * (5 * 6 * 3)),
    ],
)
def test_colours_of_sixteen_bits_are_refused_too(name: str, content: bytes) -> None:
    with pytest.raises(InputError, match=f"{name}: more than 8 bits per channel, expected 8 bits per channel; convert"):
        decoded(name, content)


def test_a_bitmap_of_sixteen_bits_per_pixel_is_read() -> None:
    masks = struct.pack("<3I", 0xF800, 0x07E0, 0x001F)
    header = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 16, 3, 16, 0, 0, 0, 0)
    content = b"BM" + struct.pack("<IHHI", 54 + 12 + 16, 0, 0, 54 + 12) + header + masks + b"\xff\xff" * 8
    assert decoded("a.bmp", content).min() == 255


def announcing(side: int) -> bytes:
    """A small PNG that says it has side x side pixels."""
    whole = png(1)
    head = b"IHDR" + struct.pack(">II", side, side) + whole[24:29]
    return whole[:12] + head + struct.pack(">I", zlib.crc32(head)) + whole[33:]


def test_a_folder_has_to_be_given(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pass --from FOLDER"):
        prepare("folder", None, tmp_path / "a.safetensors")


def test_progress_counts_the_bytes_read(tmp_path: Path) -> None:
    files = classes(150, 150)
    seen: list[tuple[int, int | None]] = []
    folder = unpacked(tmp_path / "x", files)
    prepare("folder", str(folder), tmp_path / "a.safetensors", progress=lambda *each: seen.append(each))
    total = sum(len(content) for content in files.values())
    assert len(seen) == 3
    assert seen[-1] == (total, total)


def flat(width: int, height: int, mode: str) -> bytes:
    """A picture of one colour, which is a small file whatever its size."""
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("width", "mode", "padding", "said"),
    [
        (2800, "1", 0, "x.zip: 10 images of 2800x2800 pixels from such small files are refused; pass --size N"),
        (2800, "1", 4 << 20, "x.zip: 10 images of 2800x2800 pixels from such small files are refused; pass --size N"),
        (5000, "P", 0, "x.zip: cat/0.png: 5000x5000 pixels, expected at most 8388608; make it smaller"),
        (5000, "P", 4 << 20, "x.zip: cat/0.png: 5000x5000 pixels, expected at most 8388608; make it smaller"),
    ],
)
def test_small_files_do_not_become_large_arrays(tmp_path: Path, width: int, mode: str, padding: int, said: str) -> None:
    """Nor do members that are large, for they are small in their archive."""
    picture = flat(width, width, mode) + bytes(padding)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(10):
            archive.writestr(f"{'dog' if i % 2 else 'cat'}/{i}.png", picture)
    with pytest.raises(InputError) as refused:
        prepare("folder", str(tmp_path / "x.zip"), tmp_path / "a.safetensors")
    assert said in str(refused.value)


@pytest.mark.parametrize("error", [TypeError, IndexError, struct.error])  # the first over some TIFFs
def test_what_pillow_raises_over_a_torn_image_is_one_line(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error("of Pillow")

    monkeypatch.setattr(Image, "open", fails)
    tree = Tree(str(tmp_path), {"a.tiff": 3}, lambda _: io.BytesIO(b"II*"))
    with pytest.raises(InputError, match="a.tiff: a corrupt image; remove it or replace it"):
        decode(tree, "a.tiff", None)


def tiff(compression: str | None) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, "TIFF", compression=compression)
    return file.getvalue()


def decoded(name: str, content: bytes) -> np.ndarray:
    return decode(Tree("here", {name: len(content)}, lambda _: io.BytesIO(content)), name, None)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_rotated_by_their_exif_orientation(kind: str, orientation: int) -> None:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(orientation).integers(0, 256, (6, 5, 3), np.uint8)
    Image.fromarray(pixels).save(file, kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue()))).convert("RGB")
    assert upright.size == ((5, 6) if orientation < 5 else (6, 5))
    assert np.array_equal(decoded("a.png", file.getvalue()).transpose(1, 2, 0), np.asarray(upright))


def test_an_image_held_by_a_quarter_turn_is_stored_as_it_is_seen(tmp_path: Path) -> None:
    """Its size is that of the upright images."""
    exif, seen = Image.Exif(), np.zeros((6, 4), np.uint8)
    exif[0x0112] = 6
    seen[:, 2:] = 255  # white on the right
    files = classes(shape=(6, 4))
    for name, stored, tag in (("turned", np.rot90(seen), exif), ("upright", seen, Image.Exif())):
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(stored)).save(file, "JPEG", quality=95, exif=tag)
        files[f"cat/{name}.jpg"] = file.getvalue()
    prepare("folder", str(unpacked(tmp_path / "x", files)), tmp_path / "a.safetensors")
    data = open_data(tmp_path / "a.safetensors")
    images = np.concatenate([data.split(name).images.numpy() for name in ("train", "val", "test")])
    assert sum(np.abs(image[0].astype(int) - seen).max() <= 5 for image in images) == 2


def test_exif_that_cannot_be_read_turns_nothing() -> None:
    file = io.BytesIO()
    pixels = np.arange(120, dtype=np.uint8).reshape(6, 5, 4)[:, :, :3]
    Image.fromarray(pixels).save(file, "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x02")
    assert np.array_equal(decoded("a.png", file.getvalue()).transpose(1, 2, 0), pixels)


def test_a_tiff_is_read_without_libtiff_or_not_at_all(capfd: pytest.CaptureFixture[str]) -> None:
    """libtiff prints messages about damaged files to stderr."""
    assert np.array_equal(decoded("a.tif", tiff(None)).transpose(1, 2, 0), np.arange(192).reshape(8, 8, 3))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        whole = tiff(compression)
        for content in (whole, whole[:8] + b"\x5a" * 8 + whole[16:]):
            with pytest.raises(
                InputError, match=r"here: a.tif: a compressed TIFF, expected an uncompressed one or PNG"
            ):
                decoded("a.tif", content)
    assert capfd.readouterr() == ("", "")


def test_what_pillow_logs_does_not_go_to_stderr(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's own
    whole = tiff(None)
    samples = whole.index(struct.pack("<HHL", 277, 3, 1))
    with pytest.raises(InputError, match="a.tif: not an image"):
        decoded("a.tif", whole[: samples + 8] + struct.pack("<H", 35) + whole[samples + 10 :])
    assert capfd.readouterr() == ("", "")
