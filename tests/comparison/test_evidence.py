from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bsk.comparison import evidence
from bsk.comparison.compare import compare
from bsk.comparison.evidence import collect
from bsk.comparison.tables import FORMATS, render
from bsk.errors import InputError
from bsk.records.located import located, read

Make = Any


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("n", None, "n: expected a value, found None"),
        ("n", 0, "n: expected a whole number from 1 to 1000000, found 0"),
        ("n", 10**6 + 1, "n: expected a whole number from 1 to 1000000"),
        ("n", 9, "accuracy: expected 7/9, as its `correct` bits say, found 0.7"),
        ("n", 6, "correct: expected 1 bytes for 6 examples, found 2"),
        ("n", 90, "correct: expected 12 bytes for 90 examples, found 2"),
        ("n", "10", "n: expected a whole number from 1 to 1000000, found '10'"),
        ("n", True, "n: expected a whole number from 1 to 1000000, found True"),
        ("accuracy", 1.5, "accuracy: expected a number from 0 to 1, found 1.5"),
        ("accuracy", -0.1, "accuracy: expected a number from 0 to 1"),
        ("accuracy", "high", "accuracy: expected a number from 0 to 1, found 'high'"),
        ("accuracy", 0.5, "accuracy: expected 7/10, as its `correct` bits say, found 0.5"),
        ("accuracy", 10**400, "accuracy: expected a number from 0 to 1"),
        ("eps", [0.2], "eps: expected a number from 0 to 1e+15, found list"),
        ("seed", 1.5, "seed: expected a whole number, found 1.5"),
        ("method", 7, "method: expected text, found 7"),
        ("attack", None, "attack: expected a value"),
        ("attack", ["pgd"], "attack: expected text"),
        ("split", None, "split: expected a value"),
        ("checkpoint", None, "checkpoint: expected a value"),
        ("flags", [1], "flags: expected an object of plain values, found list"),
        ("flags", {"a": [[[[[1]]]]]}, "flags: expected an object of plain values"),
        ("attack_parameters", "pgd", "attack_parameters: expected an object"),
        ("train_seconds", -1, "train_seconds: expected a number from 0"),
        ("train_forward_passes", -1, "train_forward_passes: expected a whole number from 0"),
        ("correct", 5, "correct: expected base64 text, found 5"),
        ("correct", "??", "correct: expected base64"),
        ("schema", 2, "expected schema 1, found 2; use the bsk that wrote it"),
        ("schema", "x" * 100, "found 'xxxx"),
    ],
)
def test_an_invalid_field_is_one_line_with_file_and_line(
    make: Make, place: Make, field: str, value: Any, part: str
) -> None:
    with pytest.raises(InputError) as error:
        collect(place([make("bs", 1), {**make("bs", 2, correct="1111111000"), field: value}]))
    message = str(error.value)
    assert message.startswith("results.jsonl:2: ") and part in message and "\n" not in message and len(message) < 200


def test_a_missing_field_says_so(make: Make, place: Make) -> None:
    record = make("bs", 1)
    del record["accuracy"]
    with pytest.raises(InputError, match="results.jsonl:1: accuracy: expected a value, found none"):
        collect(place([record]))


def test_an_infinite_number_is_refused(make: Make) -> None:
    line = json.dumps(make("bs", 1)).replace('"train_seconds": 6.25', '"train_seconds": 1e999')
    with pytest.raises(InputError, match="x:1: not a JSON record .'train_seconds': not a finite number"):
        collect(located([line.encode() + b"\n"], "x"))


@pytest.mark.parametrize("kind", ["epoch", "end"])
def test_a_log_without_its_start_is_refused(place: Make, kind: str) -> None:
    with pytest.raises(InputError, match=f"log.jsonl:1: {kind} record without its start; give the whole log"):
        collect(place([{"kind": kind, "epoch": 3}], "log.jsonl"))


def test_line_numbers_are_those_of_the_file(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    good, bad = json.dumps(make("bs", 1)), json.dumps({**make("bs", 2), "n": -1})
    path.write_text(f"{good}\n\n\n{bad}\n")
    with pytest.raises(InputError, match=r"r\.jsonl:4: n: "):
        collect(read(path))
    path.write_text(f"{good}\n\n{{\n")
    with pytest.raises(InputError, match=r"r\.jsonl:3: not a JSON record"):
        read(path)


def test_a_truncated_last_line_is_left_out(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    line = json.dumps(make("bs", 1))
    path.write_text(f"{line}\n{line[:100]}")
    said: list[str] = []
    rows, notices = compare(read(path, notice=said.append))
    assert len(rows) == 1 and rows[0]["seeds"] == 1 and notices == []
    assert said == [f"{path}:2: cut off, so this record is left out"]
    path.write_text(f"{line}\n{line}")  # whole, but for its newline
    assert len(read(path, notice=said.append)) == 2 and len(said) == 1


def test_an_unreadable_file_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.jsonl: cannot read: No such file or directory; give a JSONL file"):
        read(tmp_path / "no.jsonl")
    with pytest.raises(InputError, match="cannot read: Is a directory"):
        read(tmp_path)


def test_control_characters_reach_no_terminal(make: Make, place: Make) -> None:
    evil = "bs\x1b[2J\t\n\ud800"
    rows, _ = compare(place([{**make("bs", 1), "method": evil, "model": evil}, make("fast-at", 1)]))
    for format in FORMATS:
        text = render(rows, format)
        assert "\x1b" not in text and "bs\\x1b[2J\\t\\n\\ud800" in text.replace("\\\\", "\\") or format == "latex"
        assert text.encode() and text.count("\n") == text.rstrip("\n").count("\n") + 1


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_hostile_values_give_rows_or_one_line(make: Make, make_log: Make, place: Make, data: st.DataObject) -> None:
    records = [make("fast-at", 1), make("bs", 1), make("bs", 1, "natural"), *make_log("bs", 1, epochs=2)]
    for _ in range(data.draw(st.integers(1, 3))):
        record = records[data.draw(st.integers(0, len(records) - 1))]
        record[data.draw(st.sampled_from(sorted(record)))] = data.draw(values)
    try:
        rows, notices = compare(place(records))
    except InputError as error:
        assert "\n" not in str(error) and str(error).startswith("results.jsonl:")
        return
    assert all("\n" not in notice for notice in notices)
    for format in FORMATS:
        assert render(rows, format).isprintable() or "\n" in render(rows, format)


def test_more_outcomes_than_fit_into_memory_are_refused(make, place, monkeypatch: pytest.MonkeyPatch) -> None:
    records = place([make("bs", 1), make("bs", 2), make("bs", 3)])  # of 10 images each
    monkeypatch.setattr(evidence, "MOST_OUTCOMES", 30)
    assert len(evidence.collect(records).evaluations) == 3
    monkeypatch.setattr(evidence, "MOST_OUTCOMES", 29)
    with pytest.raises(InputError, match=r":3: more than 29 outcomes in total; compare fewer records at once"):
        evidence.collect(records)
