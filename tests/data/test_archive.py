from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_archives import tarred, unpacked

from bsk.data import tree as trees
from bsk.data.archive import open_tree
from bsk.errors import InputError

FILES = {"a.txt": b"one", "sub/b.bin": bytes(range(256)) * 40, "sub/c.txt": b""}


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def forms(tmp_path: Path) -> list[Path]:
    return [
        tarred(tmp_path / "x.tar.gz", "top", FILES),
        tarred(tmp_path / "x.tar", "top", FILES, "w:"),
        zipped(tmp_path / "x.zip", {f"top/{name}": content for name, content in FILES.items()}),
        unpacked(tmp_path / "x" / "top", FILES).parent,
    ]


def test_folder_zip_and_tar_look_the_same(tmp_path: Path) -> None:
    for path in forms(tmp_path):
        with open_tree(path) as tree:
            assert tree.sizes == {f"top/{name}": len(content) for name, content in FILES.items()}
            for name in reversed(tree.sizes):
                assert tree.read(name) == FILES[name.removeprefix("top/")]
            around = tree.around("b.bin", "c.txt")
            assert around is not None
            assert sorted(around.sizes) == ["b.bin", "c.txt"]
            assert around.read("b.bin") == FILES["sub/b.bin"]
            assert tree.around("b.bin", "a.txt") is None
            with pytest.raises(InputError, match="nothing is missing"):
                tree.read("nothing")
            with pytest.raises(InputError, match="has 10240 bytes, expected at most 100"):
                tree.read("top/sub/b.bin", 100)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x", "x.tar", "x.tar.gz", "x.zip"]


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught, open_tree(path) as tree:
        for name in tree.sizes:
            tree.read(name)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 400
    return message


OUTSIDE = ["../x", "a/../../x", "/etc/passwd", "C:/x", "..\\x", "a\\..\\..\\x", ".."]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("fine.txt"))
        archive.addfile(tarfile.TarInfo(name))
    assert f"{name} leads outside the archive; such archives are refused" in refused(path)
    assert "leads outside" in refused(zipped(tmp_path / "x.zip", {"fine.txt": b"", name: b"x"}))


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("data_batch_1")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("fine.txt"))
        archive.addfile(member)
    assert "is a link, a device or malformed" in refused(tmp_path / "x.tar.gz")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, kind: int) -> None:
    member = zipfile.ZipInfo("image.png")
    member.create_system = 3
    member.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    assert "is a link or a device" in refused(tmp_path / "x.zip")


def test_names_longer_than_paths_are_refused(tmp_path: Path) -> None:
    """A few kilobytes hold many of them, and each copy of the list is megabytes."""
    for depth in (500, 20_000):
        files = {"d/" * depth + f"{i}.png": b"x" for i in range(2)}
        for path in (zipped(tmp_path / "x.zip", files), tarred(tmp_path / "x.tar.gz", "d", files)):
            if depth == 20_000:
                assert "d/d/ has a name of 4000" in refused(path)
                continue
            with open_tree(path) as tree:
                assert [tree.read(name) for name in tree.sizes] == [b"x", b"x"]


def test_a_duplicate_member_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a"))
    assert "occurs twice" in refused(tmp_path / "x.tar")


