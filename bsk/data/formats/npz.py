"""Images and labels in a .npz file, or in the .npy files of a folder, recognised by their names."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bsk.data.archive import open_tree
from bsk.data.arrays import TEXT_LABELS, check_one_each, contents_of
from bsk.data.formats.cifar import NAMES
from bsk.data.formats.layout import HIDDEN, split_of
from bsk.data.formats.npy import open_array, pixels_of
from bsk.data.official import located
from bsk.data.order import Images, Labels
from bsk.data.splits import Contents, Request, assembled, tested
from bsk.data.store import SPLITS
from bsk.data.tree import Tree, printable
from bsk.errors import InputError, UsageError

IMAGES = re.compile(
    r"x|data|pixels|inputs?|samples|pictures?|photos?|[a-z]*(images?|imgs?)"
)  # matched against the words of a name
LABELS = re.compile(r"y|class(es)?|fine|coarse|[a-z]*(labels?|targets?)")
CLASS_NAMES = re.compile(
    r"(class|label|target|category|categorie)(es|s)?_?(names?)?|(fine|coarse)_label_names|meta|names"
)
UNNAMED = {"arr_0": "x", "arr_1": "y"}  # numpy.savez names unnamed arrays this way; more than two are rejected
FEW = 12  # arrays listed in a message, at most


@dataclass(frozen=True, eq=False)  # compared by identity
class _Array:
    """An array: its file, the key that tells what it is, its shape and the kind of its dtype."""

    tree: Tree
    name: str
    key: str
    shape: tuple[int, ...]
    kind: str

    @property
    def words(self) -> list[str]:
        return _words(self.key)

    @property
    def may_be_labels(self) -> bool:
        return len(self.shape) in (1, 2) and self.kind in "iufbUS"

    @property
    def is_labels(self) -> bool:
        return self.may_be_labels and any(map(LABELS.fullmatch, self.words))

    @property
    def is_images(self) -> bool:
        named = any(map(IMAGES.fullmatch, self.words)) and not any(map(LABELS.fullmatch, self.words))
        return named and self.kind in "iuf" and len(self.shape) in (3, 4)

    @property
    def is_names(self) -> bool:
        return self.kind in "US" and len(self.shape) == 1 and bool(CLASS_NAMES.fullmatch("_".join(self.words)))


def _words(key: str) -> list[str]:
    """Return the words of an array's name, in lower case."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", UNNAMED.get(key, key)).lower()
    return [word for word in re.split(r"[^a-z0-9]+", parted) if word]


def read(request: Request) -> Contents:
    """Return images (N, C, H, W) from arrays such as x_train and y_train, train_images and train_labels, or image.

    The split of an array comes from its name, else from the name of the file, else it is train; without test, a fifth
    of the images is held out. `request.labels` names the label array if there are several.

    Raises:
        InputError: there are no images or no labels, several candidates for either, or several labels per image.
    """
    assert request.source  # the format was detected from it
    path = located(request, request.source)
    if request.size:
        raise UsageError(f"--size: arrays are not resized; leave it out, or resize the images in {path}")
    with _open_arrays(path) as arrays:
        pairs = _pairs(request, path, arrays)
        found = {split: _examples(*pair) for split, pair in pairs.items()}
        return checked(request, path, found, _class_names(request, arrays, pairs))


def checked(
    request: Request, path: Path, found: Mapping[str, tuple[Images, Labels]], classes: list[str] | None
) -> Contents:
    """Return the contents of a source from images (N, C, H, W) and labels; without `classes`, classes are numbers.

    Raises:
        InputError: see `bsk.data.arrays.contents_of` and `bsk.data.splits.assembled`.
    """
    contents = contents_of({**found, **({"classes": classes} if classes else {})}, str(path))
    parts = {"train": contents.train, "val": contents.val or contents.train, "test": contents.test}
    return assembled(request, str(path), contents.classes, {split: parts[split] for split in found}, {})


@contextlib.contextmanager
def _open_arrays(path: Path) -> Iterator[list[_Array]]:
    """Open all arrays of a .npz file or folder; for one .npy file, also its label array, as y_test for x_test."""
    with contextlib.ExitStack() as stack:
        if path.is_file() and path.suffix == ".npy":
            yield _with_labels(path)
            return
        tree = stack.enter_context(open_tree(path))
        found = _arrays(tree, "")
        for name in [each for each in tree.sizes if each.lower().endswith(".npz") and not HIDDEN.search(each)]:
            if not path.is_dir():
                raise InputError(f"{tree.where(name)}: a .npz file in an archive; unpack it and give the folder")
            inner = stack.enter_context(open_tree(path / name))
            found += _arrays(inner, f"{PurePosixPath(name).stem}_")
        yield found


def _with_labels(path: Path) -> list[_Array]:
    sizes = {each.name: each.stat().st_size for each in sorted(path.parent.glob("*.npy")) if each.is_file()}
    tree = Tree(str(path.parent), sizes, lambda name: (path.parent / name).open("rb"))
    arrays = _arrays(tree, "")
    rest = next(_rest(each) for each in arrays if each.name == path.name)
    return [each for each in arrays if _rest(each) == rest and (each.is_labels or each.name == path.name)]


def _rest(array: _Array) -> list[str]:
    return [word for word in array.words if not IMAGES.fullmatch(word) and not LABELS.fullmatch(word)]


