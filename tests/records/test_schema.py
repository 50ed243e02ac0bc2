"""What the structs of records take: all that bsk has written, and nothing that only looks like it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsk.errors import InputError
from bsk.records import jsonl
from bsk.records.fields import FieldError, Plain, convert
from bsk.records.located import Located, checked, evaluation, read, value_of
from bsk.records.schema import KINDS, EndRecord, EpochRecord, EvaluationRecord, LandingRecord, OwnEvaluation

ROOT = Path(__file__).parents[2]
BESIDE = ("ema_", "last_", "monitor_")  # prefixes that the schema tells of as a whole


def test_every_committed_record_is_as_its_schema_says() -> None:
    seen: Counter[str] = Counter()
    for path in sorted((ROOT / "results").rglob("*.jsonl")):
        for item in read(path):
            kind = item.record.get("kind")
            if kind is None:  # the bits of another program's attack
                continue
            record: Any = checked(item, KINDS[kind])
            seen[kind] += 1
            known = {*record.__struct_fields__, "kind"}
            assert {key for key in item.record if not key.startswith(BESIDE)} <= known, item.where
            for key in item.record.keys() & known - {"kind", "correct"}:
                assert msgspec.to_builtins(getattr(record, key)) == item.record[key], (item.where, key)
    assert seen["evaluation"] > 800 and seen["start"] > 100 and seen["epoch"] > 1000 and seen["end"] > 100


def landing(**changes: Any) -> dict[str, Any]:
    values = {"logits": [1.0, 2], "landed": [0.5, -1e15], "kl": 0, "index": 3, "start": "zero", "checkpoint": "m"}
    return {"kind": "landing", **values, **changes}


@pytest.mark.parametrize(
    ("kind", "record", "said"),
    [
        (LandingRecord, landing(logits=[1.0]), "logits: expected a list of numbers, found list"),
        (LandingRecord, landing(logits=[1.0, "x"]), "logits: expected a list of numbers, found list"),
        (LandingRecord, landing(landed=[1.0, 1e16]), "landed: expected a list of numbers, found list"),
        (LandingRecord, landing(landed=[1.0, True]), "landed: expected a list of numbers, found list"),
        (LandingRecord, landing(index=3.0), "index: expected a whole number from 0, found 3.0"),
        (LandingRecord, landing(kl=None), "kl: expected a value, found None"),
        (EpochRecord, {"kind": "epoch"}, "epoch: expected a value, found none"),
        (EpochRecord, {"kind": "epoch", "epoch": -1}, "epoch: expected a whole number from 0, found -1"),
        (EpochRecord, {"kind": "epoch", "epoch": 10**16}, "epoch: expected a whole number from 0, found 1000000"),
        (EpochRecord, {"kind": "epoch", "epoch": 1, "val_robust": 1.01}, "val_robust: expected a number from 0 to 1"),
        (EpochRecord, {"kind": "epoch", "epoch": 1, "schema": True}, "expected schema 1, found True; use the bsk"),
        (EndRecord, {"kind": "end", "val_natural": -1.0}, "val_natural: expected a number from 0 to 1, found -1.0"),
        (EndRecord, {"kind": "end", "classes": []}, "classes: expected a list of texts, found list"),
    ],
)
def test_a_field_that_is_not_as_its_struct_says_is_one_line(kind: Any, record: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        checked(Located("r.jsonl", 7, record), kind)
    assert str(error.value).startswith(f"r.jsonl:7: {said}") and "\n" not in str(error.value)


def test_other_fields_are_left_out_and_numbers_become_floats() -> None:
    record = checked(Located("r", 1, landing(later={"a": [[]]}, kl=2)), LandingRecord)
    assert record.kl == 2.0 and type(record.kl) is float and record.logits == [1.0, 2.0]
    assert not hasattr(record, "later") and record.target is None


def test_texts_are_printable_whatever_the_file_says(make) -> None:
    item = Located("r", 1, {**make("bs", 1), "method": "b\x1b[2Js\ud800", "model": "fine ü"})
    record = evaluation(item, EvaluationRecord)
    assert (record.method, record.model) == ("b\\x1b[2Js\\ud800", "fine ü")
    assert value_of(item, "method", str) == "b\\x1b[2Js\\ud800" and value_of(item, "not there", str | None) is None


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"a": 1, "b": 1.5, "c": None, "d": True, "e": "x"}, True),
        ({"a": [1, "x", None], "b": {"c": 1 << 70}}, True),
        ({"a": [[1]], "b": {"c": {"d": 1}}, "e": [{"f": 1}]}, True),
        ({"a": [[[1]]]}, False),
        ({"a": {"b": {"c": {"d": 1}}}}, False),
        ([1], False),
    ],
)
def test_what_methods_and_attacks_bring_are_plain_values_not_too_deep(value: Any, fits: bool) -> None:
    if fits:
        found = convert(value, Plain)
        assert found == value and [type(each) for each in found.values()] == [type(each) for each in value.values()]
    else:
        with pytest.raises(FieldError, match="an object of plain values"):
            convert(value, Plain)


def test_an_own_evaluation_has_all_that_a_person_is_told(make) -> None:
    whole = make("bs", 1, low=0.5, high=0.9, doubts=["few images"], seconds=1.5)
    assert evaluation(Located("r", 1, whole), OwnEvaluation).doubts == ["few images"]
    for name in ("eps", "low", "high", "doubts", "seconds"):
        with pytest.raises(InputError, match=f"r:1: {name}: expected a value, found none"):
            evaluation(Located("r", 1, {key: value for key, value in whole.items() if key != name}), OwnEvaluation)
        assert evaluation(Located("r", 1, {**whole, name: None}), EvaluationRecord).n == 10
    with pytest.raises(InputError, match="doubts: expected a list of text, found list"):
        evaluation(Located("r", 1, {**whole, "doubts": [3]}), OwnEvaluation)


def slowly(text: bytes) -> Any:
    """What JSON says, by Python's own reader alone."""
    return json.loads(text, object_pairs_hook=jsonl._checked)


