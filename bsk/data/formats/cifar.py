"""CIFAR-10 and CIFAR-100 in the python and the binary layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bsk.data.archive import open_tree
from bsk.data.formats import pickles
from bsk.data.official import find
from bsk.data.order import Images, Labels
from bsk.data.pictures import is_picture
from bsk.data.splits import Contents, Request
from bsk.data.store import Part
from bsk.data.tree import Tree
from bsk.errors import InputError, UsageError

PIXELS = 3 * 32 * 32  # bytes of an image: the red, green and blue planes, each row by row
ROWS = 1000  # images of a binary file read at once


@dataclass(frozen=True)
class Layout:
    """One layout of the dataset.

    Attributes:
        train, test, names: names of the files; names has the class names.
        label, names_key: keys in the pickles of the python layout.
        label_bytes: in the binary layout, the number of bytes before the pixels of each image.
        label_at: which of these bytes is the label.
    """

    train: tuple[str, ...]
    test: str
    names: str
    label: str = ""
    names_key: str = ""
    label_bytes: int = 0
    label_at: int = -1

    @property
    def files(self) -> list[str]:
        """The names of all files that are read."""
        return [*self.train, self.test, self.names]

    @property
    def coarse(self) -> Layout:
        """The same files with the coarse labels of CIFAR-100."""
        label, key, names = (each.replace("fine", "coarse") for each in (self.label, self.names_key, self.names))
        return replace(self, label=label, names_key=key, names=names, label_at=0)


LAYOUTS = {
    "cifar10": (
        Layout(tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta", "labels", "label_names"),
        Layout(tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", "batches.meta.txt", label_bytes=1),
    ),
    "cifar100": (
        Layout(("train",), "test", "meta", "fine_labels", "fine_label_names"),
        Layout(("train.bin",), "test.bin", "fine_label_names.txt", label_bytes=2),  # coarse, fine
    ),
}
CLASSES = {"cifar10": 10, "cifar100": 100}
COARSE = 20  # classes of CIFAR-100's coarse labels
_FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm"""
NAMES = {  # class names, for formats with numbers only. Source: batches.meta and meta of the official archives
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "cifar100": _FINE.split(),
}


def read(request: Request) -> Contents:
    """Return CIFAR-10 or CIFAR-100, images (N, 3, 32, 32), from an archive or folder in either layout.

    CIFAR-100 has its fine labels, or the coarse ones if `request.labels` names them.
    Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
    """
    coarse = _coarse(request)
    source = find(request)
    with open_tree(source.path) as whole:
        tree, layout = _layout(request.name, whole)
        layout = layout.coarse if coarse else layout
        count = COARSE if coarse else CLASSES[request.name]
        files, official = source.checksums(request, tree, layout.files)
        found: dict[str, Any] = {}
        for name in tree.sizes:  # in the order of the archive, so that it is unpacked once
            if name in layout.files:
                batch = _read_binary if layout.label_bytes else _read_pickle
                found[name] = _names(count, tree, layout) if name == layout.names else batch(tree, layout, name)
    classes = found[layout.names]
    test = _part(whole.place, found, [layout.test], len(classes))
    return Contents(classes, _part(whole.place, found, layout.train, len(classes)), test, files, official)


def _coarse(request: Request) -> bool:
    """Return whether `request.labels` names the coarse labels."""
    asked = [each.lower().removesuffix("s").removesuffix("_label") for each in request.labels]
    if asked and (request.name != "cifar100" or asked[0] not in ("coarse", "fine")):
        has = "fine_labels and coarse_labels" if request.name == "cifar100" else "one set of labels"
        raise UsageError(f"--labels {request.labels[0]}: {request.name} has {has}; leave it out, or name one")
    return asked == ["coarse"]


