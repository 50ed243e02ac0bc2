"""Anybody's images: a folder for each class."""

from __future__ import annotations

from collections import Counter

import numpy as np

from bsk.data.archive import open_tree
from bsk.data.contents import Contents, Request
from bsk.data.fetch import is_url, local_path
from bsk.data.official import download_to, file_md5
from bsk.data.order import held_out, image_hashes
from bsk.data.pictures import Shape, decode_all, is_picture
from bsk.data.store import Part
from bsk.data.tree import Tree
from bsk.errors import InputError, UsageError

TEST = 0.2  # of the images, where there is no test folder


def read(request: Request) -> Contents:
    """Return the images, (N, C, H, W), of a folder or archive of class folders, in the order of their names.

    With subfolders `train` and `test` these are the splits; otherwise a fifth of the images, those of the
    smallest hash, is the test split.
    """
    if request.source is None:
        raise UsageError("folder: no images given; pass --from FOLDER, with a folder for each class in it")
    path = download_to(request, request.source) if is_url(request.source) else local_path(request.source)
    with open_tree(path) as whole:
        tree = _unwrapped(whole)
        files = {} if path.is_dir() else {path.name: f"md5:{file_md5(path)}"}
        train = _listed(tree, "train/")
        if train:
            return _of_two(request, tree, train, files)
        return _of_one(request, tree, _listed(tree, ""), files)


def _unwrapped(tree: Tree) -> Tree:
    """Return the tree without the single folders around all of it; a lone train/ is no such folder."""
    while len(tops := {name.partition("/")[0] for name in tree.sizes if not name.startswith((".", "__MACOSX/"))}) == 1:
        (top,) = tops
        if top in tree.sizes or top == "train":
            break
        tree = tree.below(f"{top}/")
    return tree


def _listed(tree: Tree, folder: str) -> list[tuple[str, str]]:
    """Return class and name of the images in the class folders of a folder."""
    inner = [name for name in tree.below(folder).sizes if "/" in name and is_picture(name)]
    return sorted((name.partition("/")[0], folder + name) for name in inner if not name.startswith((".", "__MACOSX/")))


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
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[each] for each, _ in images], np.int64)
    return Part(decode_all(tree, [name for _, name in images], shape, colour, request.progress), labels)


def _tell_skipped(request: Request, tree: Tree, used: int) -> None:
    skipped = len(tree.sizes) - used
    if skipped:
        request.say(f"{tree.place}: {skipped} other files are left out")
