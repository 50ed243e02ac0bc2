"""Tiny ImageNet: 200 classes of 64x64 JPEG images."""

from __future__ import annotations

from bsk.data.archive import open_tree
from bsk.data.official import find
from bsk.data.pictures import Shape, is_picture, labelled
from bsk.data.splits import Contents, Request
from bsk.data.store import Part
from bsk.data.tree import Tree
from bsk.errors import InputError

SHAPE = Shape(64, 64, advice="use the official archive")
ANNOTATIONS = "val/val_annotations.txt"
NAMES = "wnids.txt"


def read(request: Request) -> Contents:
    """Return Tiny ImageNet, images (N, 3, 64, 64), from the zip archive or its folder; grayscale becomes RGB.

    Classes are the sorted WordNet ids. Train images are sorted by class and name. The official val split, in the order
    of its annotations, is the test split here, because the labels of the official test split are unpublished.
    Source: Stanford CS231n.
    """
    found = find(request)
    with open_tree(found.path) as whole:
        tree = whole.around(ANNOTATIONS, NAMES)
        if tree is None:
            wrong = f"no Tiny ImageNet in its {whole.endings()}"
            raise InputError(f"{whole.place}: {wrong}, expected {NAMES} and {ANNOTATIONS}; check --from")
        files, official = found.checksums(request, tree, [NAMES, ANNOTATIONS])
        classes = sorted(set(_words(tree, NAMES)))
        train = _part(request, tree, _train(tree), classes)
        test = _part(request, tree, _test(tree), classes)
    return Contents(classes, train, test, files, official)


def _words(tree: Tree, name: str) -> list[str]:
    return tree.read(name).decode("utf-8", "replace").split()


def _train(tree: Tree) -> list[tuple[str, str]]:
    """Return (class, file name) of each train image."""
    images = [name for name in tree.sizes if name.startswith("train/") and is_picture(name)]
    return sorted((name.split("/")[1], name) for name in images)


def _test(tree: Tree) -> list[tuple[str, str]]:
    """Return (class, file name) of each annotated image; a line has name, class and box, separated by tabs."""
    lines = tree.read(ANNOTATIONS).decode("utf-8", "replace").splitlines()
    rows = [line.split("\t") for line in lines if line.strip()]
    for number, row in enumerate(rows, 1):
        if len(row) < 2:
            where = tree.where(ANNOTATIONS)
            raise InputError(f"{where}:{number}: expected a name, a tab and a class; use the official archive")
    return [(row[1], f"val/images/{row[0]}") for row in rows]


def _part(request: Request, tree: Tree, images: list[tuple[str, str]], classes: list[str]) -> Part:
    """Return the images of (class, file name) pairs."""
    known = set(classes)
    for wnid, name in images:
        if wnid not in known:
            raise InputError(f"{tree.where(name)}: class {wnid:.40} is not in {NAMES}; use the official archive")
    if not images:
        raise InputError(f"{tree.place}: has no train or no val images; use the complete official archive")
    return labelled(request, tree, images, classes, SHAPE, colour=True)
