"""Which form a source has, by what is in it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from bsk.data.archive import open_tree
from bsk.data.formats import npz, parquet
from bsk.data.formats.layout import HIDDEN
from bsk.data.formats.npy import MAGIC
from bsk.data.official import located
from bsk.data.pictures import is_picture
from bsk.data.splits import Contents, Request
from bsk.errors import InputError

Reader = Callable[[Request], Contents]
ARRAYS = (".npy", ".npz")


def reader(request: Request) -> Reader | None:
    """Return the reader of a source that is parquet or numpy's; None for archives and folders of other files.

    A file is known by its first bytes, a folder by what most tells: pictures, then parquet, then arrays. A tar archive
    is not looked into.

    Raises:
        InputError: it is a file of torch.
    """
    if not request.source:
        return None
    path = located(request, request.source)
    if path.is_dir():
        if any(is_picture(name) for _, _, names in os.walk(path) for name in names):  # at once, with the first
            return None
        with open_tree(path) as tree:
            return _of([name for name in tree.sizes if not HIDDEN.search(name)])
    start = _start(path)
    if start.startswith(parquet.MAGIC):
        return parquet.read
    if start.startswith(MAGIC):
        return npz.read
    members = _members(path) if start.startswith(b"PK") else []
    if any(name.endswith("/data.pkl") for name in members):
        raise InputError(
            f"{path}: a file of torch.save, a pickle that could run code; save its arrays with numpy.savez"
        )
    return _of(members)


def _of(names: list[str]) -> Reader | None:
    if any(map(is_picture, names)):
        return None
    if any(name.lower().endswith(parquet.SUFFIX) for name in names):
        return parquet.read
    return npz.read if any(name.lower().endswith(ARRAYS) for name in names) else None


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError:  # who reads it says what is wrong
        return b""


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, RuntimeError, LookupError):
        return []