def _layout(dataset: str, whole: Tree) -> tuple[Tree, Layout]:
    """Return the folder of the dataset's files and their layout."""
    for layout in LAYOUTS[dataset]:
        tree = whole.around(layout.train[0], layout.names)
        if tree:
            missing = [name for name in layout.files if name not in tree.sizes]
            if missing:
                raise InputError(f"{tree.where(missing[0])} is missing; use the complete official archive")
            return tree, layout
    for other, layouts in LAYOUTS.items():
        if any(whole.around(layout.train[0], layout.names) for layout in layouts):
            raise InputError(f"{whole.place}: holds {other}, expected {dataset}; use: bsk prepare-data {other}")
    expected = " or ".join(f"{layout.train[0]} and {layout.names}" for layout in LAYOUTS[dataset])
    pictured = any(map(is_picture, whole.sizes))
    advice = f"use: bsk prepare-data folder --from {whole.place}" if pictured else "check --from"
    raise InputError(f"{whole.place}: no {dataset} in its {whole.endings()}, expected {expected}; {advice}")


def _names(n: int, tree: Tree, layout: Layout) -> list[str]:
    where = tree.where(layout.names)
    if layout.label_bytes:
        names = tree.read(layout.names).decode("utf-8", "replace").split()
    else:
        with tree.open(layout.names) as file:
            found = pickles.load(file, tree.sizes[layout.names], where).get(layout.names_key)
        listed = found if isinstance(found, list) else []
        names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in listed]
    if len(names) != n or len(set(names)) != n:
        raise InputError(f"{where}: {len(set(names))} class names, expected {n}; use the official archive")
    return names


def _part(place: str, found: dict[str, Any], names: Sequence[str], classes: int) -> Part:
    """Join the files of a split in the order of the layout, and release them."""
    labels = np.concatenate([found[name][1] for name in names])
    if labels.min() < 0 or labels.max() >= classes:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise InputError(f"{place}: label {wrong} is outside 0..{classes - 1}; use the official archive")
    images = joined([found.pop(name)[0] for name in names])
    return Part(images.reshape(-1, 3, 32, 32), labels)


def joined(pieces: list[Images]) -> Images:
    """Return the rows of all pieces, (N, ...); each piece is released as soon as it is copied."""
    if len(pieces) == 1:
        return pieces[0]
    whole = np.empty((sum(len(piece) for piece in pieces), *pieces[0].shape[1:]), pieces[0].dtype)
    end = len(whole)
    while pieces:
        piece = pieces.pop()
        whole[end - len(piece) : end] = piece
        end -= len(piece)
    return whole


def _read_pickle(tree: Tree, layout: Layout, name: str) -> tuple[Images, Labels]:
    """Return images (N, 3072) and labels (N,) of one file."""
    where = tree.where(name)
    with tree.open(name) as file:
        found = pickles.load(file, tree.sizes[name], where)
    images = pickles.pixels(found.get("data"), where)
    labels = found.get(layout.label)
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise InputError(f"{where}: {layout.label} is not a list of whole numbers; use the official archive")
    if len(labels) != len(images) or not labels:
        raise InputError(f"{where}: {len(labels)} labels for {len(images)} images; use the official archive")
    return images, np.array(np.clip(labels, -1, 1000), np.int64)


def _read_binary(tree: Tree, layout: Layout, name: str) -> tuple[Images, Labels]:
    width = layout.label_bytes + PIXELS
    n, rest = divmod(tree.sizes[name], width)
    if rest or not n:
        where = tree.where(name)
        raise InputError(f"{where}: {tree.sizes[name]} bytes, expected a multiple of {width}; download it again")
    images, labels = np.empty((n, PIXELS), np.uint8), np.empty(n, np.int64)
    with tree.open(name) as file:
        for start in range(0, n, ROWS):
            rows = np.frombuffer(file.read(min(ROWS, n - start) * width), np.uint8).reshape(-1, width)
            labels[start : start + len(rows)] = rows[:, : layout.label_bytes][:, layout.label_at]
            images[start : start + len(rows)] = rows[:, layout.label_bytes :]
    return images, labels
