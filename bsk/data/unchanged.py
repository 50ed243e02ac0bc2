"""Noticing that a data file changes while it is in use."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from bsk.errors import InputError

if TYPE_CHECKING:
    from bsk.data.store import DataFile


class Unchanged:
    """A data file as it was when its images began to be used.

    bsk never writes into a file: it puts a new one in its place. But `cp` and `scp` do, and tensors that safetensors
    has loaded are mapped from the file, so that they change with it (`findings/safetensors_follow_their_file.sh`).
    """

    def __init__(self, data: DataFile) -> None:
        """Remember size and time of the file."""
        self._data, self._seen = data, _seen(data.path.stat())

    def check(self, found: os.stat_result) -> None:
        """Compare the file, of which `found` is the present status, with what it was.

        Its contents are read only if size or time differ, so that a file may be touched, or replaced by an equal one.

        Raises:
            InputError: its contents are different.
        """
        if _seen(found) == self._seen:
            return
        same, known = False, vars(self._data).get("sha256")  # if it was not needed so far, it can no longer be known
        if known is not None:
            with contextlib.suppress(InputError):  # it may be half a file now
                same = self._data.reopened().sha256 == known
        if not same:
            raise InputError(
                f"{self._data.path}: has changed while it was in use; restore it, and run the same command again"
            )
        self._seen = _seen(found)

    def check_mapped(self) -> None:
        """Do the same for tensors that are mapped from the file, and that stay if it is removed or replaced.

        Raises:
            InputError: its contents are different.
        """
        with contextlib.suppress(OSError):
            found = self._data.path.stat()
            if found.st_ino == self._seen[0]:
                self.check(found)


def _seen(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns
