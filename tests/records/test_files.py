"""Files are written atomically, records are lines, and equal checkpoints have equal bytes."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from bsk.errors import InputError, first_line, named_error
from bsk.records import atomic, checkpoints
from bsk.records import jsonl as records
from bsk.records.atomic import lock, replacing
from bsk.records.headers import load_header
from bsk.records.pictures import write_folder


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        raise RuntimeError
    assert path.read_text() == "whole"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(InputError, match="file: cannot write: .*; choose another path"), replacing(tmp_path / "file"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=25)
@given(record=st.dictionaries(st.text(), values))
def test_a_record_is_one_line_and_is_read_again(record: dict) -> None:
    line = records.dumps(record)
    assert "\n" not in line
    assert list(records.parse([line.encode() + b"\n"], "x")) == [record]


def test_a_last_record_without_newline_is_kept_and_other_text_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": 2}')
    records.append(path, {"c": 3})
    assert records.read(path) == [{"a": 1}, {"b": 2}, {"c": 3}]
    path.write_bytes(b"my notes")
    with pytest.raises(InputError, match="not a JSON record"):
        records.append(path, {"c": 3})
    assert path.read_bytes() == b"my notes"


def test_a_truncated_last_line_is_ignored_and_removed_by_the_next_append(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    records.append(path, {"a": 1})
    with path.open("ab") as file:
        file.write(b'{"b": 2, "c')
    assert records.read(path) == [{"a": 1}]
    records.append(path, {"d": 4})
    assert path.read_bytes() == b'{"a": 1}\n{"d": 4}\n'


@pytest.mark.parametrize("room", [0, 1, 9, 10, 30])
def test_a_full_disk_leaves_no_partial_line(full_at, tmp_path: Path, room: int) -> None:
    path = tmp_path / "log.jsonl"
    records.append(path, {"a": 1})
    for line in (b"", b'{"torn": '):
        with path.open("ab") as file:
            file.write(line)
        with full_at(9 + room), pytest.raises(InputError, match="log.jsonl: cannot write: File too large"):
            records.append(path, {"b": "x" * 30})
        assert path.read_bytes() == b'{"a": 1}\n'
    records.append(path, {"c": 3})
    assert records.read(path) == [{"a": 1}, {"c": 3}]


def test_a_file_is_synced_before_it_gets_its_name_and_the_name_after(tmp_path, monkeypatch) -> None:
    done: list[str] = []
    sync, replace = atomic.sync, os.replace
    monkeypatch.setattr(atomic, "sync", lambda path: done.append(f"sync {path.suffix or path.name}") or sync(path))
    monkeypatch.setattr(os, "replace", lambda a, b: done.append(f"{a.suffix} is {b.name}") or replace(a, b))
    (tmp_path / "here").mkdir()
    with atomic.replacing(tmp_path / "here" / "file") as temporary:
        temporary.write_text("whole")
    assert done == ["sync .tmp", ".tmp is file", "sync here"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENOSPC])
def test_a_read_only_disk_and_a_quota_are_one_line_with_the_next_step(code: int, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("before")

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError) as error, atomic.replacing(tmp_path / "file") as temporary:
        temporary.write_text("after")
    advice = "choose a folder you may write" if code in (errno.EROFS, errno.EACCES) else "free some space"
    assert str(error.value).startswith(f"{tmp_path}/file: cannot write: {os.strerror(code)}; {advice}")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("file", "before")]


def test_the_folders_of_a_new_file_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    path = tmp_path / "runs" / "deep" / "log.jsonl"
    records.append(path, {"a": 1})
    assert {str(each) for each in (path, *list(path.parents)[:3])} == set(synced)
    synced.clear()
    records.append(path, {"b": 2})
    assert synced == [str(path)]
    with replacing(tmp_path / "other" / "file") as temporary:
        temporary.write_text("whole")
    assert str(tmp_path) in synced and str(tmp_path / "other") in synced


@pytest.mark.parametrize(
    "line", [b"[1]\n", b"{\n", b'{"a": NaN}\n', b'{"a": 1, "a": 2}\n', b"\xff\n", b"[" * 100_000 + b"\n"]
)
def test_a_complete_line_that_is_not_a_record_is_named(line: bytes) -> None:
    with pytest.raises(InputError, match="^log:2: not a JSON record"):
        list(records.parse([b'{"fine": 1}\n', line], "log"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"a": {"b": NaN}}', "'b': not a finite number"),
        (b'{"a": 1, "beta": 1e999}', "'beta': not a finite number"),
        (b'{"a": [1, [2, -1e999]]}', "'a': not a finite number"),
        (b'{"a: b": Infinity}', "'a: b': not a finite number"),
        (b'{"a": [1%s]}' % (b"0" * 400), "'a': a number too large"),
        (b'{"a": ["\\ud800"]}', "'a': a lone surrogate"),
        (b'{"\\uDFFF": 1}', r"'\udfff': a lone surrogate"),
        (b'{"k": 1, "k": 1}', "duplicate key 'k'"),
        (b'{"a\\n": 1, "a\\n": 1}', r"duplicate key 'a\n'"),
    ],
)
def test_a_value_that_is_not_json_is_named_with_its_field(line: bytes, said: str) -> None:
    with pytest.raises(InputError) as error:
        list(records.parse([line + b"\n"], "log"))
    assert str(error.value) == f"log:1: not a JSON record ({said}); remove the line"


def test_nan_and_infinity_are_never_written() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        records.dumps({"loss": float("nan")})


def test_a_checkpoint_comes_back_and_is_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 4).T, "a": torch.arange(5), "c": torch.randn(2).bfloat16()}
    header = {"kind": "model", "flags": {"gamma": 1.0, "beta": 10.0}, "classes": ["x"]}
    for name in ("one", "two"):
        checkpoints.save(tmp_path / name, dict(reversed(tensors.items())) if name == "two" else tensors, header)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found, said = checkpoints.load(tmp_path / "one", "model")
    assert said == {"schema": 1, **header}
    assert found.keys() == tensors.keys() and all(torch.equal(found[k], tensors[k]) for k in tensors)


def test_a_tensor_is_saved_by_value(tmp_path: Path) -> None:
    """Tied weights, views, repeated values and lazy conjugates, of which safetensors would refuse or change some."""
    base = torch.arange(6.0)
    tensors = {"a": base, "tied": base, "part": base[2:4], "repeated": base[:1].expand(3), "turned": base.view(2, 3).T}
    tensors["conjugate"] = torch.tensor([1 + 2j]).conj()
    checkpoints.save(tmp_path / "t.safetensors", tensors, {"kind": "model"})
    with safe_open(tmp_path / "t.safetensors", framework="pt") as file:
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("message", "line", "named"),
    [
        ("one\ntwo", "one", "ValueError: one"),
        ("\n\n  late\n", "late", "ValueError: late"),
        ("", "ValueError", "ValueError: no message"),
        ("x" * 200, "x" * 120, "ValueError: " + "x" * 120),
    ],
)
def test_an_error_has_one_line(message: str, line: str, named: str) -> None:
    assert (first_line(ValueError(message)), named_error(ValueError(message))) == (line, named)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (None, "not written by bsk"),
        ({"other": "x"}, "not written by bsk"),
        ({"bsk": "{"}, "not a JSON record"),
        ({"bsk": "[]"}, "not a JSON record"),
        ({"bsk": json.dumps({"schema": 1, "kind": "data"})}, "expected a model file, found a data file"),
        ({"bsk": json.dumps({"schema": 99, "kind": "model"})}, "schema 99, this bsk reads 1"),
    ],
)
def test_a_foreign_header_is_a_one_line_error(tmp_path: Path, metadata, said: str) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "m.safetensors", metadata=metadata)
    with pytest.raises(InputError) as error:
        load_header(tmp_path / "m.safetensors", "model")
    assert said in str(error.value) and "m.safetensors" in str(error.value) and "\n" not in str(error.value)


def tensor(shape: list[int], end: int) -> str:
    return json.dumps({"dtype": "F32", "shape": shape, "data_offsets": [0, end]})


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (f'{{"w": {tensor([2], 8)}, "w": {tensor([2], 8)}}}', "duplicate key 'w'"),
        (f'{{"__metadata__": {{"bsk": "{{}}", "bsk": "x"}}, "w": {tensor([2], 8)}}}', "duplicate key 'bsk'"),
        (f'{{"w": {tensor([2], 8)}, "empty": {tensor([0, 2**62, 4], 0)}}}', "'empty' of shape [0, 4611686018427387904"),
        (f'{{"w": {tensor([2], 8)}, "empty": {tensor([0, -1], 0)}}}', "not a whole safetensors file"),
        (f'{{"w": {tensor([2], 8)}, "x": [1]}}', "not a whole safetensors file"),
        ('{"__metadata__": {"bsk": 1e999}}', "'bsk': not a finite number"),
        ("[]", "not a whole safetensors file"),
    ],
)
def test_a_hostile_header_is_a_one_line_error(tmp_path: Path, head: str, said: str) -> None:
    path = tmp_path / "m.safetensors"
    packed = head.encode() + b" " * (-len(head) % 8)
    path.write_bytes(len(packed).to_bytes(8, "little") + packed + bytes(8))
    with pytest.raises(InputError) as error:
        load_header(path, "model")
    assert said in str(error.value) and "m.safetensors" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "advice"), [(b"\x90\1\0\0{}\n", "give JSONL"), (b"# bsk\n", "give JSONL"), (b'{"a"\n', "remove")]
)
def test_a_file_of_another_kind_is_not_to_be_mended(content: bytes, advice: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(InputError, match=rf"f:1: not a JSON record \(.*\); {advice}"):
        records.read(tmp_path / "f")


def test_a_folder_that_a_killed_process_left_is_removed_and_one_being_written_is_not(tmp_path: Path) -> None:
    images, labels = np.zeros((2, 1, 4, 4), np.uint8), np.arange(2)
    killed, alive, other = (tmp_path / name for name in (".out.abc.tmp", ".out.def.tmp", ".else.abc.tmp"))
    for each in (killed, alive, other):
        (each / "0").mkdir(parents=True)
        (each / "0" / "1.png").write_bytes(b"part")
    handle = os.open(alive, os.O_RDONLY)
    try:
        assert lock(handle)
        write_folder(tmp_path / "out", images, ["a", "b"], {"labels": labels, "index": labels}, {})
    finally:
        os.close(handle)
    assert sorted(each.name for each in tmp_path.iterdir()) == [".else.abc.tmp", ".out.def.tmp", "out"]
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["a", "b", "images.jsonl"]
