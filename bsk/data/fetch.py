"""Resumable downloads over https; a file gets its final name only when it is complete."""

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
TRIES = 3  # consecutive requests without any data
PAUSE = 1.0  # seconds before the second of them; twice as long before the third
BLOCK = 1 << 18


def is_url(source: str) -> bool:
    """Return whether a source is a remote URL rather than a path or a file: URL."""
    return "://" in source and not source.lower().startswith("file://")


def local_path(source: str) -> Path:
    """Return the path of a source, which may be a file: URL."""
    if source.lower().startswith("file://"):
        return Path(urllib.request.url2pathname(urllib.parse.urlsplit(source).path))
    return Path(os.path.expanduser(source))  # Path.expanduser raises for an unknown user


def md5_of(file: Any) -> str:
    """Return the MD5 of an open binary file from its current position, in hexadecimal."""
    return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def download(url: str, target: Path, *, md5: str | None = None, progress: Progress | None = None) -> None:
    """Download a URL to `target`, resuming from `target`.part if an earlier attempt left it.

    The validator of the server (ETag or date) is stored next to the part file, so that pieces of two versions are
    never joined. `progress` is called with the bytes done, and the total or None if the server does not send it.

    Raises:
        UsageError: the URL is not https.
        InputError: the server cannot be reached or sends something else, or the MD5 differs from the expected one.
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
    """Raise a UsageError unless a URL is https; redirections are checked too.

    Raises:
        UsageError: the URL is not https.
    """
    if urllib.parse.urlsplit(url).scheme.lower() not in SCHEMES:
        raise UsageError(f"{url}: expected an https URL; download it yourself and give the file with --from")


@dataclass(frozen=True)
class _Attempt:
    """The state shared by the requests of one download."""

    url: str
    file: FileIO
    tag: Path
    md5: str | None
    progress: Progress | None

    def have(self) -> int:
        """Return the number of bytes downloaded so far."""
        return self.file.seek(0, os.SEEK_END)


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[FileIO]:
    """Open and lock the part file."""
    refusal = f"{part}: another bsk is downloading it; wait for that one"
    with appending(part) as file, locked(file, part, refusal):
        yield file


def _complete(attempt: _Attempt) -> None:
    """Send requests until the file is complete; give up after TRIES consecutive requests without data."""
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
            advice = "run the command again to resume, or give a file with --from"
            raise InputError(f"{attempt.url}: {reason} after {before} bytes; {advice}")
        time.sleep(PAUSE * fruitless)


def _reason(attempt: _Attempt, error: Exception) -> str:
    """Return why a request failed; raise an InputError if a retry cannot help."""
    if isinstance(error, urllib.error.HTTPError):
        if error.code == 416:  # the part file is not a prefix of the file on the server
            attempt.file.truncate(0)
        elif error.code < 500 and error.code != 429:
            advice = "check the URL, or give a file with --from"
            raise InputError(f"{attempt.url}: the server returned {error.code} {error.reason}; {advice}") from error
        return f"the server returned {error.code}"
    text = str(getattr(error, "reason", None) or error or type(error).__name__)
    return text.split("\n")[0][:80]


def _ask(attempt: _Attempt, have: int) -> bool:
    """Send one request for the missing bytes; return whether the file is complete."""
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
    """Return a request, for the rest only if a validator or a known MD5 ensures that it fits the part file."""
    headers = {"User-Agent": f"bsk/{VERSION}", "Accept-Encoding": "identity"}
    validator = _validator(attempt.tag)
    strong = validator and not validator.startswith("W/")
    if have and (strong or attempt.md5):
        headers["Range"] = f"bytes={have}-"
    if have and strong:
        headers["If-Range"] = validator
    return urllib.request.Request(attempt.url, headers=headers)


def _validator(tag: Path) -> str:
    """Return the stored validator of the part file, or "" if it is not a valid header value."""
    text = tag.read_text("ascii", errors="replace") if tag.exists() else ""
    return text if text.isascii() and text.isprintable() else ""


def _sizes(answer: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Return the first byte of the response and the total size, if known."""
    if answer.status == 206:
        unit, _, rest = (answer.headers.get("Content-Range") or "").partition(" ")
        span, _, total = rest.partition("/")
        if unit == "bytes" and span.startswith(f"{have}-"):
            return have, int(total) if total.isdigit() else None
        raise http.client.HTTPException(f"a response with another range ({rest:.40})")
    length = answer.headers.get("Content-Length") or ""
    return 0, int(length) if length.isdigit() else None


def _check(attempt: _Attempt) -> None:
    if attempt.md5 is None:
        return
    attempt.file.seek(0)
    found = md5_of(attempt.file)
    if found != attempt.md5:
        attempt.file.truncate(0)
        advice = "run the command again, or give a file with --from"
        raise InputError(f"{attempt.url}: the download has md5 {found}, expected {attempt.md5}; {advice}")


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows redirections to https only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
