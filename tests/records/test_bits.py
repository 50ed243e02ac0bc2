from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsk.errors import InputError
from bsk.records.bits import decode_correct, encode_correct


def test_eight_examples_per_byte_the_first_in_the_highest_bit() -> None:
    correct = np.array([1, 0, 0, 0, 0, 0, 0, 1, 1], dtype=bool)
    assert encode_correct(correct) == base64.b64encode(bytes([0b10000001, 0b10000000])).decode() == "gYA="
    assert decode_correct("gYA=", 9).tolist() == correct.tolist()


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_decoding_gives_back_what_was_encoded(outcomes: list[bool]) -> None:
    decoded = decode_correct(encode_correct(np.array(outcomes)), len(outcomes))
    assert decoded.dtype == bool and decoded.tolist() == outcomes


@pytest.mark.parametrize(
    ("text", "n", "part"),
    [
        ("gYA=", 8, "expected 1 bytes for 8 examples, found 2"),
        ("gYA=", 17, "expected 3 bytes for 17 examples, found 2"),
        ("gQ", 8, "expected base64"),
        ("g*==", 8, "expected base64"),
        ("gÄ==", 8, "expected base64"),
        ("gYE=", 9, "after the last of 9 examples"),
    ],
)
def test_wrong_lengths_are_refused(text: str, n: int, part: str) -> None:
    with pytest.raises(InputError, match="correct: .*; evaluate again") as error:
        decode_correct(text, n)
    assert part in str(error.value) and "\n" not in str(error.value)
