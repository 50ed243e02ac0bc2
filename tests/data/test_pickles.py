from __future__ import annotations

import contextlib
import io
import os
import pickle
import resource
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_archives import cifar10_python, old_pickle, unpacked

from bsk.data.formats import pickles
from bsk.data.sources import prepare
from bsk.errors import InputError


def load(content: bytes, size: int | None = None) -> dict[str, Any]:
    return pickles.load(io.BytesIO(content), size or len(content), "here")


def refused(content: bytes, size: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load(content, size)
    message = str(caught.value)
    assert message.startswith("here: ")
    assert "\n" not in message
    return message


def test_the_content_of_cifar_pickles_is_read() -> None:
    images = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    found = load(old_pickle({"labels": [3, 255, 70000, -1], "data": images, "filenames": ["a.png"]}))
    assert found["labels"] == [3, 255, 70000, -1]
    assert found["filenames"] == [b"a.png"]
    assert np.array_equal(pickles.pixels(found["data"], "here"), images)


class Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_tries_to_run_something_is_refused(tmp_path: Path, protocol: int) -> None:
    message = refused(pickle.dumps({"data": Runs(tmp_path / "ran")}, protocol))
    assert not (tmp_path / "ran").exists()
    if 0 < protocol < 4:
        assert "it asks for 'posix.system', which no image data needs" in message


def test_prepare_names_the_file_and_writes_nothing(tmp_path: Path) -> None:
    files = cifar10_python(20, 20) | {"data_batch_3": pickle.dumps({"data": Runs(tmp_path / "ran")}, 2)}
    folder = unpacked(tmp_path / "cifar-10-batches-py", files)
    with pytest.raises(InputError, match=f"{folder}: data_batch_3: not a pickle of CIFAR .it asks for 'posix.system'"):
        prepare("cifar10", str(folder), tmp_path / "out.safetensors")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["cifar-10-batches-py"]


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\ngetattr\n.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"(S'ls'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'ls'\no.",  # OBJ
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # NEWOBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"\x82\x01.",  # EXT1
        b"Pid\n.",  # PERSID
        b"cnumpy\nndarray\n(S'call'\nS'x'\ndb.",  # BUILD on a callable
        b"cnumpy\ndtype\n(S'u1'\ntRcnumpy\nndarray\n(tRb0cnumpy\nndarray\n}b.",
        b"c_codecs\nencode\n(VAAAA\nS'rot13'\ntR.",
        b"}(S'a'\nS'b'\nS'c'\ntu.",
        b"}}K\x01s.",  # a dictionary as a key
        b"}K\x01K\x02s.",  # a number as a key
        b"(K\x01K\x02d.",
        b".",
        b"",
        b"\x80\x02",
        b"\x80\xff}.",
        b"h\x05.",  # a memo that is not there
        b"(((((.",
        b"R.",
        b"I" + b"9" * 5000 + b"\n.",
        b"S'" + b"a" * 10**6 + b"'\n.",
        b"T\xff\xff\xff\x7fabc.",  # 2 GiB announced
        b"T\xff\xff\xff\xffabc.",  # a negative length
        b"B\xff\xff\xff\xffabc.",
        b"X\xff\xff\xff\xffabc.",
        b"\x8b\xff\xff\xff\x7f.",  # LONG4
        b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # FRAME
        b"N.",
        b"K\x01.",
        b"](K\x01.",
    ],
)
def test_everything_else_is_refused_in_one_line(content: bytes) -> None:
    refused(content)


def test_deep_nesting_and_large_memo_numbers_are_harmless() -> None:
    deep = b")" + b"\x85" * 100_000
    large = 10**7  # bytes, so that so many opcodes are admitted
    assert "not text" in refused(b"}" + deep + b"K\x01s.", large)  # hashing it would exhaust the stack
    assert "not text" in refused(b"(" + deep + b"K\x01d.", large)
    assert list(load(b"}U\x01a" + deep + b"s.", large)) == ["a"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert load(b"}r" + struct.pack("<I", 2**31 - 1) + b".") == {}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


TEXT = b"X" + struct.pack("<I", 1_000_000) + b"a" * 1_000_000


@pytest.mark.parametrize(
    "content",
    [
        b"](" + TEXT + b"q\x00" + b"c_codecs\nencode\n(h\x00X\x06\0\0\0latin1tR" * 500 + b"e.",
        b"](" + b"}" * 3_900_000 + b"e.",
        b"](" + b"(" * 3_900_000,
        b"](" + b"]" * 3_900_000 + b"e.",
        b"]q\x00(" + b"h\x00" * 2_000_000 + b"e.",
        b"]" + b"".join(b"r" + struct.pack("<I", i) for i in range(500_000)) + b".",
        b"](" + b"cnumpy\nndarray\n)R" * 200_000 + b"e.",
        b"](" + (b"V" + b"a" * 4000 + b"\\U0001f600\n") * 2_000 + b"e.",
    ],
    ids=["calls", "dictionaries", "marks", "lists", "memo read", "memo written", "arrays", "wide text"],
)
def test_what_is_made_is_bounded_by_the_size_of_the_file(content: bytes) -> None:
    tracemalloc.start()
    try:
        message = refused(content)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(content) + (2 << 20)
    finally:
        tracemalloc.stop()
    assert "it allocates more than any data file of CIFAR" in message


def test_one_wide_character_does_not_widen_a_long_text() -> None:
    assert "outside Latin-1" in refused(b"X" + struct.pack("<I", 4004) + b"a" * 4000 + "\U0001f600".encode() + b".")
    assert load("X\x02\0\0\0\u00e9K\x01".join(["}", "s."]).encode()) == {"\u00e9": 1}


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("shade", [0, 255])
def test_a_batch_pickled_again_is_read(protocol: int, shade: int) -> None:
    """Its pixels and names are encoded by `_codecs.encode`; pixels of one shade give the smallest file."""
    images = np.full((2000, 3072), shade, np.uint8)
    names = [f"image_{i}.png".encode() for i in range(len(images))]
    again = pickle.dumps({b"labels": [7] * len(images), b"data": images, b"filenames": names}, protocol)
    found = load(again.replace(b"numpy._core", b"numpy.core"))
    assert found["filenames"] == names and np.array_equal(pickles.pixels(found["data"], "here"), images)


def test_one_pickle_cannot_change_how_the_next_is_read() -> None:
    images = np.zeros((1, 3072), np.uint8)
    for attribute in (b"call", b"__call__", b"state", b"__setstate__"):
        for name in (b"numpy\nndarray", b"numpy\ndtype", b"_codecs\nencode", b"numpy.core.multiarray\n_reconstruct"):
            for state in (b"(S'" + attribute + b"'\nNd", b"(N(S'" + attribute + b"'\nNdt"):
                refused(b"c" + name + b"\n" + state + b"b.")
    assert pickles.pixels(load(old_pickle({"data": images}))["data"], "here").shape == (1, 3072)


WHOLE = old_pickle({"labels": [1, 2], "data": np.zeros((2, 3072), np.uint8), "filenames": ["a", "b"]})


@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=6), st.integers(0, len(WHOLE)))
def test_damaged_pickles_are_read_or_refused(place: int, put: bytes, end: int) -> None:
    damaged = (WHOLE[:place] + put + WHOLE[place + len(put) :])[: end or None]
    with contextlib.suppress(InputError):
        pickles.pixels(load(damaged).get("data"), "here")


@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(InputError):
        assert isinstance(load(content), dict)
