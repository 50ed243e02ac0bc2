"""Which folders are splits and which are classes."""

from __future__ import annotations

import re

from bsk.data.pictures import SUFFIXES, is_picture
from bsk.data.tree import Tree
from bsk.errors import InputError

Labelled = list[tuple[str, str]]  # (class, file name) of each image
Splits = dict[str, Labelled]
SPLIT = re.compile(r"(data)?(split|set|subset|usage|partition|phase)")  # letters of a column's name
HIDDEN = re.compile(r"(?<![^/])(?:\.|__MACOSX/)")  # the beginning of a hidden part of a path
DEPTH = 4  # levels of folders that are searched for splits and classes
WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validating", "dev", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "holdout"),
}
_SPLITS = {word: split for split, words in WORDS.items() for word in words}
_OF = re.compile(r"(?<=.)(?:sets?|data|images?|imgs?|labels?|split|folder)$")  # suffixes that are ignored: trainset
SHARED = 2  # two folders that share so many names of subfolders are not classes


def split_of(name: str) -> str | None:
    """Return the split that the name of a folder or table indicates: train_set, Testing, seg_train, VAL2017, ...

    None if no word, or words for two splits, indicate one.
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall("[a-z]+", f"{name} {parted}".lower())
    found = {_SPLITS[word] for word in (_OF.sub("", word) for word in words) if word in _SPLITS}
    return found.pop() if len(found) == 1 else None


def pictures_of(tree: Tree) -> list[str]:
    """Return the names of all images that are not hidden."""
    return [name for name in tree.sizes if is_picture(name) and not HIDDEN.search(name)]


def class_folders(tree: Tree, around: str) -> Splits:
    """Return (class, file name) of the images of each split; without split folders all are train.

    `around` is the path of the tree; its last folder may name the only split.

    Raises:
        InputError: images are not in class folders, a class has none, or folders may be either classes or splits.
    """
    folders = _Folders(tree)
    splits = _split_folders(folders)
    if not splits:
        _check_flat(folders)
        _check_shared(folders)
        splits = {split_of(around.rstrip("/").rpartition("/")[2]) or "train": ""}
    return {split: _listed(folders, splits[split]) for split in WORDS if split in splits}


class _Folders:
    """The upper folders of a tree: the subfolders of each, and whether there are images in or below them."""

    def __init__(self, tree: Tree) -> None:
        self.tree, self.pictures = tree, pictures_of(tree)
        self._in: dict[str, dict[str, bool]] = {}
        for name in self.pictures:
            self._add(name.split("/", DEPTH)[:-1], True)
        for name in [*tree.sizes, *(f"{folder}/" for folder in tree.folders)]:
            if not HIDDEN.search(name):
                self._add(name.split("/", DEPTH)[:-1], False)

    def _add(self, parts: list[str], pictured: bool) -> None:
        folder = ""
        for part in parts:
            self._in.setdefault(folder, {}).setdefault(part, pictured)
            folder += f"{part}/"

    def all_in(self, folder: str) -> dict[str, bool]:
        return self._in.get(folder, {})

    def pictured_in(self, folder: str) -> list[str]:
        return [child for child, pictured in self.all_in(folder).items() if pictured]

    def classes_below(self, top: str) -> str:
        """Return the folder with the classes of a split: train/, or train/train/ as in some archives."""
        folder = f"{top}/"
        while split_of(top) and [split_of(child) for child in self.all_in(folder)] == [split_of(top)]:
            folder += f"{next(iter(self.all_in(folder)))}/"
        return folder


def _split_folders(folders: _Folders) -> dict[str, str]:
    """Return the folder of each split that has class folders; empty if the folders are classes instead."""
    found: dict[str, str] = {}
    for top in folders.pictured_in(""):
        split, folder = split_of(top), folders.classes_below(top)
        if split and folders.pictured_in(folder):
            if split in found:
                both = f"the names of {found[split]} and {folder} both indicate {split}"
                raise InputError(f"{folders.tree.place}: {both}; remove or rename one")
            found[split] = folder
    tops = folders.pictured_in("")
    if len(found) == 1 < len(tops):  # a class may have such a name: test-tube/
        (folder,) = found.values()
        mine = set(folders.pictured_in(folder))
        others = [top for top in tops if not folder.startswith(f"{top}/")]
        if len(mine) < SHARED or any(len(mine & {*folders.pictured_in(f"{top}/")}) >= SHARED for top in others):
            if len(tops) == 2:
                both = f"{folder} next to {others[0]}/ may be a split or a class"
                raise InputError(f"{folders.tree.place}: {both}; rename one, or give only one of them")
            return {}
    return found


def _check_flat(folders: _Folders) -> None:
    """Raise an InputError if images are not in class folders but in the top folder or directly in split folders.

    If fewer than half of the folders have names of splits, they are classes: bus/, car/, train/.
    """
    tops = folders.pictured_in("")
    named = [top for top in tops if split_of(top) and not folders.pictured_in(f"{top}/")]
    if folders.pictures and (len({*map(split_of, named)}) > 1 or 2 * len(named) >= len(tops)):
        lying = next(name for name in folders.pictures if not tops or name.partition("/")[0] in named)
        tables = sorted(name for name in folders.tree.sizes if name.lower().endswith((".csv", ".tsv")))[:3]
        known = f" (such as {', '.join(tables)})" if tables else ""
        found = f"images in 0 class folders, expected 2 or more: {lying} is in none"
        raise InputError(f"{folders.tree.place}: {found}; sort them, or pass --labels FILE.csv{known}")


def _check_shared(folders: _Folders) -> None:
    """Raise an InputError if folders have subfolders in common, which suggests splits with uncommon names."""
    first: dict[str, str] = {}
    shared: dict[str, str] = {}
    for top in folders.pictured_in(""):
        for child in folders.pictured_in(f"{top}/"):
            if child in first:
                shared.setdefault(child, f"{first[child]}/ and {top}/")
            first.setdefault(child, top)
    if len(shared) >= SHARED:
        found = f"{next(iter(shared.values()))} have the same subfolders {', '.join(sorted(shared)[:3])}"
        advice = "name splits train, val and test, or give only one folder"
        raise InputError(f"{folders.tree.place}: {found}, so they are not classes; {advice}")


def _listed(folders: _Folders, folder: str) -> Labelled:
    """Return (class, file name) of the images in the class folders of a folder."""
    for child, pictured in folders.all_in(folder).items():
        if not pictured:
            found = f"{folders.tree.where(folder + child)}/: no supported image"
            others = folders.pictured_in(folder)
            advice = f"give only {folder}{others[0]}/" if len(others) == 1 else "convert its files, or remove it"
            raise InputError(f"{found}, expected {' '.join(SUFFIXES)}; {advice}")
    start = len(folder)
    names = [name for name in folders.pictures if name.startswith(folder) and "/" in name[start:]]
    return sorted((name[start:].partition("/")[0], name) for name in names)
