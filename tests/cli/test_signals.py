"""Ctrl-C and SIGTERM as sent by a shell or scheduler: messages, exit codes and saved work."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
TRAIN = ["--model", "cnn-4", "--epochs", "9999", "--batch-size", "32", "--schedule", "cyclic", "--threads", "1"]
EVERY_ONE_AN_ECHO = """
from bsk.cli import signals
signals.ECHO = float("inf")
from bsk.cli.app import main
main()
"""


class Command:
    """A running command whose output lines can be waited for."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin and process.stdout and process.stderr
        self.send, self.running = process.send_signal, lambda: process.poll() is None
        self.input, self.out, self.err = process.stdin, process.stdout, process.stderr
        self.code = process.wait

    def line(self, stream: IO[str], text: str = "") -> str:
        """Wait for a line with this text."""
        for line in stream:
            if text in line:
                return line
        raise AssertionError(f"ended without {text!r}")


@contextmanager
def started(*words: object, folder: Path | None = None) -> Iterator[Command]:
    """Start Python; it is killed after some minutes, so that no test waits for ever."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, *map(str, words)], cwd=folder, text=True, **pipes) as process:
        alarm = threading.Timer(240, process.kill)
        alarm.start()
        try:
            yield Command(process)
        finally:
            alarm.cancel()
            process.kill()


SLOW = {  # each works for long after the line that is waited for
    "evaluate": ["--attack", "natural,pgd-99999", "--no-checks"],
    "attack": ["--attack", "autoattack", "--eps", "0.001", "--out", "adv.safetensors"],
}


NOTHING_KEPT = "bsk: stopped; nothing was saved; with --out F.jsonl the same command would resume"
KEPT = "bsk: stopped; run the same command again to resume"


@pytest.mark.parametrize(
    ("command", "more", "number", "code", "said"),
    [
        pytest.param("evaluate", [], *CODES[0], NOTHING_KEPT, marks=pytest.mark.slow),
        ("evaluate", ["--out", "../r.jsonl"], *CODES[1], KEPT),
        ("attack", [], *CODES[1], "bsk: stopped"),
    ],
)
def test_a_signal_ends_an_attack_with_its_code(
    toy: Path, trained: Path, tmp_path: Path, command, more, number, code, said
) -> None:
    tmp_path = tmp_path / "here"
    tmp_path.mkdir()
    before = sorted(tmp_path.iterdir())
    with started("-m", "bsk", command, trained, "--data", toy, *SLOW[command], *more, folder=tmp_path) as bsk:
        if command == "evaluate":
            assert json.loads(bsk.line(bsk.out))["attack"] == "natural"
        else:
            bsk.line(bsk.err, "survive apgd-ce")
        bsk.send(number)
        out, err = bsk.out.read(), bsk.err.read()
        assert bsk.code() == code and err.splitlines()[-1] == said
    assert sorted(tmp_path.iterdir()) == before
    assert out == "" and "Traceback" not in err


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        pytest.param("at once", *CODES[0], marks=pytest.mark.slow),
        ("when it is saving", *CODES[1]),
        pytest.param("to the very end", *CODES[0], marks=pytest.mark.slow),
    ],
)
def test_a_signal_that_is_sent_twice_saves_like_one(toy: Path, tmp_path: Path, number, code, moment) -> None:
    words = ["train", "--data", toy, *TRAIN, "--method", "trades", "--out", "m.safetensors"]
    with started("-c", EVERY_ONE_AN_ECHO, *words, folder=tmp_path) as bsk:
        bsk.line(bsk.err)
        bsk.send(number)
        if moment != "at once":
            bsk.line(bsk.err, "finishing this step and saving")
        bsk.send(number)
        while moment == "to the very end" and bsk.running():
            bsk.send(number)
        out, err = bsk.out.read(), bsk.err.read()
        assert bsk.code() == code and out == "" and "the same command resumes from there" in err
    assert (tmp_path / "m.last.safetensors").exists() and not list(tmp_path.glob(".*tmp"))
    assert "Traceback" not in err


ASKED = """
import sys
from types import SimpleNamespace
from bsk.cli import signals
from bsk.cli.console import guarded
now = 0.0
signals.time = SimpleNamespace(monotonic=lambda: now)

def later():
    global now
    now += 2 * signals.ECHO

def command():
    with signals.stop_requests(lambda text: print("asked", flush=True)) as stopping:
        print("ready", flush=True)
        {then}
    later()
    print("saved", flush=True)
    sys.stdin.readline()
    return stopping()

guarded(command)
"""
HANGS = "while sys.stdin.readline(): later(); print('later', flush=True)"
SAVES = "while not stopping(): pass"


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_later_signal_ends_a_command_that_does_not_stop(number, code) -> None:
    with started("-W", "error", "-c", ASKED.format(then=HANGS)) as bsk:
        bsk.line(bsk.out, "ready")
        bsk.send(number)
        bsk.line(bsk.out, "asked")
        for _ in range(100):
            bsk.send(number)  # echoes
        print(file=bsk.input, flush=True)
        bsk.line(bsk.out, "later")
        while bsk.running():  # the first is no echo
            bsk.send(number)
        assert (bsk.code(), bsk.out.read()) == (code, "")
        assert bsk.err.read() == "bsk: stopped\n"


@pytest.mark.parametrize(("number", "code"), CODES)
def test_no_later_signal_interrupts_a_command_that_has_saved(number, code) -> None:
    with started("-W", "error", "-c", ASKED.format(then=SAVES)) as bsk:
        bsk.line(bsk.out, "ready")
        bsk.send(number)
        bsk.line(bsk.out, "saved")
        for _ in range(100):
            bsk.send(number)
        bsk.input.close()  # now it may end
        while bsk.running():  # to the very end
            bsk.send(number)
        assert (bsk.code(), bsk.out.read(), bsk.err.read()) == (code, "", "")
