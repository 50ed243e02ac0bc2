"""Files that are whole or absent: written beside their target, synced, renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
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
            fcntl.flock(handle, fcntl.LOCK_EX)  # it says that somebody is writing
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes it private
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


@contextlib.contextmanager
def exclusive(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path` within the block, after whoever holds it; a dead process holds none.

    Raises:
        InputError: it cannot be made, or another holds it and `wait` is false.
    """
    from filelock import FileLock  # here, so that bsk --help is not kept waiting

    lock = FileLock(path, timeout=-1 if wait else 0)
    with naming_the_file(path):
        make_folder(path.parent)
        lock.acquire()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: whoever gets a lock on a removed file asks again
        lock.release()


@contextlib.contextmanager
def only_writer(target: Path) -> Iterator[None]:
    """Be the only bsk within the block that makes `target`; who comes second is refused.

    Raises:
        InputError: another is making it, or its lock file cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(target.with_name(f".{target.name}.lock"), wait=False))
        except InputError as error:
            if isinstance(error.__cause__, TimeoutError):
                raise InputError(f"{target}: another bsk is writing it; wait for it or choose another --out") from error
            raise
        yield


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
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


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
