"""Detection of the format of a source from its content."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable
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
ILLUSTRATIONS = 9  # images in a single folder, as of a README, at most


def reader(request: Request) -> Reader | None:
    """Return the reader for a parquet or numpy source; None for other archives and folders.

    A file is recognised by its first bytes, a folder by its files: images first, then parquet, then arrays. A few
    images in one folder do not count if there are others. The content of a tar archive is not examined.

    Raises:
        InputError: the source is a file of torch.save.
    """
    if not request.source:
        return None
    path = located(request, request.source)
    if path.is_dir():
        folders = os.walk(path)
        if _has_images(f"{Path(at).relative_to(path)}/{name}" for at, _, names in folders for name in names):
            return None  # after the first images; the list of all files takes longer
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
            f"{path}: a file of torch.save, which is a pickle and could run code; save its arrays with numpy.savez"
        )
    return _of(members)


def _of(names: list[str]) -> Reader | None:
    if _has_images(names):
        return None
    if any(name.lower().endswith(parquet.SUFFIX) for name in names):
        return parquet.read
    return npz.read if any(name.lower().endswith(ARRAYS) for name in names) else None


def _has_images(names: Iterable[str]) -> bool:
    """Return whether there are images in two subfolders, or more of them than may illustrate other files."""
    folders: set[str] = set()
    for count, name in enumerate(filter(is_picture, names), 1):
        folders.add(name.rpartition("/")[0])
        if count > ILLUSTRATIONS or len(folders - {"", "."}) > 1:
            return True
    return False


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError:  # the error is raised when it is read
        return b""


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, RuntimeError, LookupError):
        return []
