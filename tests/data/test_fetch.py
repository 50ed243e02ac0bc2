from __future__ import annotations

import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from made_archives import cifar10_python, tarred

from bsk.data import fetch
from bsk.data.fetch import download
from bsk.data.official import OFFICIAL, Official
from bsk.data.sources import prepare
from bsk.errors import InputError, UsageError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Site:
    """What the server of a test does: contents by path, and how it misbehaves."""

    url: str = ""
    contents: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"one"'
    cut_after: list[int] = field(default_factory=list)  # bytes of the body sent by each of the next answers
    ranges: bool = True
    says_length: bool = True
    redirect: str | None = None
    codes: list[int] = field(default_factory=list)  # of the next answers
    asked: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, site)

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(fetch, "SCHEMES", ("https", "http"))
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "*")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield site
    server.shutdown()
    server.server_close()


def answer(handler: http.server.BaseHTTPRequestHandler, site: Site) -> None:
    site.asked.append(dict(handler.headers))
    if site.codes:
        handler.send_error(site.codes.pop(0))
        return
    if site.redirect:
        handler.send_response(302)
        handler.send_header("Location", site.redirect)
        handler.end_headers()
        return
    content = site.contents[handler.path]
    asked, start = handler.headers["Range"], 0
    if asked and site.ranges and handler.headers["If-Range"] in (None, site.etag):
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            handler.send_error(416)
            return
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    else:
        handler.send_response(200)
    if site.says_length:
        handler.send_header("Content-Length", str(len(content) - start))
    if site.etag:
        handler.send_header("ETag", site.etag)
    handler.end_headers()
    end = start + site.cut_after.pop(0) if site.cut_after else None
    handler.wfile.write(content[start:end])


