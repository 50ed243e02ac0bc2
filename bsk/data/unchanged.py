"""Noticing that a file of images changes while it is in use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from bsk.errors import InputError


class Unchanged:
    """A file as it was when its images began to be used.

    bsk never writes into a file: it puts a new one in its place. But `cp` and `scp` do, and tensors that safetensors
    has loaded are mapped from the file, so that they change with it (`findings/safetensors_follow_their_file.sh`).
    """

    def __init__(self, path: Path, known: Callable[[], str | None], reread: Callable[[], str]) -> None:
        """Remember size and time of the file.

        `known` returns the checksum of its contents, or None if it was not needed so far; `reread` computes it.
        """
        self._path, self._known, self._reread = path, known, reread
        self._seen = _seen(path.stat())

    def check(self, found: os.stat_result) -> None:
        """Compare the file, of which `found` is the present status, with what it was.

        Its contents are read only if size or time differ, so that a file may be touched, or replaced by an equal one.

        Raises:
            InputError: its contents are different.
        """
        if _seen(found) == self._seen:
            return
        same, known = False, self._known()  # what was not needed so far can no longer be known
        if known is not None:
            with contextlib.suppress(InputError, OSError):  # it may be half a file now, or unreadable
                same = self._reread() == known
        if not same:
            raise InputError(
                f"{self._path}: has changed while it was in use; restore it, and run the same command again"
            )
        self._seen = _seen(found)

    def check_mapped(self) -> None:
        """Do the same for tensors that are mapped from the file, and that stay if it is removed or replaced.

        Raises:
            InputError: its contents are different.
        """
        try:
            found = self._path.stat()
        except OSError:
            return
        if found.st_ino == self._seen[0]:
            self.check(found)


def _seen(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns
