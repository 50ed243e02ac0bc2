from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bsk.data.order import balanced_order, held_out, image_hashes, occurrence

label_lists = st.lists(st.integers(0, 4), max_size=60).map(lambda found: np.array(found, np.int64))


def test_balanced_order_by_hand() -> None:
    labels = np.array([1, 1, 0, 2, 0, 1, 2])
    assert occurrence(labels).tolist() == [0, 1, 0, 0, 1, 2, 1]
    assert balanced_order(labels).tolist() == [2, 0, 3, 4, 1, 6, 5]  # 0 1 2, 0 1 2, 1


@given(label_lists)
def test_balanced_order_is_the_sort_by_occurrence_then_class(labels: np.ndarray) -> None:
    seen: dict[int, int] = {}
    keys = []
    for row, label in enumerate(labels.tolist()):
        keys.append((seen.get(label, 0), label, row))
        seen[label] = seen.get(label, 0) + 1
    assert balanced_order(labels).tolist() == [row for *_, row in sorted(keys)]


@given(label_lists, st.integers(0, 60))
def test_every_prefix_is_as_balanced_as_the_classes_allow(labels: np.ndarray, n: int) -> None:
    counts = np.bincount(labels, minlength=5)
    found = np.bincount(labels[balanced_order(labels)[:n]], minlength=5)
    most = found.max(initial=0)
    assert all(each >= min(most - 1, there) for each, there in zip(found, counts, strict=True))


def _hashes(codes: list[int]) -> list[bytes]:
    return [hashlib.sha256(bytes([code])).digest() for code in codes]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), max_size=80), st.integers(1, 30))
def test_held_out_images_have_no_copies_in_train_and_no_class_is_emptied(pairs: list[tuple[int, int]], n: int) -> None:
    codes, labels = [code for code, _ in pairs], np.array([label for _, label in pairs], np.int64)
    rows = held_out(_hashes(codes), labels, n)
    assert len(rows) <= n
    assert rows.tolist() == sorted(set(rows.tolist()))
    rest = [i for i in range(len(codes)) if i not in rows]
    assert not {codes[i] for i in rows} & {codes[i] for i in rest}
    assert set(labels[rest]) == set(labels)


def test_held_out_takes_the_smallest_hashes_of_each_class_whatever_their_order() -> None:
    labels = np.arange(60) % 3
    hashes = _hashes(list(range(60)))
    rows = held_out(hashes, labels, 12)
    for label in range(3):
        mine = [row for row in range(60) if labels[row] == label]
        smallest = sorted(mine, key=lambda row: hashes[row])[:4]
        assert sorted(smallest) == [row for row in rows if labels[row] == label]
    turned = held_out(hashes[::-1], labels[::-1], 12)
    assert {hashes[row] for row in rows} == {hashes[::-1][row] for row in turned}


def test_a_rare_class_gives_at_most_twice_its_share() -> None:
    labels = np.array([0] * 95 + [1] * 5)
    rows = held_out(_hashes(list(range(100))), labels, 20)
    assert np.bincount(labels[rows]).tolist() == [18, 2]


def test_image_hashes_are_of_the_pixels() -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)
    assert image_hashes(images)[1] == hashlib.sha256(bytes(range(12, 24))).digest()
    assert image_hashes(images, np.array([1])) == image_hashes(images)[1:]
