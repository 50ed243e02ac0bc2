"""Streams that are full, closed or left: stdout's are errors with a code, stderr's end nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = ["--model", "cnn-4", "--epochs", "3", "--batch-size", "32", "--schedule", "cyclic", "--threads", "1"]


@pytest.fixture
def shell(tmp_path: Path):
    """Run `bsk WORDS REDIRECTION` in a shell."""

    def run(redirection: str, *words: object) -> subprocess.CompletedProcess[str]:
        script = f'set -o pipefail; "$0" -m bsk "$@" {redirection}'
        command = ["bash", "-c", script, sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.mark.parametrize("command", ["evaluate", "compare"])
@pytest.mark.parametrize(
    ("redirection", "said"),
    [
        (">/dev/full", "bsk: stdout: cannot write: No space left on device; free some space or write elsewhere\n"),
        (">&-", "bsk: stdout: cannot write: not writable; choose another path\n"),
        (">/dev/full 2>/dev/full", ""),
        (">&- 2>&-", ""),
    ],
)
def test_a_full_or_closed_stdout_is_one_line(shell, call, toy, trained, tmp_path, command, redirection, said) -> None:
    words = [trained, "--data", toy, "--attack", "natural", "--no-checks"]
    if command == "compare":
        (tmp_path / "r.jsonl").write_text(call("evaluate", *words).stdout)
        words = ["r.jsonl"]
    done = shell(redirection, command, *words, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", said)


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2> >(true)"])
def test_nothing_on_stderr_ends_a_training(shell, toy: Path, tmp_path: Path, redirection) -> None:
    done = shell(redirection, "train", "--data", toy, *TRAIN, "--out", "m.safetensors")
    assert done.returncode == 0 and json.loads(done.stdout)["last_epoch"] == 3


def test_a_training_whose_reader_leaves_is_ended_all_the_same(shell, toy: Path, tmp_path: Path) -> None:
    done = shell("2>&1 | head -1", "train", "--data", toy, *TRAIN, "--out", "m.safetensors")
    assert done.returncode == 141 and done.stdout.startswith("bsk: epoch 1") and done.stderr == ""
    assert json.loads((tmp_path / "m.jsonl").read_text().splitlines()[-1])["kind"] == "end"


def test_an_error_has_its_code_though_nobody_hears_of_it(shell) -> None:
    assert shell("2>/dev/full", "evaluate", "missing.safetensors").returncode == 3
