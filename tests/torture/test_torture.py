"""The stress tests detect failures; `make torture` runs all of them."""

import itertools
import mmap
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from bsk.records import checkpoints
from torture.__main__ import main
from torture.kills import _lost
from torture.mutations import Reader, absurd_length, attempt, hostile_header, hostile_json, mutate, readers, repeat_line
from torture.situations import ALL, SUBJECTS, Ended, Situation, drawn, judged
from torture.subjects import COMMANDS, contents, differences, epochs_behind, saved, unreadable


@pytest.mark.slow(first=True)
def test_each_command_killed_once_and_each_reader_sent_one_damaged_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kills", "mutations", "--kills", "4", "--mutations", "25", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": killed 1 times")[0] for line in lines[:4]] == [command.name for command in COMMANDS]
    damaged, hostile = lines[4:29], lines[29:-1]
    assert [line.split(": exit")[0] for line in damaged] == [reader.name for reader in readers()]
    assert sum("exit 3" in line or "exit 2" in line for line in damaged) >= 15
    assert len(hostile) == 20 and all(line.endswith(": exit 3") for line in hostile)
    assert lines[-1].startswith("0 wrong")


@pytest.mark.slow
def test_situations_give_the_plain_number_or_say_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["situations", "--situations", "6", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    ends = [line.partition(": ") for line in lines[:-1]]
    assert [subject for subject, _, _ in ends] == list(SUBJECTS) and lines[-1].startswith("0 wrong")
    assert sum(int(n) for _, _, said in ends for n in re.findall(r"(\d+) times", said)) == 6


def situation(**odd: str) -> Situation:
    return Situation("network", {kind: odd.get(kind, next(iter(names))) for kind, names in ALL.items()})


RECORD = '{"kind": "evaluation", "correct": "%s", "accuracy": %s}\n'


@pytest.mark.parametrize(
    ("odd", "ended", "how", "wrong"),
    [
        ({}, (0, RECORD % ("aa", 0.5), ""), "same result", ""),
        ({}, (0, RECORD % ("ab", 0.5), ""), "wrong", "without a message"),
        ({}, (0, RECORD % ("ab", 0.5), "bsk: doubtful: its output is random"), "wrong", "without a message"),
        ({"wrapper": "random"}, (0, RECORD % ("ab", 0.4), "bsk: doubtful: its output is random"), "explained", ""),
        ({"wrapper": "random"}, (0, RECORD % ("ab", 0.4), "bsk: another line"), "wrong", "without a message"),
        ({"output": "tuple"}, (3, "", "bsk: expected logits (2, 10)"), "refused", ""),
        ({"output": "tuple"}, (3, "", "bsk: does not fit"), "refused", "refused without reason"),
        ({"output": "tuple"}, (1, "", "bsk: a bug: expected logits"), "exit 1", "neither"),
        ({"output": "tuple"}, (4, "", "bsk: expected logits"), "exit 4", "neither"),
        ({"output": "tuple"}, (3, "", "expected logits"), "exit 3", "neither"),
        ({"output": "tuple"}, (3, "", "Traceback\nbsk: expected logits"), "traceback", "a traceback"),
        ({"wrapper": "prints"}, (0, "forward\n" + RECORD % ("aa", 0.5), ""), "no record", "stdout"),
        ({"attack": "natural,fgsm"}, (0, 2 * (RECORD % ("aa", 0.5)), ""), "records", "2 records"),
    ],
)
def test_failures_of_situations_are_detected(odd, ended, how: str, wrong: str) -> None:
    found = judged(situation(**odd), Ended(*ended), [("aa", 0.5)])
    assert found[0] == how and wrong in found[1] and bool(wrong) == bool(found[1])


def test_a_situation_is_the_same_for_the_same_dice_and_all_parts_come() -> None:
    seen = {part for seed in range(5000) for part in drawn(random.Random(seed)).odd.items()}
    odd = {(kind, name) for kind, names in ALL.items() for name in list(names)[1:]}
    assert seen == odd and drawn(random.Random("1 2")) == drawn(random.Random("1 2"))


def ends(code: int, said: str) -> None:
    print(said, file=sys.stderr)
    sys.exit(code)


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        (lambda: ends(3, "bsk: m: no"), ""),
        (lambda: ends(0, ""), ""),
        (lambda: ends(3, "bsk: m: no\nand so on"), "said"),
        (lambda: ends(3, ""), "said"),
        (lambda: ends(1, "bsk: m: no"), "exit 1"),
        (lambda: ends(0, "Traceback"), "said"),
        # pages of its own: the process may have as much left of what it freed
        (lambda: [mmap.mmap(-1, 200 << 20).write(bytes(200 << 20)), ends(0, "")], "took "),
        (lambda: any(False for _ in itertools.count()), "hangs"),
        (lambda: time.sleep(99), "hangs"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "exit -9"),
    ],
)
def test_failures_of_readers_are_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command, wrong) -> None:
    monkeypatch.setattr("bsk.cli.app.main", command)
    monkeypatch.setattr("torture.mutations.SECONDS", 1)
    monkeypatch.setattr("torture.mutations.PATIENCE", 1 if wrong == "hangs" else 99)
    found = attempt(Reader("none", "m", []), tmp_path, 0)[1]
    assert found.startswith(wrong) and bool(found) == bool(wrong)


