"""The files of a folder or archive, by name, and what is believed of them."""

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

MEMBERS = 500_000  # files in one archive that are still believed; Tiny ImageNet has 120,000
ROOM = 1 << 26  # bytes that anything may expand to; beyond that,
EXPANSION = 200  # times its own size
BLOCK = 1 << 20  # bytes read at once
NAME = 1024  # characters of a name in an archive; macOS has no longer paths
_PACKED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # bz2 and gzip raise the following
TORN = (*_PACKED, EOFError, OSError, ValueError, RuntimeError, LookupError)


def believable(size: int) -> int:
    """Return how many bytes so many may become when they are unpacked or decoded."""
    return max(ROOM, EXPANSION * size)


class Readable(Protocol):
    """A member of an archive that can be read once, from its start to its end."""

    def read(self, n: int, /) -> bytes:
        """Return up to n bytes; none at the end."""

    def close(self) -> None:
        """Let go of it."""


@dataclass(frozen=True)
class Tree:
    """The files of an archive or folder: their sizes by name, in the order in which they are read fastest.

    `most` is the number of bytes that all of them may become, whatever is in them; `folders` are those that an archive
    lists by themselves, or that are empty.
    """

    place: str
    sizes: dict[str, int]
    opener: Callable[[str], Readable] = field(repr=False)
    most: int = ROOM
    folders: frozenset[str] = frozenset()

    def where(self, name: str) -> str:
        """Return how messages call a file: the archive or folder, then the name in it."""
        return f"{self.place}: {printable(name)}"

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for reading from its start to its end, one file at a time.

        Raises:
            InputError: it is missing or torn.
        """
        if name not in self.sizes:
            raise InputError(f"{self.where(name)} is missing; take the whole official archive")
        with reading(self.where(name)):
            member = self.opener(name)
        with contextlib.closing(member), io.BufferedReader(_Checked(member, self.where(name)), BLOCK) as file:
            yield file

    def read(self, name: str, most: int = ROOM) -> bytes:
        """Return the bytes of a file.

        Raises:
            InputError: it is missing, torn, or larger than `most` bytes.
        """
        size = self.sizes.get(name, 0)
        if size > most:
            raise InputError(f"{self.where(name)} has {size} bytes, expected at most {most}; remove it")
        with self.open(name) as file:
            return file.read(size + 1)

    def endings(self) -> str:
        """Return what there is, as "50000 .png, 1 .csv files", the most first."""
        counts = Counter(PurePosixPath(name).suffix.lower() or "other" for name in self.sizes).most_common(4)
        return f"{', '.join(f'{n} {printable(each)[:20]}' for each, n in counts)} files" if counts else "no files"

    def below(self, folder: str) -> Tree:
        """Return the files below a folder (its name ends in /, or is empty), named from there.

        All names are copied, so this is no step on the way through folders in folders.
        """
        if not folder:
            return self
        sizes = {name[len(folder) :]: n for name, n in self.sizes.items() if name.startswith(folder)}
        inner = frozenset(name[len(folder) :] for name in self.folders if name.startswith(folder))
        return Tree(self.place, sizes, lambda name: self.opener(folder + name), self.most, inner)

    def around(self, *names: str) -> Tree | None:
        """Return the files below the topmost folder in which all these names are files, or None."""
        ends = [name[: -len(names[0])] for name in self.sizes if f"/{name}".endswith(f"/{names[0]}")]
        for folder in sorted(ends, key=lambda each: (each.count("/"), each)):
            if all(folder + name in self.sizes for name in names):
                return self.below(folder)
        return None


class _Checked(io.RawIOBase):
    """Turns what goes wrong while reading a member into one line that names it."""

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
    """Turn what goes wrong while reading a file or archive into one line that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{error.filename or where}: no such file or folder; check --from") from error
    except TORN as error:
        reason = (f"{error}".split("\n")[0] or type(error).__name__)[:80]
        raise InputError(f"{where}: cannot be read, or is not whole ({reason}); check it, or replace it") from error


def printable(name: str) -> str:
    """Return a file's name fit for a message of one line."""
    return name if name.isprintable() else ascii(name)


def admit(place: str, sizes: dict[str, int], name: str, size: int) -> str:
    """Add a member of an archive to the list, if its name stays inside and the list stays believable.

    Returns:
        Its name there: parted by / on Windows too, without the ./ that `tar -C FOLDER .` begins with.

    Raises:
        InputError: its name is too long, is absolute, holds `..`, or stands twice; or there are too many.
    """
    if len(name) > NAME:  # packed, such names take next to nothing
        raise refused(place, name, f"goes on to {len(name)} characters")
    parts = name.replace("\\", "/").split("/")
    plain = "/".join(part for part in parts if part not in ("", "."))
    if ".." in parts or not parts[0] or parts[0].endswith(":") or "\0" in name:
        raise refused(place, name, "leads outside the archive")
    if plain in sizes or size < 0 or len(sizes) >= MEMBERS:
        raise refused(place, name, "stands twice, or is one too many")
    sizes[plain] = size
    return plain


def refused(place: str, name: str, why: str) -> InputError:
    """Return the error of an archive that nobody should trust."""
    return InputError(f"{place}: {printable(name)[:100]} {why}; such archives are refused, take the official one")


def too_large(place: str) -> InputError:
    """Return the error of an archive that would expand beyond reason."""
    return InputError(f"{place}: expands beyond reason; such archives are refused, take the official one")
