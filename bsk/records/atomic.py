"""Atomic file writing: to a temporary file in the same folder, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import IO

from bsk.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on a clean exit it replaces `path`, otherwise it is removed.

    The file is synced before the rename and its folder after it, so that a file with its final name is complete even
    after a power failure. Missing parent folders are created and synced.

    Raises:
        InputError: the folder cannot be written, or the disk is full; a file that was at `path` is still there.
    """
    with naming_the_file(path):
        make_folder(path.parent)
        sweep(path)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        try:
            lock(handle)  # shows other processes that the file is being written
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp creates it with mode 0600
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


def still_named(handle: int, path: Path) -> bool:
    """Return whether `path` is still the open file; a lock on a removed file excludes nobody."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def sweep(path: Path) -> None:
    """Remove temporary files and folders of `path` that killed processes have left, which are not locked."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY)
            try:
                if lock(handle):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            finally:
                os.close(handle)


def lock(handle: int) -> bool:
    """Try to lock an open file or folder and return whether that worked; without flock it does not."""
    from filelock import lock_descriptor  # imported here to keep bsk --help fast

    try:
        return lock_descriptor(handle, blocking=False)
    except OSError:
        return False


@contextlib.contextmanager
def appending(path: Path) -> Iterator[FileIO]:
    """Open a file for reading and appending; the file and its folders are created if missing.

    The file is unbuffered, since a buffer would retry a failed write on closing. The folder of an empty file is synced,
    also if another process created the file just before it was killed.

    Raises:
        InputError: the file cannot be created.
    """
    with contextlib.ExitStack() as stack:
        with naming_the_file(path):
            make_folder(path.parent)
            file = stack.enter_context(FileIO(path, "a+"))
            if not os.fstat(file.fileno()).st_size:
                sync(path.parent)
        yield file


def write_all(file: IO[bytes], content: bytes) -> None:
    """Write all bytes to an unbuffered file, which may accept only some of them per call."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, and sync their directory entries."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync(each.parent)


@contextlib.contextmanager
def naming_the_file(path: Path) -> Iterator[None]:
    """Turn an `OSError` while writing `path` into an InputError of one line with the path and the next step."""
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
    """Flush the content of a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
