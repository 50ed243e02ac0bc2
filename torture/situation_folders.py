"""Typical and unusual folders and archives of the digits, composed from small parts."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bsk.data.store import open_data

Files = dict[str, bytes]
Parts = Mapping[str, str]
_TRAIN = 100  # number of training images
_HELD_OUT = "no test split|has no train split"

SPLITS: dict[str, tuple[str, str, str]] = {  # folders of train and test, and the allowed messages
    "train, test": ("train", "test", ""),
    "capitals": ("Training", "Testing", ""),
    "shouted": ("TRAIN", "TEST", ""),
    "sets": ("train_set", "test_set", ""),
    "seg": ("seg_train", "seg_test", ""),
    "joined": ("trainset", "testset", ""),
    "images": ("training_images", "test_images", ""),
    "years": ("train2017", "test2017", ""),
    "twice": ("train/train", "test/test", ""),
    "evaluation": ("trn", "evaluation", ""),
    "within": ("data/digits/train", "data/digits/test", ""),
    "numbered": ("01_train", "02_test", ""),
    "spaces": ("train images", "test images", ""),
    "val alone": ("train", "val", _HELD_OUT),
    "test alone": ("", "test", ""),
    "none": ("", ".", _HELD_OUT),
    "unusual": ("a", "b", "have the same subfolders"),
    "two tests": ("test", "testing", "both indicate test"),
}
CLASSES: dict[str, Callable[[int], str]] = {
    "digits": str,
    "two digits": lambda k: f"{k:02d}",
    "words and digits": lambda k: f"class {k}",
    "letters": lambda k: "abcdefghij"[k],
    "umlauts": lambda k: f"zähl {k}",
    "other alphabets": lambda k: "ΑΒΓΔΕΖΗΘΙΚ"[k],
    "like splits": lambda k: f"{k} test tube" if k else "0 train",
    "ids": lambda k: f"n0{k}443537",
    "quotes": lambda k: f"{k}'\"&%",
}


def _png(pixels: NDArray[np.uint8], mode: str = "L", kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode == "L" else image.convert(mode)).save(buffer, kind, **options)
    return buffer.getvalue()


def _deep(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint16) * 257).save(buffer, "PNG")
    return buffer.getvalue()


def _turned(pixels: NDArray[np.uint8]) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 3  # rotated by 180 degrees
    return _png(np.ascontiguousarray(pixels[::-1, ::-1]), exif=exif)


PICTURES: dict[str, tuple[Callable[[NDArray[np.uint8]], bytes], str, str]] = {  # encoder, suffix, allowed messages
    "png": (_png, "png", ""),
    "PNG": (_png, "PNG", ""),
    "bmp": (lambda p: _png(p, kind="BMP"), "bmp", ""),
    "tiff": (lambda p: _png(p, kind="TIFF"), "tiff", ""),
    "gif": (lambda p: _png(p, kind="GIF"), "gif", "to have 1 ch"),
    "webp": (lambda p: _png(p, "RGB", "WEBP", lossless=True), "webp", "to have 1 ch|no supported image"),
    "pgm": (lambda p: _png(p, kind="PPM"), "pgm", "no supported image|0 class folders"),
    "colour": (lambda p: _png(p, "RGB"), "png", "to have 1 ch"),
    "with alpha": (lambda p: _png(p, "LA"), "png", ""),
    "colour and alpha": (lambda p: _png(p, "RGBA"), "png", "to have 1 ch"),
    "palette": (lambda p: _png(p, "P"), "png", "to have 1 ch"),
    "16 bits": (_deep, "png", "16"),
    "turned": (_turned, "png", ""),
    "png by another name": (_png, "jpg", ""),
}
CLUTTER: dict[str, tuple[Files, str]] = {  # other files; {top} is a split's folder, {one} a class folder
    "none": ({}, ""),
    "macOS": (
        {"{top}.DS_Store": b"x", "{one}/.DS_Store": b"x", "{one}/._1.png": b"x", "__MACOSX/{one}/._1.png": b"x"},
        "",
    ),
    "Windows": ({"{one}/Thumbs.db": b"x", "{top}desktop.ini": b"x"}, ""),
    "notes": ({"README.md": b"x", "LICENSE": b"x", "{top}labels.csv": b"a,b\n1,2\n"}, ""),
    "notebook": ({"{one}/.ipynb_checkpoints/1.png": b"x", ".git/a.png": b"x"}, ""),
    "torn picture": ({"{one}/torn.png": b"\x89PNG"}, "torn.png"),
    "empty picture": ({"{one}/empty.png": b""}, "empty.png"),
    "class of text": ({"{class}/a.txt": b"x"}, "no supported image|has no counterpart"),
    "masks": ({"masks/a.txt": b"x"}, ""),
    "cover": ({"cover.jpg": b"x"}, "cover"),
}


def _folder(files: Files, place: Path) -> Path:
    for name, content in files.items():
        path = place / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return place / "images"


def _links(files: Files, place: Path) -> Path:
    (place / "linked").symlink_to(_folder(files, place))
    return place / "linked"


def _zip(files: Files, place: Path) -> Path:
    with zipfile.ZipFile(place / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return place / "images.zip"


def _tar(files: Files, place: Path, kind: str = "", start: str = "") -> Path:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(start + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    content = raw.getvalue()
    content = gzip.compress(content) if kind == "gz" else lzma.compress(content) if kind == "xz" else content
    (place / "images.tar").write_bytes(content)
    return place / "images.tar"


HOLDERS: dict[str, tuple[Callable[[Files, Path], Path], str]] = {
    "folder": (_folder, ""),
    "folder of links": (_links, ""),
    "zip": (_zip, ""),
    "tar": (_tar, ""),
    "tgz from a dot": (lambda files, place: _tar(files, place, "gz", "./"), ""),
    "tgz of one folder": (lambda files, place: _tar(files, place, "gz", "the set/"), ""),
    "txz": (lambda files, place: _tar(files, place, "xz"), "an xz archive"),
}
KINDS: dict[str, dict[str, str]] = {
    "splits": {name: may for name, (_, _, may) in SPLITS.items()},
    "classes": dict.fromkeys(CLASSES, ""),
    "pictures": {name: may for name, (_, _, may) in PICTURES.items()},
    "clutter": {name: may for name, (_, may) in CLUTTER.items()},
    "holder": {name: may for name, (_, may) in HOLDERS.items()},
}


def make_folder(data: Path, place: Path, parts: Parts) -> tuple[Path, list[str]]:
    """Write images of a data file's train and test as the parts say; return the path and its flags of prepare-data."""
    train, test, _ = SPLITS[parts["splits"]]
    opened, files = open_data(data), {}
    for split, folder in (("train", train), ("test", test)):
        found = opened.split(split)
        n = _TRAIN if split == "train" else len(found.labels)
        if folder:
            pairs = zip(found.images[:n].numpy(), found.labels[:n].tolist(), strict=True)
            top = "" if folder == "." else f"{folder}/"
            for number, (image, label) in enumerate(pairs):
                write, ending, _ = PICTURES[parts["pictures"]]
                files[f"{top}{CLASSES[parts['classes']](label)}/{number}.{ending}"] = write(image[0])
    one = next(iter(files)).rpartition("/")[0]
    top = one.rpartition("/")[0]
    top = f"{top}/" if top else ""
    for name, content in CLUTTER[parts["clutter"]][0].items():
        files[name.format(top=top, one=one, **{"class": f"{top}no class"})] = content
    return HOLDERS[parts["holder"]][0](files, place), ["--test-split", "val"] if parts["splits"] == "val alone" else []
