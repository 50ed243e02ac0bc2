"""The table of `bsk methods`: papers, passes, memory, needs, and collapsed trainings."""

import inspect
import json
from pathlib import Path
from statistics import median

import pytest

from benchmarks.collapses import COUNTED, counted
from bsk.comparison import survey as module
from bsk.comparison.survey import COLUMNS, Collapses, count_collapses, recorded_collapses, survey
from bsk.methods import registry
from bsk.records.located import located


def log(method: object, alarms: int, looks: bool = True, eps: float = 16 / 255, **more: object) -> list[bytes]:
    start = {"kind": "start", "method": method, "dataset": "cifar10", "eps": eps, **more}
    epoch = {"kind": "epoch", "epoch": 1, **({"monitor_pgd": 0.3} if looks else {})}
    alarm = {"kind": "alarm", "epoch": 1, "step": 3}
    return [json.dumps(each).encode() for each in (start, epoch, *[alarm] * alarms, epoch)]


def test_a_monitored_training_counts_once() -> None:
    lines = [*log("bs", 0), *log("bs", 2), *log("bs", 0, looks=False), *log("fast-at", 1), *log(["bs"], 1)]
    lines += log("bs", 1, eps=0.031)
    found = count_collapses(located(lines, "logs.jsonl"))
    assert found == [
        Collapses("bs", "cifar10", 0.031, 1, 1),
        Collapses("bs", "cifar10", 16 / 255, 2, 1),
        Collapses("fast-at", "cifar10", 16 / 255, 1, 1),
    ]
    assert [each.place for each in found][:2] == ["cifar10 at 0.031: 1 of 1", "cifar10 at 16/255: 1 of 2"]


def test_a_start_after_an_end_is_another_training_though_its_checkpoint_is_the_same() -> None:
    """As in the logs of two machines, one after the other."""
    whole = [*log("bs", 1, checkpoint="runs/bs.safetensors"), b'{"kind": "end"}']
    found = [Collapses("bs", "cifar10", 16 / 255, 2, 2)]
    assert count_collapses(located([*whole, *whole], "both.jsonl")) == found
    assert count_collapses(located([*whole[:-1], *whole], "resumed.jsonl")) == [
        Collapses("bs", "cifar10", 16 / 255, 1, 1)
    ]


def test_an_alarm_in_the_first_epoch_counts_as_monitored() -> None:
    lines = log("bs", 1)
    assert count_collapses(located([lines[0], lines[2]], "cut.jsonl")) == [Collapses("bs", "cifar10", 16 / 255, 1, 1)]
    assert count_collapses(located(lines[1:], "headless.jsonl")) == []


def test_the_packaged_counts_equal_those_of_the_records() -> None:
    assert COUNTED.read_text() == counted(), "make them again: python -m benchmarks.collapses"
    assert sum(each.collapsed for each in recorded_collapses()) >= 6


@pytest.fixture(scope="module")
def listed() -> list[dict]:
    """The rows of all methods, with monitored trainings of two settings."""
    return survey([Collapses("cuap", "digits", 0.2, 3, 1), Collapses("cuap", "toy", 0.1, 2)])


def test_every_method_has_a_complete_row(listed: list[dict]) -> None:
    rows = {row["method"]: row for row in listed}
    assert list(rows) == registry.names() and all(list(row) == COLUMNS for row in rows.values())
    assert [name for name, row in rows.items() if not row["year"]] == ["natural"]
    known = {
        "bs": ("Chen et al.", 2022, 4, 4, 0, 0, 0, 0, ""),
        "fast-at": ("Wong et al.", 2020, 2, 2, 0, 0, 0, 0, ""),
        "free-at": ("Shafahi et al.", 2019, 8, 8, 0, 1, 0, 0, "whole batch"),
        "fgsm-pgi": ("Jia et al.", 2022, 2, 3, 2, 0, 0, 0, "whole batch"),
        "liet": ("Pan et al.", 2025, 2, 3, 0, 0, 1, 0, ""),
        "uap": ("Pan et al.", 2024, 2, 3, 0, 0, 0, 2, "whole batch"),
        "cuap": ("Pan et al.", 2024, 2, 3, 0, 0, 2, 0, "whole batch"),
        "rs-cs": ("Zhao et al.", 2023, 2, 3, 0, 0, 0, 0, "whole batch"),
        "gradalign": ("Andriushchenko & Flammarion", 2020, 3, 4, 0, 0, 0, 0, "second order"),
        "llr": ("Qin et al.", 2019, 13, 14, 0, 0, 0, 0, "second order"),
        "fast-at-plus": ("Li et al.", 2020, 2, 2, 0, 0, 0, 0, "validation"),
    }
    for name, expected in known.items():
        assert tuple(rows[name].values())[1:10] == expected, name
    assert [rows["cuap"][column] for column in COLUMNS[-4:-1]] == [5, 1, "digits at 0.2: 1 of 3"]
    assert [rows["bs"][column] for column in COLUMNS[-4:-1]] == [0, 0, ""]
    assert {name for name, row in rows.items() if "second order" in row["needs"]} == {"gradalign", "llr"}


def test_a_method_can_be_read_at_a_glance() -> None:
    """Below its docstring the median method has at most 25 lines; all of them, with the registry, have 1,300."""
    files = list(Path(registry.__file__).parent.glob("*.py"))
    lengths = []
    for each in {registry.function(name) for name in registry.names()}:
        lines = inspect.getsource(each).splitlines()
        lengths.append(len(lines) - 1 - max(i for i, line in enumerate(lines) if line.strip().endswith('"""')))
    assert median(lengths) <= 25 and max(lengths) <= 25
    assert sum(len(file.read_text().splitlines()) for file in files) <= 1300


@pytest.mark.parametrize("format", ["table", "tsv", "jsonl", "markdown", "latex"])
def test_the_command_lists_them_in_every_format(call, listed, monkeypatch, format: str, tmp_path: Path) -> None:
    given: list[list[Collapses]] = []
    monkeypatch.setattr(module, "survey", lambda seen: given.append(seen) or listed)
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join(log("bs", 1)) + b"\n")
    shown = call("methods", str(path), "--format", format).stdout
    assert all(name in shown.replace("\\", "") for name in registry.names())
    assert "digits at 0.2: 1 of 3" in shown
    if format == "tsv":
        lines = [line.split("\t") for line in shown.splitlines()]
        assert lines[0] == COLUMNS and {len(line) for line in lines} == {len(COLUMNS)}
        assert shown == call("methods", str(path)).stdout
    if format == "jsonl":
        assert [json.loads(line) for line in shown.splitlines()] == listed
    assert call("methods", "--format", format).returncode == 0
    assert given[0] == [Collapses("bs", "cifar10", 16 / 255, 1, 1)] and given[-1] == recorded_collapses()
    assert call("methods", "--format", "pdf", check=2).stdout == ""
