"""Locks that fall with their process: flock on a file, or a marker beside it where the file system has no flock."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from bsk.errors import InputError
from bsk.records.atomic import appending, naming_the_file, still_named

NO_FLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}
MOMENT = 0.2  # seconds in which the marker of a dead process is seen to be one
PATIENCE = 600.0  # seconds that one waits for a marker: whether a process of another host lives, nobody can tell
POLL = 0.02  # seconds between two looks


@contextlib.contextmanager
def locked(file: IO[bytes], path: Path, refusal: str | None = None) -> Iterator[None]:
    """Hold the lock of an open file `path` within the block, and until it is closed.

    Who comes second waits, or is refused with an error that says so. A marker of a dead process of this host is
    removed; one of another host stays until somebody removes it.

    Raises:
        InputError: it is refused, a marker stays for PATIENCE seconds, or there can be no lock.
    """
    with contextlib.ExitStack() as stack:
        with naming_the_file(path):
            held = _flock(file, refusal is None)
            if held is None:
                stack.enter_context(_marker(path, refusal))
        if held is False:
            raise InputError(refusal)
        yield


@contextlib.contextmanager
def exclusive(path: Path, refusal: str | None = None) -> Iterator[None]:
    """Hold the lock file `path` within the block; who comes second waits or is refused, as in `locked`.

    Raises:
        InputError: see `locked`.
    """
    while True:
        with appending(path) as file, locked(file, path, refusal):
            if still_named(file.fileno(), path):  # not removed by who held it
                try:
                    yield
                    return
                finally:
                    path.unlink(missing_ok=True)


def only_writer(target: Path) -> contextlib.AbstractContextManager[None]:
    """Be the only bsk within the block that makes `target`; who comes second is refused.

    Raises:
        InputError: see `locked`.
    """
    refusal = f"{target}: another bsk is writing it; wait for it or choose another --out"
    return exclusive(target.with_name(f".{target.name}.lock"), refusal)


def _flock(file: IO[bytes], wait: bool) -> bool | None:
    """Return whether the file is locked now, None where there is no flock."""
    from filelock import lock_descriptor  # here, so that bsk --help is not kept waiting

    try:
        return lock_descriptor(file.fileno(), blocking=wait, poll_interval=POLL)
    except OSError as error:
        if error.errno in NO_FLOCK:
            return None
        raise


@contextlib.contextmanager
def _marker(path: Path, refusal: str | None) -> Iterator[None]:
    """Hold the lock of `path` by a file beside it, which is there as long as it is held."""
    from filelock import SoftFileLock, Timeout

    marker = path.with_name(f".{path.name.removeprefix('.')}.lock")
    lock = SoftFileLock(marker, timeout=PATIENCE if refusal is None else MOMENT, poll_interval=POLL)
    try:
        lock.acquire()
    except Timeout as error:
        said = refusal or f"{path}: another bsk has had it for {PATIENCE:.0f} s; wait for it"
        raise InputError(f"{said}, or remove {marker} if none is running") from error
    try:
        yield
    finally:
        lock.release()
