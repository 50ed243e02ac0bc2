"""The files of a folder or archive by name, with limits on their number and size."""

from __future__ import annotations

import contextlib
import io
import lzma
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any, Protocol

from bsk.errors import InputError

MEMBERS = 500_000  # files in an archive, at most; Tiny ImageNet has 120,000
ROOM = 1 << 26  # bytes to which any file may expand; larger only up to
EXPANSION = 200  # times its own size
BLOCK = 1 << 20  # bytes read at once
NAME = 1024  # characters of a name in an archive, at most; the longest path of macOS
_PACKED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # bz2 and gzip raise those below
TORN = (*_PACKED, EOFError, OSError, ValueError, RuntimeError, LookupError)


def believable(size: int) -> int:
    """Return how many bytes a file of this size may have after unpacking or decoding."""
    return max(ROOM, EXPANSION * size)


class Readable(Protocol):
    """A member of an archive that can be read once, from start to end."""

    def read(self, n: int, /) -> bytes:
        """Return up to n bytes; none at the end."""

    def close(self) -> None:
        """Close the member."""


@dataclass(frozen=True)
class Tree:
    """The files of an archive or folder.

    Attributes:
        place: path of the archive or folder.
        sizes: sizes by name, in the order that is fastest to read.
        opener: opens a file by name.
        most: bytes of all files together after decoding, at most.
        folders: folders that an archive lists explicitly, or that are empty.
    """

    place: str
    sizes: dict[str, int]
    opener: Callable[[str], Readable] = field(repr=False)
    most: int = ROOM
    folders: frozenset[str] = frozenset()

    def where(self, name: str) -> str:
        """Return the name of a file in messages: the archive or folder, then the name in it."""
        return f"{self.place}: {printable(name)}"

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for reading from start to end; only one file may be open at a time.

        Raises:
            InputError: it is missing or corrupt.
        """
        if name not in self.sizes:
            raise InputError(f"{self.where(name)} is missing; use the complete official archive")
        with reading(self.where(name)):
            member = self.opener(name)
        with contextlib.closing(member), io.BufferedReader(_Checked(member, self.where(name)), BLOCK) as file:
            yield file

    def read(self, name: str, most: int = ROOM) -> bytes:
        """Return the bytes of a file.

        Raises:
            InputError: it is missing, corrupt, or larger than `most` bytes.
        """
        size = self.sizes.get(name, 0)
        if size > most:
            raise InputError(f"{self.where(name)} has {size} bytes, expected at most {most}; remove it")
        with self.open(name) as file:
            return file.read(size + 1)

    def endings(self) -> str:
        """Return the most frequent file endings, as "50000 .png, 1 .csv files"."""
        counts = Counter(PurePosixPath(name).suffix.lower() or "other" for name in self.sizes).most_common(4)
        return f"{', '.join(f'{n} {printable(each)[:20]}' for each, n in counts)} files" if counts else "no files"

    def below(self, folder: str) -> Tree:
        """Return the files below a folder, with names relative to it; the folder ends in / or is empty.

        All names are copied, so this must not be used to descend one folder at a time.
        """
        if not folder:
            return self
        sizes = {name[len(folder) :]: n for name, n in self.sizes.items() if name.startswith(folder)}
        inner = frozenset(name[len(folder) :] for name in self.folders if name.startswith(folder))
        return Tree(self.place, sizes, lambda name: self.opener(folder + name), self.most, inner)

    def around(self, *names: str) -> Tree | None:
        """Return the files below the topmost folder that contains all these files, or None."""
        ends = [name[: -len(names[0])] for name in self.sizes if f"/{name}".endswith(f"/{names[0]}")]
        for folder in sorted(ends, key=lambda each: (each.count("/"), each)):
            if all(folder + name in self.sizes for name in names):
                return self.below(folder)
        return None


class _Checked(io.RawIOBase):
    """Converts errors while reading a member to an InputError that names it."""

    def __init__(self, file: Readable, where: str) -> None:
        self.file, self.where = file, where

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with reading(self.where):
            found = self.file.read(min(len(buffer), BLOCK))
        buffer[: len(found)] = found
        return len(found)


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Convert errors while reading a file or archive to an InputError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{error.filename or where}: no such file or folder; check --from") from error
    except TORN as error:
        reason = (f"{error}".split("\n")[0] or type(error).__name__)[:80]
        raise InputError(f"{where}: cannot be read or is corrupt ({reason}); check it, or replace it") from error


def printable(name: str) -> str:
    """Return a file name that is safe in a one-line message."""
    return name if name.isprintable() else ascii(name)


def admit(place: str, sizes: dict[str, int], name: str, size: int) -> str:
    """Add a member of an archive to `sizes`, if its name is safe and there are not too many members.

    Returns:
        Its normalised name: separated by /, without the leading ./ of `tar -C FOLDER .`.

    Raises:
        InputError: the name is too long, absolute, has `..`, or occurs twice; or there are too many members.
    """
    if len(name) > NAME:  # compressed, long names take almost no space
        raise refused(place, name, f"has a name of {len(name)} characters")
    parts = name.replace("\\", "/").split("/")
    plain = "/".join(part for part in parts if part not in ("", "."))
    if ".." in parts or not parts[0] or parts[0].endswith(":") or "\0" in name:
        raise refused(place, name, "leads outside the archive")
    if plain in sizes or size < 0 or len(sizes) >= MEMBERS:
        raise refused(place, name, "occurs twice, or exceeds the number of files allowed")
    sizes[plain] = size
    return plain


def refused(place: str, name: str, why: str) -> InputError:
    """Return the error for an unsafe archive."""
    return InputError(f"{place}: {printable(name)[:100]} {why}; such archives are refused, use the official one")


def too_large(place: str) -> InputError:
    """Return the error for an archive that would expand to an unreasonable size."""
    return InputError(f"{place}: expands to an unreasonable size; such archives are refused, use the official one")
