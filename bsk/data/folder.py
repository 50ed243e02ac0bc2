"""Anybody's images: a folder for each class."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

from bsk.data.archive import open_tree
from bsk.data.fetch import is_url, local_path
from bsk.data.official import download_to, file_md5
from bsk.data.order import held_out, image_hashes
from bsk.data.pictures import Shape, is_picture, labelled
from bsk.data.splits import Contents, Request
from bsk.data.store import Part
from bsk.data.tree import Tree
from bsk.errors import InputError, UsageError

TEST = 0.2  # of the images, where there is no test folder
_HIDDEN = re.compile(r"(?<![^/])(?:\.|__MACOSX/)")  # where a part of a name begins that nobody means


def read(request: Request) -> Contents:
    """Return the images, (N, C, H, W), of a folder or archive of class folders, in the order of their names.

    With subfolders `train` and `test` these are the splits; otherwise a fifth of the images, those of the
    smallest hash, is the test split.
    """
    if request.source is None:
        raise UsageError("folder: no images given; pass --from FOLDER, with a folder for each class in it")
    path = download_to(request, request.source) if is_url(request.source) else local_path(request.source)
    with open_tree(path) as whole:
        tree = whole.below(_around(whole.sizes))
        files = {} if path.is_dir() else {path.name: f"md5:{file_md5(path)}"}
        train = _listed(tree, "train/")
        if train:
            return _of_two(request, tree, train, files)
        return _of_one(request, tree, _listed(tree, ""), files)


def _around(names: Iterable[str]) -> str:
    """Return the folders, one in the other, that hold all files but hidden ones; a lone train/ is no such folder.

    All in one pass, since an archive may have as many folders in folders as it likes.
    """
    top, final = "", False  # final: no later name can make it longer
    for name in names:
        if final and name.startswith(top):
            continue
        hidden = _HIDDEN.search(name)
        folder = name[: hidden.start() if hidden else name.rfind("/") + 1]
        shared = os.path.commonprefix([top, folder])
        shared = shared[: shared.rfind("/") + 1]
        if shared == top and not final:
            top, final = folder, not hidden
        elif shared != folder or not hidden:
            top, final = shared, True
    train = f"/{top}".find("/train/")
    return top if train < 0 else top[:train]


def _listed(tree: Tree, folder: str) -> list[tuple[str, str]]:
    """Return class and name of the images in the class folders of a folder."""
    start = len(folder)
    inner = [name for name in tree.sizes if name.startswith(folder) and "/" in name[start:] and is_picture(name)]
    return sorted((name[start:].partition("/")[0], name) for name in inner if not _HIDDEN.match(name, start))


def _of_two(request: Request, tree: Tree, train: list[tuple[str, str]], files: dict[str, str]) -> Contents:
    test = _listed(tree, "test/")
    classes = _classes(tree, train)
    if not test:
        raise InputError(f"{tree.place}: train/ but no test/ with images; add test/, or give train/ itself to split it")
    unknown = sorted({each for each, _ in test} - set(classes))
    if unknown:
        raise InputError(f"{tree.place}: test/{unknown[0]} has no counterpart in train/; remove it or add train images")
    first = _part(request, tree, train, classes)
    second = _part(request, tree, test, classes, like=first)
    if first.images.shape[1] != second.images.shape[1]:
        raise InputError(f"{tree.place}: train/ is grayscale, test/ has colour; convert one of them")
    _tell_skipped(request, tree, len(train) + len(test))
    return Contents(classes, first, second, files, official=False)


def _of_one(request: Request, tree: Tree, images: list[tuple[str, str]], files: dict[str, str]) -> Contents:
    classes = _classes(tree, images)
    part = _part(request, tree, images, classes)
    test = held_out(image_hashes(part.images), part.labels, max(1, round(TEST * len(images))))
    train = np.setdiff1d(np.arange(len(images)), test)
    if not len(test) or not len(train):
        raise InputError(f"{tree.place}: {len(images)} images are too few to split, or all the same; add images")
    request.say(f"{tree.place}: no train/ and test/; {len(test)} of {len(images)} images become the test split")
    _tell_skipped(request, tree, len(images))
    return Contents(
        classes, Part(part.images, part.labels, train), Part(part.images, part.labels, test), files, official=False
    )


def _classes(tree: Tree, images: list[tuple[str, str]]) -> list[str]:
    counts = Counter(each for each, _ in images)
    if len(counts) < 2:
        raise InputError(f"{tree.place}: images in {len(counts)} class folders, expected 2 or more; check --from")
    for name in counts:
        if not name.isprintable():
            raise InputError(f"{tree.place}: the class folder {ascii(name)} has no printable name; rename it")
    return sorted(counts)


def _part(
    request: Request, tree: Tree, images: list[tuple[str, str]], classes: list[str], like: Part | None = None
) -> Part:
    """Read the images, given with their classes; of the size and colour of those of `like`."""
    shape = Shape(request.size, request.size, resize=True) if request.size else None
    colour = like is not None and like.images.shape[1] == 3
    if like is not None and shape is None:
        shape = Shape(*like.images.shape[2:])
    return labelled(request, tree, images, classes, shape, colour)


def _tell_skipped(request: Request, tree: Tree, used: int) -> None:
    skipped = len(tree.sizes) - used
    if skipped:
        request.say(f"{tree.place}: {skipped} other files are left out")
