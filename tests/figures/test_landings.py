from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsk.comparison.statistics import t_interval
from bsk.errors import InputError
from bsk.figures.landings import draw_landings, projected, scenes

Make = Any


def landing(index: int, start: str, landed: list[float], kl: float, **more: Any) -> dict[str, Any]:
    """An image with clean logits (1, 2, 3), whose target is displaced by 2 towards class 0 and away from class 2."""
    return {
        "schema": 1,
        "kind": "landing",
        "checkpoint": "bs.safetensors",
        "checkpoint_sha256": "ab",
        "method": "bs",
        "model": "cnn",
        "dataset": "digits",
        "eps": 0.2,
        "start_parameters": {"gamma": 2.0, "step": 0.2, "seed": 0},
        "split": "test",
        "index": index,
        "label": 1,
        "start": start,
        "kl": kl,
        "logits": [1.0, 2.0, 3.0],
        "landed": landed,
        "target": [3.0, 2.0, 1.0] if start == "backward" else None,
        **more,
    }


def four() -> list[dict[str, Any]]:
    return [
        landing(7, "uniform", [1.0, 2.0, 3.0], 0.0),
        landing(7, "backward", [2.0, 2.0, 2.0], 0.1),
        landing(9, "uniform", [1.0, 2.6, 3.0], 0.02),
        landing(9, "backward", [2.0 + 1, 2.0 + 1, 2.0 + 1], 0.3),
    ]


def test_along_and_aside_by_hand() -> None:
    target = np.array([[2.0, 0.0, -2.0]] * 4)
    moved = np.array([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, -2.0, 1.0], [5.0, 5.0, 5.0]])
    along, aside = projected(moved, target)
    assert along == pytest.approx([0.5, 1, 0, 0]) and aside == pytest.approx([0, 0, (6 / 8) ** 0.5, 0])


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.floats(-5, 5))
def test_a_shift_of_all_logits_changes_nothing_and_pythagoras_holds(moved: list[float], shift: float) -> None:
    d, target = np.array([moved]), np.array([[1.0, 0.5, -0.5]])
    along, aside = projected(d, target)
    assert np.allclose(projected(d + shift, target + 2 * shift), (along, aside), atol=1e-9)
    square = ((d - d.mean()) ** 2).sum() / ((target - target.mean()) ** 2).sum()
    assert along[0] ** 2 + aside[0] ** 2 == pytest.approx(square, abs=1e-9)


def test_every_start_is_projected_on_the_target_of_its_image(place: Make) -> None:
    (scene,) = scenes(place(four()))
    uniform, backward = scene.clouds
    assert (uniform.start, backward.start) == ("uniform", "backward")
    assert uniform.along == pytest.approx([0, 0]) and uniform.aside == pytest.approx([0, (0.24 / 8) ** 0.5])
    assert backward.along == pytest.approx([0.5, 0.5]) and backward.aside == pytest.approx([0, 0], abs=1e-12)
    assert backward.kl.tolist() == [0.1, 0.3]
    assert scene.facts == ("bs, cnn, digits test", "eps 0.2, gamma 2")


def test_the_last_of_repeated_images_counts_and_models_have_their_own_scenes(place: Make) -> None:
    again = landing(7, "backward", [2.0, 2.0, 2.0], 0.5)
    other = [{**record, "checkpoint_sha256": "cd"} for record in four()]
    first, second = scenes(place([*four(), again, *other]))
    assert first.clouds[1].kl.tolist() == [0.5, 0.3] and second.clouds[1].kl.tolist() == [0.1, 0.3]


def test_networks_with_the_same_facts_are_named_by_their_files(place: Make) -> None:
    other = [{**record, "checkpoint_sha256": "cd", "checkpoint": "runs/bs-uniform.safetensors"} for record in four()]
    third = [{**record, "checkpoint_sha256": "ef", "model": "resnet18"} for record in four()]
    found = [scene.facts[0] for scene in scenes(place([*four(), *other, *third]))]
    assert found == ["bs: bs, cnn, digits test", "bs-uniform: bs, cnn, digits test", "bs, resnet18, digits test"]


def test_the_picture_has_its_facts_axes_and_means(place: Make, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg", "a.png"):
        assert draw_landings(place(four()), [tmp_path / name]) == []
    text = (tmp_path / "a.svg").read_text()
    low, high = t_interval([0.1, 0.3])
    for said in ("eps 0.2, gamma 2, 2 images", "backward, and its mean", "random target", "0.010", "0.20"):
        assert said in text
    assert f"[{low:#.2g}, {high:#.2g}]" in text and "displacement along the line to the target" in text
    assert text == (tmp_path / "b.svg").read_text() and ET.fromstring(text) is not None
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"landed": [1.0, 2.0]}, "landed: expected 3 numbers, as many as logits, found list"),
        ({"landed": "far"}, "landed: expected a list of numbers, found 'far'"),
        ({"logits": [1.0, True, 3.0]}, "logits: expected a list of numbers"),
        ({"logits": None}, "logits: expected a value"),
        ({"kl": -1.0}, "kl: expected a number from 0"),
        ({"target": None}, "target: expected the random target of the start"),
        ({"target": [1.0, 2.0, 3.0]}, "target: expected the random target of the start"),
        ({"index": None}, "index: expected a value"),
        ({"schema": 2}, "expected schema 1, found 2"),
    ],
)
def test_an_invalid_field_is_one_line(place: Make, record: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        scenes(place([*four(), {**four()[1], **record}], "s.jsonl"))
    assert str(error.value).startswith("s.jsonl:5: ") and said in str(error.value) and "\n" not in str(error.value)


def test_images_without_targets_are_refused(place: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="s.jsonl:1: no backward start of this image; run bsk starts with --start"):
        draw_landings(place([four()[0]], "s.jsonl"), [tmp_path / "a.png"])
    with pytest.raises(InputError, match="no landings among the records; give what bsk starts prints"):
        draw_landings(place([{"kind": "data"}]), [tmp_path / "a.png"])