def left(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_download_in_one_piece(site: Site, tmp_path: Path) -> None:
    site.contents["/x.bin"] = CONTENT
    seen: list[tuple[int, int | None]] = []
    download(f"{site.url}/x.bin", tmp_path / "new" / "x.bin", md5=MD5, progress=lambda *each: seen.append(each))
    assert (tmp_path / "new" / "x.bin").read_bytes() == CONTENT
    assert left(tmp_path / "new") == ["x.bin"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert "Range" not in site.asked[0]


def test_a_broken_download_resumes_where_it_broke(site: Site, tmp_path: Path) -> None:
    site.contents["/x.bin"], site.cut_after = CONTENT, [300_000, 10, 200_000]
    download(f"{site.url}/x.bin", tmp_path / "x.bin", md5=MD5)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    assert [each.get("Range") for each in site.asked] == [
        None,
        "bytes=300000-",
        "bytes=300010-",
        "bytes=500010-",
    ]
    assert site.asked[1]["If-Range"] == '"one"'


def test_a_later_run_resumes_the_partial_file(site: Site, tmp_path: Path) -> None:
    site.contents["/x.bin"], site.cut_after = CONTENT, [300_000, 0, 0, 0]
    with pytest.raises(InputError, match="the connection broke after 300000 bytes; run the command again to resume"):
        download(f"{site.url}/x.bin", tmp_path / "x.bin")
    assert left(tmp_path) == ["x.bin.part", "x.bin.part.tag"]
    site.asked.clear()
    download(f"{site.url}/x.bin", tmp_path / "x.bin")
    assert [each.get("Range") for each in site.asked] == ["bytes=300000-"]
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    assert left(tmp_path) == ["x.bin"]


@pytest.mark.parametrize("tag", [b"\xff\xfe", b'"one"\nHost: elsewhere', b"\0", '"\u00e9"'.encode()])
def test_a_tag_that_is_no_headers_value_is_not_sent(tag: bytes, site: Site, tmp_path: Path) -> None:
    site.contents["/x.bin"] = CONTENT
    (tmp_path / "x.bin.part").write_bytes(CONTENT[:1000])
    (tmp_path / "x.bin.part.tag").write_bytes(tag)
    download(f"{site.url}/x.bin", tmp_path / "x.bin")
    assert "Range" not in site.asked[0] and "If-Range" not in site.asked[0]
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and left(tmp_path) == ["x.bin"]


def test_a_full_disk_keeps_the_downloaded_part(full_at, site: Site, tmp_path: Path) -> None:
    site.contents["/x.bin"] = CONTENT + b"the end"
    with full_at(len(CONTENT)), pytest.raises(InputError, match=r"x.bin.part: cannot write: File too large; choose"):
        download(f"{site.url}/x.bin", tmp_path / "x.bin")
    assert (tmp_path / "x.bin.part").read_bytes() == CONTENT
    download(f"{site.url}/x.bin", tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == CONTENT + b"the end"
    assert site.asked[-1]["Range"] == f"bytes={len(CONTENT)}-"


@pytest.mark.parametrize("change", ["content", "no ranges", "no validator"])
def test_pieces_of_two_versions_are_never_joined(site: Site, tmp_path: Path, change: str) -> None:
    site.contents["/x.bin"], site.cut_after = CONTENT, [300_000, 0, 0, 0]
    site.etag = None if change == "no validator" else site.etag
    with pytest.raises(InputError, match="the connection broke"):
        download(f"{site.url}/x.bin", tmp_path / "x.bin")
    other = CONTENT[::-1]
    site.contents["/x.bin"], site.ranges = other, change != "no ranges"
    site.etag = '"two"' if change == "content" else site.etag
    download(f"{site.url}/x.bin", tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == other


def test_a_part_file_that_is_no_beginning_is_dropped(site: Site, tmp_path: Path) -> None:
    site.contents["/x.bin"] = CONTENT
    (tmp_path / "x.bin.part").write_bytes(CONTENT + b"more")
    download(f"{site.url}/x.bin", tmp_path / "x.bin", md5=MD5)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(site: Site, tmp_path: Path) -> None:
    site.contents["/x.bin"] = CONTENT[:-1] + b"!"
    with pytest.raises(InputError, match=f"expected {MD5}; run the command again"):
        download(f"{site.url}/x.bin", tmp_path / "x.bin", md5=MD5)
    assert left(tmp_path) == []


def test_a_web_page_is_recognised(site: Site, tmp_path: Path) -> None:
    site.contents["/x.zip"] = b"  <!DOCTYPE HTML><html><body>Quota exceeded</body></html>"
    with pytest.raises(InputError, match="the server sent a web page, expected an archive"):
        download(f"{site.url}/x.zip", tmp_path / "x.zip")
    assert left(tmp_path) == []


def test_a_response_without_length_is_read_to_its_end(site: Site, tmp_path: Path) -> None:
    site.contents["/x.bin"], site.says_length = CONTENT, False
    seen: list[tuple[int, int | None]] = []
    download(f"{site.url}/x.bin", tmp_path / "x.bin", progress=lambda *each: seen.append(each))
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), None)


def test_errors_of_the_server(site: Site, tmp_path: Path) -> None:
    site.contents["/x.bin"] = CONTENT
    site.codes = [404]
    with pytest.raises(InputError, match="the server returned 404 Not Found; check the URL"):
        download(f"{site.url}/x.bin", tmp_path / "x.bin")
    site.codes = [503] * 3
    with pytest.raises(InputError, match="the server returned 503 after 0 bytes"):
        download(f"{site.url}/x.bin", tmp_path / "x.bin")
    site.codes = [503, 429]
    download(f"{site.url}/x.bin", tmp_path / "x.bin")
    assert left(tmp_path) == ["x.bin"]


def test_an_unreachable_server_is_a_one_line_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(InputError, match=r"https://127.0.0.1:1/x: .*refused after 0 bytes"):
        download("https://127.0.0.1:1/x", tmp_path / "x")
    assert left(tmp_path) == []


def test_https_alone_even_after_a_redirection(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.redirect = "ftp://127.0.0.1/x"
    with pytest.raises(UsageError, match="expected an https URL"):
        download(f"{site.url}/x", tmp_path / "x")
    monkeypatch.setattr(fetch, "SCHEMES", ("https",))
    for url in (f"{site.url}/x", "ftp://127.0.0.1/x", "gopher://x/y"):
        with pytest.raises(UsageError, match="expected an https URL"):
            prepare("cifar10", url, tmp_path / "out.safetensors")
    assert len(site.asked) == 1


def test_two_downloads_of_one_file(site: Site, tmp_path: Path) -> None:
    site.contents["/x.bin"] = CONTENT
    seen: list[str] = []

    def second(*_: object) -> None:
        with pytest.raises(InputError) as caught:
            download(f"{site.url}/x.bin", tmp_path / "x.bin")
        seen.append(str(caught.value))

    download(f"{site.url}/x.bin", tmp_path / "x.bin", md5=MD5, progress=second)
    assert "another bsk is downloading it" in seen[0]
    assert (tmp_path / "x.bin").read_bytes() == CONTENT


@pytest.fixture
def archive(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made archive that the server has, which passes for the official one."""
    path = tarred(tmp_path / "made.tar.gz", "cifar-10-batches-py", cifar10_python(20, 20))
    site.contents["/cifar-10-python.tar.gz"] = path.read_bytes()
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(OFFICIAL, "cifar10", Official(f"{site.url}/cifar-10-python.tar.gz", md5))
    return path


def test_prepare_downloads_the_official_archive_once(site: Site, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "data" / "cifar10.safetensors"
    record = prepare("cifar10", None, out)
    assert record["official"]
    assert left(tmp_path / "data") == ["cifar-10-python.tar.gz", "cifar10.safetensors"]
    first = out.read_bytes()
    prepare("cifar10", None, out)
    assert out.read_bytes() == first
    assert len(site.asked) == 1
    prepare("cifar10", str(tmp_path / "data" / "cifar-10-python.tar.gz"), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == first


def test_another_file_under_the_official_name_is_not_taken_for_it(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive.read_bytes() + bytes(512))
    with pytest.raises(InputError, match="remove it, or use it anyway with --from"):
        prepare("cifar10", None, tmp_path / "out.safetensors")


def test_prepare_from_a_url(site: Site, archive: Path, tmp_path: Path) -> None:
    said: list[str] = []
    other = site.contents["/cifar-10-python.tar.gz"] + bytes(512)  # as gzip allows
    site.contents["/mirror/c.tar.gz?download=1"] = other
    url = f"{site.url}/mirror/c.tar.gz?download=1"
    out = tmp_path / "out.safetensors"
    record = prepare("cifar10", url, out, download_to=tmp_path / "down", notice=said.append)
    assert not record["official"]
    (name,) = left(tmp_path / "down")
    assert re.fullmatch(r"[0-9a-f]{8}-c\.tar\.gz", name)
    assert f"md5 {hashlib.md5(other).hexdigest()}" in said[0]
    site.contents["/mirror/b.tar.gz"] = site.contents["/cifar-10-python.tar.gz"]
    assert prepare("cifar10", f"{site.url}/mirror/b.tar.gz", out, download_to=tmp_path / "down")["official"]


def test_two_urls_that_end_alike_are_two_downloads(site: Site, archive: Path, tmp_path: Path) -> None:
    whole = site.contents["/cifar-10-python.tar.gz"]
    site.contents |= {"/a/x.tar.gz": whole, "/b/x.tar.gz": whole + bytes(512)}
    out, down = tmp_path / "out.safetensors", tmp_path / "down"
    found = [
        prepare("cifar10", f"{site.url}/{place}/x.tar.gz", out, download_to=down)["official"]
        for place in ("a", "b", "a")
    ]
    assert found == [True, False, True] and len(site.asked) == 2 and len(left(down)) == 2
