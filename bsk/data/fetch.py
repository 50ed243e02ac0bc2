"""Downloads over https that can be resumed, and are whole before they get their name."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from bsk.data.archive import foreign
from bsk.data.splits import Progress
from bsk.errors import InputError, UsageError
from bsk.records.atomic import appending, naming_the_file, sync, write_all
from bsk.records.locks import locked
from bsk.version import VERSION

SCHEMES = ("https",)
TIMEOUT = 30.0  # seconds without a byte
TRIES = 3  # requests in a row that bring no byte
PAUSE = 1.0  # seconds before the second of them, twice that before the third
BLOCK = 1 << 18


def is_url(source: str) -> bool:
    """Return whether a source is a URL of another machine, rather than a path or a file: URL."""
    return "://" in source and not source.lower().startswith("file://")


def local_path(source: str) -> Path:
    """Return the path that a source names, which may be a file: URL."""
    if source.lower().startswith("file://"):
        return Path(urllib.request.url2pathname(urllib.parse.urlsplit(source).path))
    return Path(os.path.expanduser(source))  # pathlib's raises where there is no such user


def md5_of(file: Any) -> str:
    """Return the MD5 of an open binary file from where it stands, in hexadecimal."""
    return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def download(url: str, target: Path, *, md5: str | None = None, progress: Progress | None = None) -> None:
    """Download a URL to `target`, going on with `target`.part where an earlier attempt left one.

    Beside the part file lies the validator that the server gave (its ETag or date), so that the pieces of two
    versions are never joined. `progress` gets bytes done, and of all where the server says so.

    Raises:
        UsageError: the URL is not https.
        InputError: the server cannot be reached, sends something else, or the MD5 is not the one expected.
    """
    require_https(url)
    part = target.with_name(target.name + ".part")
    with _locked(part) as file:
        attempt = _Attempt(url, file, part.with_name(part.name + ".tag"), md5, progress)
        try:
            _complete(attempt)
            _check(attempt)
        except InputError:
            if attempt.have() == 0:
                part.unlink(missing_ok=True)
                attempt.tag.unlink(missing_ok=True)
            raise
        with naming_the_file(target):
            os.fsync(file.fileno())
            os.replace(part, target)
            sync(target.parent)
            attempt.tag.unlink(missing_ok=True)


def require_https(url: str) -> None:
    """Refuse any URL but https, on the way through redirections too.

    Raises:
        UsageError: the URL is not https.
    """
    if urllib.parse.urlsplit(url).scheme.lower() not in SCHEMES:
        raise UsageError(f"{url}: expected an https URL; download it yourself and give the file with --from")


@dataclass(frozen=True)
class _Attempt:
    """What stays the same over the requests of one download."""

    url: str
    file: FileIO
    tag: Path
    md5: str | None
    progress: Progress | None

    def have(self) -> int:
        """Return the bytes that are there."""
        return self.file.seek(0, os.SEEK_END)


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[FileIO]:
    """Open the part file for this process alone."""
    refusal = f"{part}: another bsk is downloading it; wait for that one"
    with appending(part) as file, locked(file, part, refusal):
        yield file


def _complete(attempt: _Attempt) -> None:
    """Ask until the whole is there; give up after TRIES requests in a row that brought nothing."""
    fruitless = 0
    while True:
        before = attempt.have()
        try:
            if _ask(attempt, before):
                return
            reason = "the connection broke"
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = _reason(attempt, error)
        fruitless = 0 if attempt.have() > before else fruitless + 1
        if fruitless >= TRIES:
            advice = "run it again to go on, or give a file with --from"
            raise InputError(f"{attempt.url}: {reason} after {before} bytes; {advice}")
        time.sleep(PAUSE * fruitless)


def _reason(attempt: _Attempt, error: Exception) -> str:
    """Return why a request failed, or raise if asking again cannot help."""
    if isinstance(error, urllib.error.HTTPError):
        if error.code == 416:  # the part file is not a beginning of what the server has
            attempt.file.truncate(0)
        elif error.code < 500 and error.code != 429:
            advice = "check the URL, or give a file with --from"
            raise InputError(f"{attempt.url}: the server says {error.code} {error.reason}; {advice}") from error
        return f"the server says {error.code}"
    text = str(getattr(error, "reason", None) or error or type(error).__name__)
    return text.split("\n")[0][:80]


def _ask(attempt: _Attempt, have: int) -> bool:
    """Make one request for what is missing, and return whether the whole is there."""
    opener = urllib.request.build_opener(_Redirect)
    with opener.open(_request(attempt, have), timeout=TIMEOUT) as answer:
        have, total = _sizes(answer, have)
        with naming_the_file(attempt.tag):
            attempt.file.truncate(have)
            attempt.tag.write_text(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
        while block := answer.read(BLOCK):
            if not have and foreign(block[:512]) == "a web page":
                advice = "give a file with --from"
                raise InputError(f"{attempt.url}: the server sent a web page, expected an archive; {advice}")
            with naming_the_file(attempt.tag.with_suffix("")):
                write_all(attempt.file, block)
            have += len(block)
            if attempt.progress:
                attempt.progress(have, total)
    return total is None or have == total


def _request(attempt: _Attempt, have: int) -> urllib.request.Request:
    """Ask for the rest where it is known to belong to what is there: by its validator, or its MD5 at the end."""
    headers = {"User-Agent": f"bsk/{VERSION}", "Accept-Encoding": "identity"}
    validator = _validator(attempt.tag)
    strong = validator and not validator.startswith("W/")
    if have and (strong or attempt.md5):
        headers["Range"] = f"bytes={have}-"
    if have and strong:
        headers["If-Range"] = validator
    return urllib.request.Request(attempt.url, headers=headers)


def _validator(tag: Path) -> str:
    """Return what the server called the part file, nothing where that can be no header's value."""
    text = tag.read_text("ascii", errors="replace") if tag.exists() else ""
    return text if text.isascii() and text.isprintable() else ""


def _sizes(answer: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Return from which byte on the answer is, and how many there are in all."""
    if answer.status == 206:
        unit, _, rest = (answer.headers.get("Content-Range") or "").partition(" ")
        span, _, total = rest.partition("/")
        if unit == "bytes" and span.startswith(f"{have}-"):
            return have, int(total) if total.isdigit() else None
        raise http.client.HTTPException(f"an answer of another range ({rest:.40})")
    length = answer.headers.get("Content-Length") or ""
    return 0, int(length) if length.isdigit() else None


def _check(attempt: _Attempt) -> None:
    if attempt.md5 is None:
        return
    attempt.file.seek(0)
    found = md5_of(attempt.file)
    if found != attempt.md5:
        attempt.file.truncate(0)
        advice = "run it again, or give a file with --from"
        raise InputError(f"{attempt.url}: what came has md5 {found}, expected {attempt.md5}; {advice}")


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows redirections, to https alone."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
