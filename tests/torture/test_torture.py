"""The torture programme in short: `make torture` has all of it."""

import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from bsk.records import checkpoints
from torture.disks import disks
from torture.kills import _lost, kills
from torture.mutations import absurd_length, hostile_header, hostile_json, mutate, mutations, readers, repeat_line
from torture.subjects import COMMANDS, contents, differences, epochs_behind, saved, unreadable
from torture.writers import writers


def test_killed_once_each_and_run_again(tmp_path: Path) -> None:
    said: list[str] = []
    assert kills(tmp_path, 1, 5, said.append) == []
    assert [line.split(": killed 1 times")[0] for line in said] == [command.name for command in COMMANDS]


def test_damaged_inputs_through_every_reader(tmp_path: Path) -> None:
    said: list[str] = []
    assert mutations(tmp_path, 75, 3, said.append) == []
    ways = readers()
    assert len(ways) == 25
    damaged, hostile = said[: len(ways)], said[len(ways) :]
    assert sum("exit 3" in line or "exit 2" in line for line in damaged) >= 17
    assert len(hostile) == 20 and all(line.endswith(": exit 3") for line in hostile)


def test_disks_that_are_full_at_the_first_write_and_later(tmp_path: Path) -> None:
    said: list[str] = []
    assert disks(tmp_path, 2, said.append) == []
    if said[0].startswith("disks: left out"):
        pytest.skip("only root can make a small file system")
    assert all("of 2 times; 0 wrong" in line and "full 0" not in line for line in said) and len(said) == len(COMMANDS)


def test_two_writers(tmp_path: Path) -> None:
    assert writers(tmp_path, lambda line: None) == []


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    """The programme's own eyes: a torn file, a file that says something else, one that is missing."""
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


def test_lost_work_is_found(tmp_path: Path) -> None:
    state, log = tmp_path / "m.last.safetensors", tmp_path / "m.jsonl"
    log.write_text('{"kind": "start"}\n' + '{"kind": "epoch"}\n' * 3)
    checkpoints.save(state, {}, {"kind": "training-state", "epoch": 2, "progress": {"step": 24}})
    assert saved(tmp_path) == 24 and epochs_behind(tmp_path) == 1 and _lost(tmp_path, 24) == []
    assert _lost(tmp_path, 25) == ["25 updates or lines were saved, now 24"]
    state.unlink()
    assert _lost(tmp_path, 24) == ["24 updates or lines were saved, now 4", "3 logged epochs would be run again"]


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