def outcome(read_it: Any, text: bytes) -> str:
    try:
        return repr(read_it(text))
    except (ValueError, RecursionError) as error:
        return f"{type(error).__name__}: {jsonl.reason(error)}"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([1 << 999, 1 << 1000, -(1 << 1000), 1 << 63, 1 << 64])
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(['":', '\\":', '" :', "a\tb", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from('abc:" \ud800'), inner, max_size=3),
    max_leaves=8,
)
STYLES: list[dict[str, Any]] = [{}, {"separators": (",", ":")}, {"separators": (" ,", " : ")}, {"indent": 1}]


@given(VALUES, st.sampled_from(STYLES), st.booleans(), st.data())
def test_the_fast_reader_says_what_the_slow_one_says(value: Any, style: Any, ascii: bool, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=ascii, **style).encode(errors="surrogatepass")
    for _ in range(data.draw(st.integers(0, 2))):  # a stretch again elsewhere: keys stand twice, values are torn
        start, end, at = (data.draw(st.integers(0, len(text))) for _ in range(3))
        text = text[:at] + text[start:end] + text[at:]
    assert outcome(jsonl.decode, text) == outcome(slowly, text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":2}',
        b'{"a" :1,"a":2}',
        b'{"a" :1,"a" :2}',
        b'{"a"\t:1,"a":2}',
        b'{"a"\n:1,"a":2}',
        b'{"a"\r:1,"a":2}',
        b'{"a":"\\":","a":2}',
        b'{"x":"\\":\\":","a" :1,"a" :2}',
        b'{"x":[{"a":1,"b":[{"c":1,"c":1}]}]}',
        b'[{"a":1,"\\u0061":2}]',
    ],
)
def test_a_key_that_stands_twice_is_seen_however_it_is_written(text: bytes) -> None:
    with pytest.raises(ValueError, match="occurs twice"):
        jsonl.decode(text)


@pytest.mark.parametrize("text", [b'{"a":{"a":{"a":1}}}', b'{"b":"\\":","a" : 1}', b'\r\n{"a": 1}\t\r\n', b"[]", b"3"])
def test_what_is_unusual_is_read(text: bytes) -> None:
    assert jsonl.decode(text) == json.loads(text)