def test_wrong_files_are_detected(tmp_path: Path) -> None:
    """A truncated file, a file with other content, and a missing one."""
    (tmp_path / "a.jsonl").write_text('{"seconds": 1, "n": 2}\n{"n": 3}\n')
    before = contents(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"seconds": 9, "n": 2}\n{"n": 3}\n')
    assert differences(before, contents(tmp_path)) == [] == unreadable(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"seconds": 9, "n": 4}\n{"n": 3}\n')
    assert differences(before, contents(tmp_path)) == ["a.jsonl is not the same"]
    (tmp_path / "a.jsonl").write_text('{"seconds": 9\n{"n": 3}\n')
    (tmp_path / "m.safetensors").write_bytes(b"12345678{}")
    assert [line.split(":")[0] for line in unreadable(tmp_path)] == ["a.jsonl", "m.safetensors"]
    assert differences(before, {}) == ["a.jsonl is not the same"]


def test_lost_work_is_detected(tmp_path: Path) -> None:
    state, log = tmp_path / "m.last.safetensors", tmp_path / "m.jsonl"
    log.write_text('{"kind": "start"}\n' + '{"kind": "epoch"}\n' * 3)
    checkpoints.save(state, {}, {"kind": "training-state", "epoch": 2, "progress": {"step": 24}})
    assert saved(tmp_path) == 24 and epochs_behind(tmp_path) == 1 and _lost(tmp_path, 24) == []
    assert _lost(tmp_path, 25) == ["25 updates or lines were saved, now 24"]
    state.unlink()
    assert _lost(tmp_path, 24) == ["24 updates or lines were saved, now 4", "3 logged epochs would be repeated"]


def test_hostile_values_reach_the_header_of_bsk(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    checkpoints.save(path, {"w": torch.ones(2)}, {"kind": "model", "eps": 0.1, "flags": {"limit": None}, "mean": [0.5]})
    ends = set()
    for seed in range(500):
        (tmp_path / "changed").write_bytes(hostile_header(path.read_bytes(), random.Random(seed)))
        with safe_open(tmp_path / "changed", framework="pt") as file:
            assert file.get_tensor("w").tolist() == [1, 1]
            ends.add(file.metadata()["bsk"])
    for text in ('"eps": true', '"flags": {}', '"limit": [[[[]]]]', '"mean": -1', '"mean": ["x"]', '"kind": null'):
        assert any(text in end for end in ends), text


@pytest.mark.parametrize("seed", range(5))
def test_a_damage_is_the_same_for_the_same_dice_and_changes_something(seed: int) -> None:
    content = b'\x40\0\0\0\0\0\0\0{"a": 1, "b": "y"}\n' + bytes(range(256)) * 20
    assert mutate(content, random.Random(seed)) == mutate(content, random.Random(seed))
    for damage in (hostile_json, absurd_length, repeat_line):
        assert damage(content, random.Random(seed)) != content
