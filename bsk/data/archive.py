"""Archives and folders, read in place: nothing is extracted, and nothing outside them is read."""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from bsk.data.tree import BLOCK, MEMBERS, TORN, Tree, admit, believable, reading, refused, too_large
from bsk.errors import InputError

UNKNOWN = "an unknown kind of file"
LFS = b"version https://git-lfs"
KINDS = {  # the first bytes of files of other kinds, what they are, and what to do
    b"\x89HDF\r\n": ("an HDF5 file", "save its arrays with numpy.savez"),
    b"MATLAB 5.0": ("a MATLAB file", "save its arrays with numpy.savez"),
    b"\x80\x02": ("a pickle, which could run code", "save its arrays with numpy.savez"),
    b"\x80\x03": ("a pickle, which could run code", "save its arrays with numpy.savez"),
    b"\x80\x04": ("a pickle, which could run code", "save its arrays with numpy.savez"),
    b"\x80\x05": ("a pickle, which could run code", "save its arrays with numpy.savez"),
    b"\x00\x00\x08\x01": ("a label file in MNIST's IDX format", "save images and labels with numpy.savez"),
    b"\x00\x00\x08\x03": ("an image file in MNIST's IDX format", "save images and labels with numpy.savez"),
    LFS: ("a Git LFS pointer instead of the file", "fetch it with git lfs pull"),
    b"ARROW1": ("an Arrow file", "save it as parquet"),
    b"\xff\xff\xff\xff": ("an Arrow file", "save it as parquet"),  # as of save_to_disk of Hugging Face's datasets
    b"SQLite format 3": ("an SQLite database", "save images and labels with numpy.savez"),
    b"\x89PNG": ("a single image", "give a folder with one subfolder of images per class"),
    b"\xff\xd8\xff": ("a single image", "give a folder with one subfolder of images per class"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it and give the folder"),
    b"Rar!": ("a RAR archive", "unpack it and give the folder"),
    b"\xfd7zXZ": ("an xz archive", "unpack it and give the folder"),
    b"BZh": ("a bzip2 archive", "unpack it and give the folder"),
    b"\x28\xb5\x2f\xfd": ("a zstd archive", "unpack it and give the folder"),
}
BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile does not limit the output of other methods
TEXT = bytes(range(32, 127)) + b"\t\n\r"
DEPTH = 6  # levels of folders that are searched
SMALL, MEMBER = 10_000, 64  # a tar archive may have SMALL members, plus one per MEMBER bytes of its size


@contextlib.contextmanager
def open_tree(path: Path) -> Iterator[Tree]:
    """Open a folder, or a .zip, .tar.gz or .tar archive; its list of members is checked before any is read.

    Links in a folder are followed, because the folder is the user's own.

    Raises:
        InputError: it is missing, corrupt, or another kind of file; or members are links or devices, lead outside, or
            would expand to an unreasonable size.
    """
    with contextlib.ExitStack() as stack:
        with reading(str(path)):
            if path.is_dir():
                tree = _folder(path)
            else:
                file = stack.enter_context(path.open("rb"))
                kind = _kind(path, file)
                most = believable(os.fstat(file.fileno()).st_size)
                tree = _zip(path, file, most) if kind == "zip" else _tar(path, file, kind, most)
        yield tree


def foreign(start: bytes) -> str:
    """Return a description of a file that is not an archive, from its first bytes."""
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        return "a web page"
    return UNKNOWN if start else "an empty file"


def kind_of(start: bytes) -> tuple[str, str] | None:
    """Return what a file of another kind is, from its first bytes, and what to do; None if that is unknown."""
    return next((kind for begin, kind in KINDS.items() if start.startswith(begin)), None)


def unfit(path: Path, start: bytes) -> InputError:
    """Return the error for an unsupported file, from its first bytes: what it is, and what to do."""
    found = foreign(start)
    again = "unpack it and give the folder" if found == UNKNOWN else "download it again"
    if start[8:10] == b'{"':
        found, again = "a safetensors file", "pass it with --data if prepare-data wrote it"
    elif start and not start.translate(None, TEXT) and found == UNKNOWN:
        found, again = "a text file", "give the images, and tables of their labels with --labels"
    found, again = kind_of(start) or (found, again)
    return InputError(f"{path}: {found}, expected a .tar.gz, .tar or .zip archive, .parquet, .npz or .npy; {again}")


def _kind(path: Path, file: IO[bytes]) -> str:
    start = file.read(512)
    file.seek(0)
    if start.startswith(b"PK"):
        return "zip"
    if start.startswith(b"\x1f\x8b"):
        inside = b""
        with contextlib.suppress(*TORN):  # the error is raised when it is unpacked
            inside = gzip.GzipFile(fileobj=file).read(16)
        file.seek(0)
        if kind_of(inside):
            raise unfit(path, inside)
        return "tar.gz"
    if start[257:262] == b"ustar":
        return "tar"
    raise unfit(path, start)


def _folder(path: Path) -> Tree:
    sizes: dict[str, int] = {}
    empty: set[str] = set()
    for folder, below, files in os.walk(path, onerror=_fail, followlinks=True):
        inner = Path(folder).relative_to(path)
        below[:] = sorted(below) if len(inner.parts) < DEPTH else []  # links may form a cycle
        if not below and not files:
            empty.add(inner.as_posix())
        for name in sorted(files):
            about = os.stat(os.path.join(folder, name))
            if stat.S_ISREG(about.st_mode):
                sizes[(inner / name).as_posix()] = about.st_size
            if len(sizes) > 10 * MEMBERS:
                raise InputError(f"{path}: more than {10 * MEMBERS} files; give the folder of a single dataset")
    return Tree(
        str(path), sizes, lambda name: (path / name).open("rb"), believable(sum(sizes.values())), frozenset(empty)
    )


def _fail(error: OSError) -> None:
    raise error


def _zip(path: Path, file: IO[bytes], most: int) -> Tree:
    archive = zipfile.ZipFile(file)
    sizes: dict[str, int] = {}
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise refused(str(path), member.filename, "is a link or a device")
        if member.compress_type not in BOUNDED:
            found = f"{member.filename!r:.60} is compressed with an unsupported method"
            raise InputError(f"{path}: {found}; compress it again with deflate")
        if member.flag_bits & 1:
            raise InputError(f"{path}: {member.filename!r:.60} is encrypted; unpack it and give the folder")
        members[name := admit(str(path), sizes, member.filename, member.file_size)] = member
        if member.filename.endswith(("/", "\\")):
            del sizes[name]
    if sum(sizes.values()) > most:
        raise too_large(str(path))
    folders = frozenset(members.keys() - sizes.keys())
    return Tree(str(path), sizes, lambda name: archive.open(members[name]), most, folders)


def _tar(path: Path, raw: IO[bytes], kind: str, most: int) -> Tree:
    file: Any = gzip.GzipFile(fileobj=raw) if kind == "tar.gz" else raw
    sizes: dict[str, int] = {}
    starts: dict[str, int] = {}
    forward: Any = _Forward(path, file, most)
    last, count, believed = -1, 0, SMALL + os.fstat(raw.fileno()).st_size // MEMBER
    archive: Any  # typeshed lacks `members`
    with tarfile.open(fileobj=forward, mode="r:") as archive:
        for member in archive:
            archive.members.clear()  # tarfile would keep all of them
            count += 1 + len(member.name) // MEMBER  # names stay in memory
            if count > believed:
                raise too_large(str(path))
            if member.offset_data <= last or not (member.isreg() or member.isdir()) or member.issparse():
                raise refused(str(path), member.name, "is a link, a device or malformed")
            name = admit(str(path), sizes, member.name, member.size)
            last = starts[name] = member.offset_data
            if member.isdir():
                del sizes[name]
    while forward.read(BLOCK):
        pass  # read to the end, where gzip checks its checksum
    folders = frozenset(starts.keys() - sizes.keys())
    return Tree(str(path), sizes, lambda name: _Member(file, starts[name], sizes[name]), most, folders)


class _Forward:
    """The file that tarfile reads headers from, limited to small reads and to the size that is allowed."""

    def __init__(self, path: Path, file: IO[bytes], most: int) -> None:
        self.path, self.file, self.most = path, file, most

    def read(self, n: int) -> bytes:
        if n > BLOCK or self.file.tell() > self.most:
            raise too_large(str(self.path))
        return self.file.read(n)

    def seek(self, position: int) -> int:
        if position > self.most:
            raise too_large(str(self.path))
        return self.file.seek(position)

    def tell(self) -> int:
        return self.file.tell()


class _Member:
    """One member of a tar archive, read in place."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self.file, self.left = file, size
        file.seek(start)

    def read(self, n: int) -> bytes:
        found = self.file.read(min(n, self.left))
        if not found and self.left and n:
            raise EOFError("it ends too early")
        self.left -= len(found)
        return found

    def close(self) -> None:
        self.left = 0
