"""Ctrl-C and SIGTERM as a shell and a scheduler send them: what is said, the exit code, what is kept."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
TRAIN = ["--model", "cnn-4", "--epochs", "12", "--batch-size", "32", "--schedule", "cyclic", "--threads", "1"]


def started(folder: Path, *words: object) -> subprocess.Popen[str]:
    """Start a command, and wait until it has said a line: it is at work."""
    command = [sys.executable, "-m", "bsk", *map(str, words)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and process.stderr.readline()
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=10)
    assert "Traceback" not in err, err
    return process.returncode, out, err


SLOW = {  # each says a line, and then works for minutes
    "evaluate": ["--attack", "natural,pgd-99999", "--no-checks"],
    "attack": ["--attack", "autoattack", "--eps", "0.001", "--out", "adv.safetensors"],
}


@pytest.mark.parametrize(("number", "code"), CODES)
@pytest.mark.parametrize("command", ["evaluate", "attack"])
def test_a_signal_ends_an_attack_with_its_code(toy: Path, trained: Path, tmp_path: Path, command, number, code) -> None:
    before = sorted(tmp_path.iterdir())
    process = started(tmp_path, command, trained, "--data", toy, *SLOW[command])
    time.sleep(0.3)
    process.send_signal(number)
    returncode, out, err = ended(process)
    assert returncode == code and err.splitlines()[-1].startswith("bsk: stopped; the same command goes on")
    assert sorted(tmp_path.iterdir()) == before
    assert [json.loads(line)["attack"] for line in out.splitlines()] == ["natural"][: command == "evaluate"]


@pytest.mark.parametrize("apart", [0.002, 0.03, 0.3])
@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_that_is_sent_twice_saves_like_one(toy: Path, tmp_path: Path, number, code, apart) -> None:
    words = ["train", "--data", toy, *TRAIN, "--method", "trades", "--out", "m.safetensors"]
    process = started(tmp_path, *words)
    for _ in range(3):
        process.send_signal(number)
        time.sleep(apart)
    returncode, out, err = ended(process)
    assert returncode == code and out == "" and "the same command goes on from there" in err
    assert (tmp_path / "m.last.safetensors").exists() and not list(tmp_path.glob(".*tmp"))


ASKED = """
import signal, time
from bsk.cli import signals
from bsk.cli.console import guarded
signals.ECHO = 0.2

def command():
    with signals.stop_requests(lambda text: print("asked", flush=True)) as stopping:
        print("ready", flush=True)
        {then}
    print("saved", flush=True)
    time.sleep(0.5)
    return stopping()

guarded(command)
"""
HANGS = "time.sleep(30)"
SAVES = "while not stopping(): time.sleep(0.01)"


@pytest.mark.parametrize(("number", "code"), CODES)
@pytest.mark.parametrize(("then", "said"), [(HANGS, ""), (SAVES, "saved\n")])
def test_a_later_signal_ends_what_does_not_stop_and_nothing_that_has_saved(number, code, then, said) -> None:
    command = [sys.executable, "-W", "error", "-c", ASKED.format(then=then)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == "asked\n"
    time.sleep(0.3)
    while process.poll() is None:  # to the very end
        process.send_signal(number)
        time.sleep(0.005)
    returncode, out, err = ended(process)
    assert returncode == code and out == said
    assert err == ("" if said else "bsk: stopped; the same command goes on from what was saved\n")
