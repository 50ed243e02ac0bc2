"""Full, closed or abandoned streams: for stdout an error with an exit code, for stderr no effect."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bsk.records.headers import KEY

TRAIN = ["--model", "cnn-4", "--epochs", "3", "--batch-size", "32", "--schedule", "cyclic", "--threads", "1"]


@pytest.fixture
def shell(tmp_path: Path):
    """Run `bsk WORDS REDIRECTION` in a shell."""

    def run(redirection: str, *words: object) -> subprocess.CompletedProcess[str]:
        script = f'set -o pipefail; "$0" -m bsk "$@" {redirection}'
        command = ["bash", "-c", script, sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.mark.parametrize("command", ["compare", pytest.param("evaluate", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("redirection", "said"),
    [
        (">/dev/full", "bsk: stdout: cannot write: No space left on device; free some space or write elsewhere\n"),
        (">&-", "bsk: stdout: cannot write: not writable; choose another path\n"),
        (">/dev/full 2>/dev/full", ""),
        (">&- 2>&-", ""),
    ],
)
def test_a_full_or_closed_stdout_is_one_line(
    shell, results, toy, trained, tmp_path, command, redirection, said
) -> None:
    words = [trained, "--data", toy, "--attack", "natural", "--no-checks"]
    if command == "compare":
        (tmp_path / "r.jsonl").write_text("".join(json.dumps(record) + "\n" for record in results))
        words = ["r.jsonl"]
    done = shell(redirection, command, *words, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", said)


@pytest.mark.parametrize("words", [["compare"], ["compare", "-"], ["plot"], ["plan"]])
def test_a_closed_stdin_has_no_records(shell, words: list[str]) -> None:
    said = shell("<&-", *words)
    assert said.returncode == 2 and said.stderr.startswith("bsk: ") and said.stderr.count("\n") == 1


def test_characters_outside_the_encoding_are_escaped(shell, results, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(record) + "\n" for record in results))
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    said = shell("", "compare", "r.jsonl", "--title", "Gr\u00f6\u00dfe \u03b5")
    assert said.returncode == 0 and r"Gr\xf6\xdfe \u03b5" in said.stdout, said.stderr


WRITES = """
import atexit, os, sys
from bsk.models.small import cnn


def network(num_classes):
    os.write(1, b"below Python\\n")
    os.system("echo from a process")
    print("to the first stdout", file=sys.__stdout__, flush=True)
    atexit.register(print, "at the end")
    return cnn(num_classes, 1, 8, 4)


def closes(num_classes):
    sys.stdout.close()
    return network(num_classes).requires_grad_(None)  # raises
"""


def test_stdout_has_records_alone_whatever_a_network_writes(shell, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "writes.py").write_text(WRITES)
    words = ["--data", toy, "--attack", "natural", "--threads", "1"]
    done = shell("", "evaluate", "--model", "writes:network", *words)
    assert [json.loads(line)["attack"] for line in done.stdout.splitlines()] == ["natural"]
    for text in ("below Python", "from a process", "to the first stdout", "at the end"):
        assert text in done.stderr.splitlines()


@pytest.mark.slow
def test_a_network_that_closes_the_streams_is_reported(shell, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "writes.py").write_text(WRITES)
    done = shell("", "evaluate", "--model", "writes:closes", "--data", toy, "--attack", "natural")
    assert done.returncode == 2 and "--model writes:closes: TypeError" in done.stderr


def test_a_file_does_not_take_the_place_of_closed_streams() -> None:
    opens = "guarded(lambda: os._exit(os.open(os.devnull, os.O_RDONLY)))"
    script = f'"$0" -c "import os; from bsk.cli.console import guarded; {opens}" <&- >&- 2>&-'
    assert subprocess.run(["bash", "-c", script, sys.executable], check=False).returncode > 2


def test_help_that_cannot_be_written_is_one_line(shell) -> None:
    done = shell(">/dev/full", "compare", "--help")
    assert (done.returncode, done.stderr) == (
        3,
        "bsk: stdout: cannot write: No space left on device; free some space or write elsewhere\n",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "redirection", ["2>/dev/full", *(pytest.param(each, marks=pytest.mark.slow) for each in ("2>&-", "2> >(true)"))]
)
def test_nothing_on_stderr_ends_a_training(shell, toy: Path, tmp_path: Path, redirection) -> None:
    done = shell(redirection, "train", "--data", toy, *TRAIN, "--out", "m.safetensors")
    assert done.returncode == 0 and json.loads(done.stdout)["last_epoch"] == 3


def test_a_training_ends_normally_when_its_reader_leaves(shell, toy: Path, tmp_path: Path) -> None:
    done = shell("2>&1 | head -1", "train", "--data", toy, *TRAIN, "--out", "m.safetensors")
    assert done.returncode == 141 and done.stdout.startswith("bsk: epoch 1") and done.stderr == ""
    assert json.loads((tmp_path / "m.jsonl").read_text().splitlines()[-1])["kind"] == "end"


def test_an_error_has_its_exit_code_even_without_stderr(shell) -> None:
    assert shell("2>/dev/full", "evaluate", "missing.safetensors").returncode == 3


HOSTILE = "\x1b]0;pwned\x07\x1b[2J\x9b2J\x7f"
ESCAPED = r"\x1b]0;pwned\x07\x1b[2J\x9b2J\x7f"


@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize("field", ["kind", "schema"])
def test_control_characters_of_a_file_do_not_reach_the_terminal(call, tmp_path: Path, debug, field) -> None:
    header = json.dumps({"kind": "model", "schema": 1, field: HOSTILE})
    save_file({"w": np.zeros(1, dtype=np.float32)}, tmp_path / "m.safetensors", metadata={KEY: header})
    said = call(*debug, "evaluate", "m.safetensors", check=3).stderr
    assert ESCAPED in said and all(line.isprintable() for line in said.split("\n"))
    assert said.startswith("Traceback") == bool(debug)


@pytest.mark.slow
def test_control_characters_and_marks_in_a_name_do_not_reach_the_bar(toy: Path, trained: Path, tmp_path: Path) -> None:
    main, side = pty.openpty()
    name = "\x1b]0;pwned\x07[red]m.safetensors"
    trained.rename(tmp_path / name)
    words = ["evaluate", name, "--data", str(toy), "--attack", "pgd-200", "--no-checks"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bsk", *words],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=side,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(side)
    shown = b""
    while chunk := _chunk(main):
        shown += chunk
    assert process.wait() == 0
    assert rb"\x1b]0;pwned\x07[red]m.safetensors pgd-200" in shown and b"\x1b]0" not in shown


def _chunk(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # nobody is at the other end any more
        return b""