def _arrays(tree: Tree, start: str) -> list[_Array]:
    found = []
    for name in tree.sizes:
        if name.lower().endswith(".npy") and not HIDDEN.search(name):
            found.append(_Array(tree, name, start + name[:-4].replace("/", "_"), *_shape_and_kind(tree, name)))
    return found


def _shape_and_kind(tree: Tree, name: str) -> tuple[tuple[int, ...], str]:
    try:
        with open_array(tree, name) as file:
            return file.shape, file.dtype.kind
    except InputError:
        if _is_asked_for(name):
            raise
        return (), ""  # as pickles of something else, which are left out


def _is_asked_for(name: str) -> bool:
    words = _words(PurePosixPath(name).stem)
    return any(map(LABELS.fullmatch, words)) or any(map(IMAGES.fullmatch, words))


def _pairs(request: Request, path: Path, arrays: list[_Array]) -> dict[str, tuple[_Array, _Array]]:
    """Return the arrays of images and labels of each split, and print a notice of the choice."""
    if any(each.key == "arr_2" for each in arrays):
        raise InputError(f"{path}: {len(arrays)} arrays without names; save them with names, as x_train=, y_train=")
    usual = split_of(path.stem) or "train"
    splits = {each: split_of(each.key) or usual for each in arrays}
    found = {split: [each for each in arrays if splits[each] == split and each.is_images] for split in SPLITS}
    found = {split: images for split, images in found.items() if images}
    if not found:
        known = "names such as x_train or images, and shape (N, C, H, W), (N, H, W, C) or (N, H, W)"
        raise InputError(f"{path}: no images among the arrays {_listed(arrays)}; expected {known}")
    pairs = {}
    for split, images in tested(request, str(path), found).items():
        image = _one(path, split, "images", images)
        labels = _labels(request, path, split, [each for each in arrays if splits[each] == split], image.shape[0])
        pairs[split] = image, _one(path, split, "labels", labels)
    taken = [each for pair in pairs.values() for each in pair]
    for split, (x, y) in pairs.items():
        rounded = ", rounded to 256 levels" if x.kind == "f" else ""
        request.say(f"{path}: {split} is array {printable(x.key)} {x.shape}{rounded}, labels are {printable(y.key)}")
    if left := [each for each in arrays if each not in taken and not each.is_names]:
        request.say(f"{path}: ignored: {_listed(left)}")
    return pairs


def _labels(request: Request, path: Path, split: str, arrays: list[_Array], n: int) -> list[_Array]:
    """Return the label arrays of a split of n images: any that `request.labels` names, else those of usual names.

    Raises:
        InputError: none has the requested name, or labels are stored as text.
    """
    asked = {word for each in request.labels for word in _words(each) if not split_of(word)}
    if asked:
        found = [each for each in arrays if each.may_be_labels and asked <= set(each.words)]
        if not found:
            among = f"no such array of {split} among {_listed(arrays)}"
            raise InputError(f"{path}: --labels {request.labels[0]}: {among}; name one")
        fewest = min(len(each.words) for each in found)  # the name alone, not the beginning of another
        found = [each for each in found if len(each.words) == fewest]
    else:
        found = [each for each in arrays if each.is_labels]
    numbers = [each for each in found if each.kind not in "US"]
    texts = [each for each in found if each.kind in "US" and each.shape[0] == n]
    if texts and not numbers:
        text = f"array {printable(texts[0].key)} {texts[0].shape} has text labels, expected integers from 0"
        raise InputError(f"{path}: {text}; {TEXT_LABELS}")
    return [each for each in numbers if "fine" in each.words] or numbers if len(numbers) > 1 else numbers


def _one(path: Path, split: str, what: str, arrays: list[_Array]) -> _Array:
    if len(arrays) == 1:
        return arrays[0]
    if not arrays:
        raise InputError(f"{path}: {split} has no {what}; add an array for them, as x_{split} and y_{split}")
    advice = "pass --labels NAME" if what == "labels" else "keep one of them, or give a single file"
    raise InputError(f"{path}: {split} has {len(arrays)} arrays of {what}, {_listed(arrays)}; {advice}")


def _listed(arrays: list[_Array]) -> str:
    named = [f"{printable(each.key)[:40]} {each.shape}" for each in arrays[:FEW]]
    return ", ".join(named + ["..."] * (len(arrays) > FEW)) or "(none)"


def _examples(images: _Array, labels: _Array) -> tuple[Images, Labels]:
    with open_array(images.tree, images.name) as file:
        pixels = pixels_of(file)
    return pixels, labels_in(labels.tree, labels.name)


def labels_in(tree: Tree, name: str) -> Labels:
    """Return labels (N,) from an array (N,) or (N, 1).

    Raises:
        InputError: it has another shape.
    """
    with open_array(tree, name) as file:
        check_one_each(file.shape, file.where)
        return file.whole().reshape(-1)


def _class_names(request: Request, arrays: list[_Array], pairs: dict[str, tuple[_Array, _Array]]) -> list[str] | None:
    """Return class names from an array, or those of the known dataset, or None."""
    for each in arrays:
        if each.is_names:
            with open_array(each.tree, each.name) as file:
                return [
                    str(name, "utf-8", "replace") if isinstance(name, bytes) else str(name) for name in file.whole()
                ]
    coarse = any("coarse" in labels.words for _, labels in pairs.values())
    return None if coarse else NAMES.get(request.name)
