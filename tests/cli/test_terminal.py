"""Records on a terminal are one readable line each, between progress bars; in a pipe they are JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bsk.cli.lines import line_of

TRAIN = ["--model", "cnn-4", "--epochs", "2", "--batch-size", "32", "--schedule", "cyclic", "--threads", "1"]
LINE = re.compile(
    r"m\.safetensors: (\S+) at eps 0\.05 \(12\.8/255\): "
    r"(\d+\.\d\d)% \[\d+\.\d\d%, \d+\.\d\d%\] of 30, [\d.]+ s, (no doubts|not examined)"
)


def shown(text: str) -> list[str]:
    """Return the lines that a terminal finally shows, given text with rich's cursor movements and erasures."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.startswith("\x1b"):
            assert part[-1] in "AKmhl", part
            row -= int(part[2:-1] or 1) if part.endswith("A") else 0
            lines[row] = "" if part.endswith("2K") else lines[row]
        else:
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


@pytest.fixture
def terminal(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Run `bsk` with its streams on a terminal, but those in `apart`; return what that gets, and stdout if apart."""

    def run(*words: object, apart: str = "") -> tuple[str, str]:
        mine, theirs = pty.openpty()
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs) | ({apart: subprocess.PIPE} if apart else {})
        process = subprocess.Popen(
            [sys.executable, "-m", "bsk", *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
            **streams,
        )
        os.close(theirs)
        text = b""
        while True:
            try:
                text += os.read(mine, 4096)
            except OSError:  # nobody is at the other end any more
                break
        os.close(mine)
        rest = process.communicate()[0] or b""
        assert process.returncode == 0, text
        return text.decode(), rest.decode()

    return run


def test_an_evaluation_is_a_line_on_a_terminal_and_no_bar_mangles_it(terminal, trained: Path, toy: Path) -> None:
    words = ["evaluate", "m.safetensors", "--data", toy, "--attack", "natural,pgd-40,screen", "--eps", "0.05"]
    text, _ = terminal(*words, "--limit", 30, "--threads", 1)
    assert "pgd-40 checks <=" in text and "screen apgd-t <=" in text, "bars were drawn"
    found = [line for line in shown(text) if " doubts" in line]
    assert [LINE.fullmatch(line.replace("at most ", ""))[1] for line in found] == ["natural", "pgd-40", "screen"]
    rest = [line for line in shown(text) if line not in found]
    others = r"(bsk: )?(m\.safetensors: screen: \d+ of 30 survive|screen|m\.safetensors: the checks skipped)"
    assert all(re.match(others, line) for line in rest), rest
    assert "{" not in text


@pytest.mark.slow
def test_a_pipe_and_json_get_records(terminal, trained: Path, toy: Path) -> None:
    words = [
        "evaluate",
        "m.safetensors",
        "--data",
        toy,
        "--attack",
        "pgd-5",
        "--eps",
        "0.05",
        "--limit",
        30,
        "--no-checks",
    ]
    text, record = terminal(*words, apart="stdout")
    assert json.loads(record)["attack"] == "pgd-5" and LINE.fullmatch(shown(text)[-1])[1] == "pgd-5"
    text, _ = terminal(*words, "--json", "--quiet")
    assert json.loads(text)["attack"] == "pgd-5"
    text, _ = terminal(*words, "--quiet")
    assert LINE.fullmatch(text.strip()) and text.count("\n") == 1
    text, _ = terminal(*words, "--json")
    assert [json.loads(line)["n"] for line in shown(text) if line.startswith("{")] == [30]


@pytest.mark.slow
def test_doubts_are_counted_in_the_line_and_listed_below_it(terminal, call, trained: Path, toy: Path) -> None:
    call("prepare-data", "digits", "--out", "digits.safetensors", "--train-limit", 200)
    call("train", "--data", "digits.safetensors", *TRAIN, "--epochs", 1, "--out", "d.safetensors")
    call("prepare-data", "digits", "--out", "more.safetensors")
    text, _ = terminal("evaluate", "d.safetensors", "--data", "more.safetensors", "--attack", "natural")
    line, doubt = shown(text)
    assert line.endswith(", 1 doubt") and doubt.startswith("d.safetensors: doubtful: this digits is not the file")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "prepare-data digits --out d.safetensors",
            r"d\.safetensors: digits, 1200 train, 200 val, 397 test images, .*",
        ),
        (
            f"train --data TOY {' '.join(TRAIN)} --out n.safetensors",
            r"n\.safetensors: bs, epoch \d of 2: val natural .*",
        ),
        ("attack m.safetensors --data TOY --attack fgsm --out a.safetensors", r"m\.safetensors: fgsm at eps 0\.1 .*"),
        (
            "starts m.safetensors --data TOY --limit 1 --start zero",
            r"image \d+ of class \d, zero: KL 0 nats, class \d to \d",
        ),
    ],
)
def test_every_command_prints_a_line(terminal, trained: Path, toy: Path, words: str, line: str) -> None:
    text, _ = terminal(*words.replace("TOY", str(toy)).split(), "--quiet")
    assert text.count("\n") == 1 and re.fullmatch(line, text.strip())
    text, _ = terminal(*words.replace("TOY", str(toy)).split(), "--json", *(["--force"] if "attack" in words else []))
    assert [json.loads(each)["kind"] for each in shown(text) if each.startswith("{")]


def test_control_characters_of_a_record_do_not_reach_the_terminal() -> None:
    counts = {"train": 1, "val": 2, "test": 3, "classes": 1, "class_names": ["\x9b2J"], "eps": 0.1}
    line = line_of({"kind": "data", "path": "\x1b]0;pwned\x07d.safetensors", "name": "d", **counts})
    assert line == r"\x1b]0;pwned\x07d.safetensors: d, 1 train, 2 val, 3 test images, 1 classes (\x9b2J), eps 0.1"
