"""CIFAR-10-C and CIFAR-100-C: the test images with many corruptions, each in five severities."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Never

import numpy as np

from bsk.data.archive import open_tree
from bsk.data.arrays import contents_of, images_of
from bsk.data.formats.cifar import NAMES
from bsk.data.formats.layout import HIDDEN
from bsk.data.formats.npy import ArrayFile, open_array
from bsk.data.formats.npz import labels_in
from bsk.data.official import located
from bsk.data.order import Labels, bytes_of
from bsk.data.splits import Contents, Request
from bsk.data.tree import Tree
from bsk.errors import InputError, UsageError

LABELS = "labels.npy"
SEVERITIES = 5
CLEAN = {"cifar10-c": "cifar10", "cifar100-c": "cifar100"}  # the dataset of the clean test images
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,79}")


def read(request: Request) -> Never:
    """Raise an error, because these datasets are many data files.

    Raises:
        UsageError: always.
    """
    advice = f"make them with: bsk prepare-data {request.name} --from FOLDER"
    raise UsageError(f"{request.name}: has one data file per corruption and severity; {advice}")


def each_set(request: Request) -> Iterator[Contents]:
    """Yield the test images, (N, 3, 32, 32), of each corruption and severity, one set at a time.

    `origin` names corruption and severity. The source has one file CORRUPTION.npy each, (5 N, 32, 32, 3) ordered by
    severity, and labels.npy, (5 N,) or (N,). Source: Hendrycks and Dietterich 2019.

    Raises:
        UsageError: no source is given.
        InputError: a file is missing or has another shape.
    """
    if not request.source:
        raise UsageError(f"--from: {request.name} is not downloaded; pass --from FOLDER, with {LABELS} in it")
    path = located(request, request.source)
    if path.is_file() and path.suffix == ".npy":
        raise InputError(f"{path}: a single file; give the folder that has it and {LABELS}")
    with open_tree(path) as whole:
        tree = whole.around(LABELS)
        names = [name for name in tree.sizes if _is_corruption(name)] if tree else []
        if tree is None or not names:
            found = f"no {request.name} in its {whole.endings()}, expected CORRUPTION.npy files and {LABELS}"
            raise InputError(f"{whole.place}: {found}; check --from")
        labels = labels_in(tree, LABELS)
        for name in sorted(names):
            yield from _severities(request, tree, name, labels)


def _is_corruption(name: str) -> bool:
    return name.endswith(".npy") and name != LABELS and "/" not in name and not HIDDEN.search(name)


def _severities(request: Request, tree: Tree, name: str, labels: Labels) -> Iterator[Contents]:
    corruption = name.removesuffix(".npy")
    if not NAME.fullmatch(corruption):
        raise InputError(
            f"{tree.where(name)}: not the name of a corruption, expected letters, digits and ._+-; rename it"
        )
    with open_array(tree, name) as file:
        n = _images_of_one(request, file, len(labels))
        every = labels if len(labels) > n else np.tile(labels, SEVERITIES)
        for severity, block in enumerate(file.blocks(n), 1):
            pair = bytes_of(images_of(block, file.where)), every[(severity - 1) * n : severity * n]
            found = {"test": pair, "classes": NAMES[CLEAN[request.name]]}
            contents = contents_of(found, f"{file.where}: severity {severity}")
            yield replace(contents, origin={"corruption": corruption, "severity": severity})


def _images_of_one(request: Request, file: ArrayFile, labels: int) -> int:
    """Return the number of images of each severity."""
    n, rest = divmod(file.shape[0] if file.shape else 0, SEVERITIES)
    if rest or not n or file.shape[1:] != (32, 32, 3):
        expected = f"({SEVERITIES} N, 32, 32, 3), ordered by severity"
        raise InputError(f"{file.where}: shape {file.shape}, expected {expected}; use the files of {request.name}")
    if labels not in (n, SEVERITIES * n):
        found = f"{labels} labels for {SEVERITIES} x {n} images"
        raise InputError(f"{file.where}: {found}; use {LABELS} of the same {request.name}")
    return n
