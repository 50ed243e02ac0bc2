"""Files that are whole or absent: written beside their target, synced, renamed."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import tempfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import IO

from bsk.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it becomes `path`, otherwise it is removed.

    The file and its folder are synced before and after the rename, so that a file with its final name is
    whole even after a power cut. Parent folders are made, and synced.

    Raises:
        InputError: the folder cannot be written, or the disk is full; whatever stood at `path` still stands.
    """
    with naming_the_file(path):
        make_folder(path.parent)
        _sweep(path)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        try:
            _lock(handle)  # it says that somebody is writing
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes it private
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


def still_named(handle: int, path: Path) -> bool:
    """Return whether `path` is still the open file: a lock on one that was removed keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _sweep(path: Path) -> None:
    """Remove what a process that was killed has left beside `path`: nobody holds its lock any more."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError), left.open("rb") as file:
            if _lock(file.fileno()):
                left.unlink()


def _lock(handle: int) -> bool:
    """Lock an open file if nobody holds it, and return whether it is; where there is no flock, it is not."""
    from filelock import lock_descriptor  # here, so that bsk --help is not kept waiting

    try:
        return lock_descriptor(handle, blocking=False)
    except OSError:
        return False


@contextlib.contextmanager
def appending(path: Path) -> Iterator[FileIO]:
    """Open a file to read it and write at its end, which is made where there is none, its folders too.

    It has no buffer: what a full disk has not taken would be tried again when it is closed. A new name is synced in
    its folder, as that of a file that a process made just before it died.

    Raises:
        InputError: it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        with naming_the_file(path):
            make_folder(path.parent)
            file = stack.enter_context(FileIO(path, "a+"))
            if not os.fstat(file.fileno()).st_size:
                sync(path.parent)
        yield file


def write_all(file: IO[bytes], content: bytes) -> None:
    """Write all bytes to a file without a buffer, which may take a part of them at a time."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def make_folder(folder: Path) -> None:
    """Make a folder and those around it, and sync their names."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync(each.parent)


@contextlib.contextmanager
def naming_the_file(path: Path) -> Iterator[None]:
    """Turn an `OSError` while writing `path` into one line that names it and the next step."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "free some space or write elsewhere",
            errno.EDQUOT: "free some space or write elsewhere",
            errno.EACCES: "choose a folder you may write",
            errno.EROFS: "choose a folder you may write",
        }.get(error.errno or 0, "choose another path")
        raise InputError(f"{path}: cannot write: {error.strerror or error}; {advice}") from error


def sync(path: Path) -> None:
    """Have the content of a file, or the names in a folder, outlast a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
