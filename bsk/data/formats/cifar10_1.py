"""CIFAR-10.1: new test images for CIFAR-10, in two versions."""

from __future__ import annotations

from pathlib import Path

from bsk.data.archive import open_tree
from bsk.data.formats.cifar import NAMES
from bsk.data.formats.npy import open_array, pixels_of
from bsk.data.formats.npz import checked, labels_in
from bsk.data.official import located
from bsk.data.splits import Contents, Request
from bsk.data.tree import Tree
from bsk.errors import InputError, UsageError

DATA = "cifar10.1_v6_data.npy"  # the version recommended by the authors


def read(request: Request) -> Contents:
    """Return CIFAR-10.1, 2,000 test images (N, 3, 32, 32), from a folder or archive; v4 if its data file is given.

    Source: Recht et al. 2019, Do ImageNet Classifiers Generalize to ImageNet?

    Raises:
        UsageError: no source is given.
        InputError: the files are missing or inconsistent.
    """
    if not request.source:
        raise UsageError(f"--from: {request.name} has no official archive; pass --from FOLDER with {DATA} in it")
    path = located(request, request.source)
    if path.is_file() and path.suffix == ".npy":
        return _contents(request, path, _with_labels(path), path.name)
    with open_tree(path) as whole:
        tree = whole.around(DATA)
        if tree is None:
            raise InputError(f"{path}: no {DATA} in its {whole.endings()}; check --from, or give the v4 data file")
        return _contents(request, path, tree, DATA)


def _with_labels(path: Path) -> Tree:
    sizes = {each.name: each.stat().st_size for each in (path, path.with_name(_labels(path.name))) if each.is_file()}
    return Tree(str(path.parent), sizes, lambda name: (path.parent / name).open("rb"))


def _labels(name: str) -> str:
    return name.replace("_data", "_labels")


def _contents(request: Request, path: Path, tree: Tree, name: str) -> Contents:
    with open_array(tree, name) as file:
        images = pixels_of(file)
    return checked(request, path, {"test": (images, labels_in(tree, _labels(name)))}, NAMES["cifar10"])
