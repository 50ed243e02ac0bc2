"""File locks that end with their process: flock, or a marker file where the file system does not support flock."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from bsk.errors import InputError
from bsk.records.atomic import appending, naming_the_file, still_named

NO_FLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}
MOMENT = 0.2  # seconds, enough to recognise the marker of a dead process
PATIENCE = 600.0  # seconds to wait for a marker, since it is unknown whether a process on another host is alive
POLL = 0.02  # seconds between two attempts


@contextlib.contextmanager
def locked(file: IO[bytes], path: Path, refusal: str | None = None) -> Iterator[None]:
    """Hold the lock of the open file `path` within the block, and until the file is closed.

    If another process holds it, wait, or with `refusal` raise an error with that message. A marker of a dead process on
    this host is removed; a marker from another host stays until somebody removes it.

    Raises:
        InputError: the lock is held and `refusal` is given, a marker stays for PATIENCE seconds, or locking fails.
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
    """Hold the lock file `path` within the block; other processes wait or are refused, as in `locked`.

    Raises:
        InputError: see `locked`.
    """
    while True:
        with appending(path) as file, locked(file, path, refusal):
            if still_named(file.fileno(), path):  # else the process that held it has removed the file
                try:
                    yield
                    return
                finally:
                    path.unlink(missing_ok=True)


def only_writer(target: Path) -> contextlib.AbstractContextManager[None]:
    """Make this the only process that writes `target` within the block; others are refused.

    Raises:
        InputError: see `locked`.
    """
    refusal = f"{target}: another bsk is writing it; wait for it or choose another --out"
    return exclusive(target.with_name(f".{target.name}.lock"), refusal)


def _flock(file: IO[bytes], wait: bool) -> bool | None:
    """Return whether the file is locked now, or None if flock is not supported."""
    from filelock import lock_descriptor  # imported here to keep bsk --help fast

    try:
        return lock_descriptor(file.fileno(), blocking=wait, poll_interval=POLL)
    except OSError as error:
        if error.errno in NO_FLOCK:
            return None
        raise


@contextlib.contextmanager
def _marker(path: Path, refusal: str | None) -> Iterator[None]:
    """Hold the lock of `path` by a marker file in the same folder, which exists as long as the lock is held."""
    from filelock import SoftFileLock, Timeout

    marker = path.with_name(f".{path.name.removeprefix('.')}.lock")
    lock = SoftFileLock(marker, timeout=PATIENCE if refusal is None else MOMENT, poll_interval=POLL)
    try:
        lock.acquire()
    except Timeout as error:
        message = refusal or f"{path}: another bsk has locked it for {PATIENCE:.0f} s; wait for it"
        raise InputError(f"{message}, or remove {marker} if none is running") from error
    try:
        yield
    finally:
        lock.release()
