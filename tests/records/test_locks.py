"""Locks: a second process waits or is refused, and a dead process holds no lock, with and without flock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bsk.errors import InputError
from bsk.records import jsonl, locks
from bsk.records.atomic import appending, replacing
from bsk.records.locks import exclusive, locked, only_writer

HOLD = """
import errno, fcntl, os, sys, time
from pathlib import Path
from bsk.records.locks import {what}
if {code}:
    def missing(*_): raise OSError({code}, os.strerror({code}))
    fcntl.flock = missing
with {what}(Path({path!r})):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=[0, errno.ENOSYS, errno.EOPNOTSUPP], ids=["flock", "no flock (ENOSYS)", "no flock (EOPNOTSUPP)"])
def missing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The file system supports flock, or reports in one of two ways that it does not."""
    code: int = request.param

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    if code:
        monkeypatch.setattr(fcntl, "flock", refuse)
    return code


@contextlib.contextmanager
def held(what: str, path: Path, code: int) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold a lock within the `with` block, or until it is killed."""
    words = [sys.executable, "-c", HOLD.format(what=what, path=str(path), code=code)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_refused_and_leaves_nothing(missing: int, tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    with held("only_writer", target, missing):
        with pytest.raises(InputError) as refused, only_writer(target):
            pass
        said = f"{target}: another bsk is writing it; wait for it or choose another --out"
        advice = f", or remove {tmp_path}/.a.safetensors.lock.lock if none is running" if missing else ""
        assert str(refused.value) == said + advice
    with only_writer(target):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_dead_process_holds_no_lock(missing: int, tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    with held("only_writer", target, missing) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert list(tmp_path.iterdir()), "it could remove nothing"
    with only_writer(target):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_waits(missing: int, tmp_path: Path) -> None:
    path, let_go = tmp_path / "deep" / ".key.lock", threading.Event()
    with held("exclusive", path, missing) as process:

        def let_it_go() -> None:
            let_go.set()
            assert process.stdin is not None
            process.stdin.close()

        threading.Timer(0.3, let_it_go).start()
        with exclusive(path):
            assert let_go.is_set()
    assert list(path.parent.iterdir()) == []


def test_a_signal_ends_the_waiting(missing: int, tmp_path: Path) -> None:
    path = tmp_path / ".key.lock"
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with held("exclusive", path, missing):
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            start = time.monotonic()
            with pytest.raises(KeyboardInterrupt), exclusive(path):
                pass
            assert time.monotonic() - start < 5
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_lock_on_a_removed_file_excludes_nobody(tmp_path: Path) -> None:
    path = tmp_path / ".key.lock"
    with held("exclusive", path, 0):
        path.unlink()
        with exclusive(path, "refused"):
            assert path.exists()


def test_a_lock_file_removed_during_waiting_is_created_again(tmp_path: Path) -> None:
    path = tmp_path / ".key.lock"
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code = HOLD.format(what="exclusive", path=str(path), code=0)
        waiting = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        while str(path) not in _open_files(waiting.pid):
            time.sleep(0.01)
        path.unlink()
    assert waiting.stdout is not None and waiting.stdin is not None
    assert waiting.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match="^refused$"), exclusive(path, "refused"):
        pass
    waiting.communicate()


def _open_files(pid: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(link))
    return found


def test_a_marker_of_another_host_is_named_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no flock")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "PATIENCE", 0.3)
    log, marker = tmp_path / "r.jsonl", tmp_path / ".r.jsonl.lock"
    marker.write_text(f"{os.getpid()}\nnot-{socket.gethostname()}\n")
    with pytest.raises(InputError) as waited:
        jsonl.append(log, {"a": 1})
    said = f"{log}: another bsk has locked it for 0 s; wait for it, or remove {marker} if none is running"
    assert str(waited.value) == said and marker.exists() and log.read_bytes() == b""
    with appending(log) as file, pytest.raises(InputError) as refused, locked(file, log, "refused"):
        pass
    assert str(refused.value) == f"refused, or remove {marker} if none is running"
    marker.unlink()
    jsonl.append(log, {"a": 1})
    assert jsonl.read(log) == [{"a": 1}] and list(tmp_path.iterdir()) == [log]


def test_records_of_several_processes_are_whole(missing: int, tmp_path: Path) -> None:
    log = tmp_path / "r.jsonl"
    code = f"""
import fcntl, os, sys
from pathlib import Path
from bsk.records.jsonl import append
if {missing}:
    def missing(*_): raise OSError({missing}, "none")
    fcntl.flock = missing
for turn in range(20):
    append(Path({str(log)!r}), {{"who": sys.argv[1], "turn": turn, "long": "x" * 9000}})
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    records = jsonl.read(log)
    assert [r["turn"] for r in records if r["who"] == "a"] == list(range(20))
    assert len(records) == 40 and list(tmp_path.iterdir()) == [log]


def test_files_appear_whole_without_flock_too(missing: int, tmp_path: Path) -> None:
    (tmp_path / ".file.dead.tmp").write_text("half")
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("whole")
    left = [".file.dead.tmp"] if missing else []  # nobody can tell that its process is dead
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([*left, "file"])
    assert (tmp_path / "file").read_text() == "whole"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write"), exclusive(tmp_path / "file" / ".key.lock"):
        pass
