"""A user's own images: one folder per class, or a table of labels."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable

from bsk.data.archive import kind_of, open_tree
from bsk.data.formats.cifar import LAYOUTS
from bsk.data.formats.layout import HIDDEN, Labelled, Splits, class_folders
from bsk.data.formats.tables import from_tables
from bsk.data.formats.tiny_imagenet import ANNOTATIONS, NAMES
from bsk.data.official import file_md5, located
from bsk.data.pictures import Shape, is_picture, labelled
from bsk.data.splits import Contents, Request, assembled, tested
from bsk.data.store import Part
from bsk.data.tree import Tree
from bsk.errors import InputError, UsageError

FEW = 100  # files that are opened, at most, to tell what a folder without images has
NUMBER = re.compile(r"\d+(\.0*)?", re.ASCII)  # pandas writes 3 as 3.0 in a column with gaps


def read(request: Request) -> Contents:
    """Return the images, (N, C, H, W), of a folder or archive, sorted by class and name.

    Folders with common names for train, val and test are these splits. Without a test folder, a fifth of the images,
    those with the smallest hashes, becomes test; without a train folder, the data are for evaluation only.
    """
    if not request.source:
        raise UsageError("--from: no images given; pass --from FOLDER with one subfolder per class")
    path = located(request, request.source)
    with open_tree(path) as whole:
        top = _around(name for name in whole.sizes if "/" in name or is_picture(name))
        tree = whole.below(top)
        try:
            splits = from_tables(request, whole) if request.labels else class_folders(tree, top)
            tree = whole if request.labels else tree
            splits = tested(request, tree.place, splits)
            classes = _classes(tree, splits, numbered=bool(request.labels))
        except InputError:
            _check_kind(request, whole)
            raise
        _report(request, tree, splits, classes)
        parts = _parts(request, tree, splits, classes)
    files = {} if path.is_dir() else {path.name: f"md5:{file_md5(path)}"}
    return assembled(request, tree.place, classes, parts, files)


def _check_kind(request: Request, tree: Tree) -> None:
    """Raise an InputError if files without class folders are those of a known dataset, or have no image among them."""
    marks = [(name, layout.train[0], layout.names) for name, layouts in LAYOUTS.items() for layout in layouts]
    for name, *files in [*marks, ("tiny-imagenet", ANNOTATIONS, NAMES)]:
        if tree.around(*files):
            raise InputError(f"{tree.place}: holds {name}; use: bsk prepare-data {name} --from {request.source}")
    for name in [] if any(map(is_picture, tree.sizes)) else list(tree.sizes)[:FEW]:
        with tree.open(name) as file:
            found = kind_of(file.read(16))
        if found:
            raise InputError(f"{tree.where(name)}: {found[0]}; {found[1]}")


def _around(names: Iterable[str]) -> str:
    """Return the path of the innermost folder that contains all files except hidden ones.

    This takes one pass, because an archive may nest folders arbitrarily deep.
    """
    top, final = "", False  # final: no later name can make it longer
    for name in names:
        if final and name.startswith(top):
            continue
        hidden = HIDDEN.search(name)
        folder = name[: hidden.start() if hidden else name.rfind("/") + 1]
        shared = os.path.commonprefix([top, folder])
        shared = shared[: shared.rfind("/") + 1]
        if shared == top and not final:
            top, final = folder, not hidden
        elif shared != folder or not hidden:
            top, final = shared, True
    return top


def _classes(tree: Tree, splits: Splits, numbered: bool) -> list[str]:
    """Return the classes, those of train if it exists; with `numbered`, numbers are sorted by value."""
    counts = Counter(each for split in splits.values() for each, _ in split)
    if len(counts) < 2:
        found = f"images in {len(counts)} class folders, expected 2 or more, among {tree.endings()}"
        raise InputError(f"{tree.place}: {found}; check --from")
    for name in counts:
        if not name.isprintable():
            raise InputError(f"{tree.place}: the name of class folder {ascii(name)} is not printable; rename it")
    known = {each for each, _ in splits.get("train", [])} or set(counts)
    for split, images in splits.items():
        unknown = sorted({each for each, _ in images} - known)
        if unknown:
            found = f"the class {unknown[0]} of {split} has no images in train"
            raise InputError(f"{tree.place}: {found}; remove it, or add train images")
    if not (numbered and all(map(NUMBER.fullmatch, known))):
        return sorted(known)
    ordered = sorted(known, key=lambda each: (float(each), each))
    for one, other in itertools.pairwise(ordered):
        if float(one) == float(other):
            raise InputError(f"{tree.place}: the labels {one} and {other} are the same number; write it in one way")
    return ordered


def _parts(request: Request, tree: Tree, splits: Splits, classes: list[str]) -> dict[str, Part]:
    """Read the images of all splits, with the size and colour of the first."""
    parts: dict[str, Part] = {}
    for split, images in splits.items():
        first, like = next(iter(parts.items()), ("", None))
        parts[split] = _part(request, tree, images, classes, like)
        if like is not None and like.images.shape[1] != parts[split].images.shape[1]:
            raise InputError(f"{tree.place}: {first}/ is grayscale but {split}/ has colour; convert one of them")
    return parts


def _part(request: Request, tree: Tree, images: Labelled, classes: list[str], like: Part | None) -> Part:
    shape = Shape(request.size, request.size, resize=True) if request.size else None
    colour = like is not None and like.images.shape[1] == 3
    if like is not None and shape is None:
        shape = Shape(*like.images.shape[2:])
    return labelled(request, tree, images, classes, shape, colour)


def _report(request: Request, tree: Tree, splits: Splits, classes: list[str]) -> None:
    request.say(f"{tree.place}: classes {', '.join(classes[:20])}{', ...' if len(classes) > 20 else ''}")
    used = {name for images in splits.values() for _, name in images}
    skipped = len(tree.sizes) - len(used)
    if skipped:
        tops = {name.partition("/")[0] for name in used}
        others = {name.partition("/")[0] + "/" for name in tree.sizes if "/" in name and not HIDDEN.match(name)}
        named = sorted(others - {f"{top}/" for top in tops})[:5]
        where = f" ({', '.join(named)})" if named else ""
        request.say(f"{tree.place}: {skipped} other files are ignored{where}")
