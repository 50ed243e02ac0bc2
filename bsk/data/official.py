"""The official archives: their URLs and checksums, and the comparison of a source with them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from bsk.data.fetch import download, is_url, local_path, md5_of
from bsk.data.splits import Request
from bsk.data.tree import Tree, reading
from bsk.errors import InputError


@dataclass(frozen=True)
class Official:
    """An official archive: its URL and MD5, the MD5 of other archives with the same images, and those of its files."""

    url: str
    md5: str
    others: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)


OFFICIAL = {
    # Source: https://www.cs.toronto.edu/~kriz/cifar.html; `others` are the binary archives of that page
    "cifar10": Official(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        ("c32a1d4ab5d03f1284b67883e8d87530",),
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        },
    ),
    "cifar100": Official(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        ("03b5dce01913d631647c71ecec9e9cb8",),
        {
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
    ),
    # Source: the course page of Stanford's CS231n; it has no checksum, this one is in common use
    "tiny-imagenet": Official("https://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"),
}


@dataclass(frozen=True)
class Found:
    """A local source, with the MD5 of the archive, or None for a folder."""

    path: Path
    md5: str | None

    def checksums(self, request: Request, tree: Tree, names: list[str]) -> tuple[dict[str, str], bool]:
        """Return the checksums of the files, and whether they are official; print a notice if not."""
        official = OFFICIAL[request.name]
        if self.md5:
            files = {self.path.name: f"md5:{self.md5}"}
            same = self.md5 in (official.md5, *official.others)
        else:
            sums = {}
            for name in names:
                with tree.open(name) as file:
                    sums[name] = md5_of(file)
            files = {name: f"md5:{md5}" for name, md5 in sums.items()}
            same = bool(official.files) and sums == official.files
        if not same:
            what = f"archive (md5 {self.md5})" if self.md5 else "files"
            request.say(f"{self.path}: not the official {what}; using it anyway")
        return files, same


def find(request: Request) -> Found:
    """Return the local source, after downloading it if it is a URL or the official archive.

    Raises:
        InputError: the source is missing, the download failed, or its checksum is not the official one.
    """
    official, source = OFFICIAL[request.name], request.source
    if source is None:
        target = request.downloads / official.url.rpartition("/")[2]
        if not target.exists():
            download(official.url, target, md5=official.md5, progress=request.progress)
        found = Found(target, file_md5(target))
        if found.md5 != official.md5:
            raise InputError(
                f"{target}: md5 {found.md5}, but the official archive has {official.md5}; "
                f"remove it, or use it anyway with --from {target}"
            )
        return found
    path = located(request, source)
    return Found(path, None if path.is_dir() else file_md5(path))


def located(request: Request, source: str) -> Path:
    """Return the local path of a source given with --from, after downloading a URL."""
    return download_to(request, source) if is_url(source) else local_path(source)


def download_to(request: Request, url: str) -> Path:
    """Return the path of the download of a URL given with --from; an existing file is not downloaded again.

    The file name has a hash of the URL unless the URL is official, because other sites may use the same name.
    """
    name = url.partition("?")[0].rstrip("/").rpartition("/")[2] or "download"
    known = url in [each.url for each in OFFICIAL.values()]
    target = request.downloads / (name if known else f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name}")
    if not target.exists():
        download(url, target, progress=request.progress)
    return target


def file_md5(path: Path) -> str:
    """Return the MD5 of a file, in hexadecimal.

    Raises:
        InputError: it cannot be read.
    """
    with reading(str(path)), path.open("rb") as file:
        return md5_of(file)