def test_bombs_are_refused_before_they_expand(tmp_path: Path) -> None:
    size = 300 << 20
    with gzip.open(tmp_path / "x.tar.gz", "wb", compresslevel=9) as file:
        member = tarfile.TarInfo("zeros")
        member.size = size
        file.write(member.tobuf())
        for _ in range(4):
            file.write(bytes(1 << 20))
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros", "w") as out:
        for _ in range(100):
            out.write(bytes(1 << 20))
    tracemalloc.start()
    for name in ("x.tar.gz", "x.zip"):
        assert "expands to an unreasonable size" in refused(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_a_tar_whose_end_goes_on_for_ever_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "ROOM", 1 << 20)
    with gzip.open(tmp_path / "x.tar.gz", "wb", compresslevel=9) as file:
        file.write(tarfile.TarInfo("a").tobuf() + bytes(8 << 20))
    assert "expands to an unreasonable size" in refused(tmp_path / "x.tar.gz")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_asks_for_much_memory_is_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("header")
    member.type, member.size = kind, 40 << 20
    (tmp_path / "x.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    assert "expands to an unreasonable size" in refused(tmp_path / "x.tar")


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MEMBERS", 10)
    many = {f"{i}": b"" for i in range(11)}
    assert "exceeds the number of files allowed" in refused(tarred(tmp_path / "x.tar", "top", many, "w:"))
    assert "exceeds the number of files allowed" in refused(zipped(tmp_path / "x.zip", many))


def test_an_encrypted_or_damaged_zip_is_one_line(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.txt": os.urandom(5000)})
    whole = path.read_bytes()
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(encrypted)
    assert "'a.txt' is encrypted; unpack it and give the folder" in refused(path)
    damaged = bytearray(whole)
    damaged[2000] ^= 1
    path.write_bytes(damaged)
    assert "cannot be read or is corrupt" in refused(path)
    path.write_bytes(whole[:3000])
    assert "cannot be read or is corrupt" in refused(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("start", [0, 20, 1000])
def test_a_damaged_member_of_any_kind_is_one_line(tmp_path: Path, method: int, start: int) -> None:
    content = os.urandom(2000) + bytes(2000)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
        archive.writestr("a.png", content)
    damaged = bytearray((tmp_path / "x.zip").read_bytes())
    place = 30 + len("a.png") + start
    damaged[place : place + 100] = bytes(each ^ 0x5A for each in damaged[place : place + 100])
    (tmp_path / "x.zip").write_bytes(damaged)
    usual = method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    said = "a.png: cannot be read or is corrupt" if usual else "'a.png' is compressed with an unsupported method"
    assert said in refused(tmp_path / "x.zip")


def test_foreign_files_and_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"some text")
    assert "a text file, expected a .tar.gz, .tar or .zip" in refused(tmp_path / "x")
    (tmp_path / "y").write_bytes(gzip.compress(b"no tar in it"))
    assert "cannot be read or is corrupt" in refused(tmp_path / "y")
    assert "no such file or folder" in refused(tmp_path / "z")


def test_a_folder_may_have_links_even_in_a_circle(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "data", {"a/1.png": b"x"})
    (folder / "a" / "up").symlink_to(folder)
    (folder / "b").symlink_to(folder / "a")
    with open_tree(folder) as tree:
        assert tree.read("b/1.png") == b"x"
    (folder / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"gone.png: no such file or folder"), open_tree(folder):
        pass


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    folder = tmp_path_factory.mktemp("damaged")
    contents = [path.read_bytes() for path in forms(folder)[:3]]
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(folder / "other.zip", "w", method) as archive:
            archive.writestr("a.txt", FILES["sub/b.bin"])
        contents.append((folder / "other.zip").read_bytes())
    return folder, contents


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 4), st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_damaged_archives_are_read_or_refused(
    small: tuple[Path, list[bytes]], which: int, place: int, put: bytes
) -> None:
    folder, contents = small
    content = contents[which]
    place %= len(content)
    path = folder / "damaged"
    path.write_bytes(content[:place] + put + content[place + len(put) :])
    try:
        with open_tree(path) as tree:
            for name in tree.sizes:
                tree.read(name)
    except InputError as error:
        assert "\n" not in str(error)


def test_reading_goes_through_any_file_object() -> None:
    tree = trees.Tree("here", {"a": 3}, lambda name: io.BytesIO(b"abc"))
    assert tree.read("a") == b"abc"


@pytest.mark.slow
def test_empty_members_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for number in range(11_000):
            archive.addfile(tarfile.TarInfo(f"{number}"))
    size = path.stat().st_size
    with open_tree(path) as tree:  # a few thousand are a folder of somebody's
        assert len(tree.sizes) == 11_000 < 10_000 + size // 64
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for number in range(20_000):
            folder = tarfile.TarInfo(f"{number}")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
    with pytest.raises(InputError, match="expands to an unreasonable size"), open_tree(path):
        pass
