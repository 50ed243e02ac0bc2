"""A checkpoint with any hostile header is read, or refused in one line that names the field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bsk.errors import InputError
from bsk.records import checkpoints
from bsk.records.checkpoints import MODEL, STATE

SCORED = {"epoch": 1, "val_natural": 0.5, "val_robust": 0.25}
HEADER: dict[str, Any] = {
    "kind": MODEL,
    "model": "cnn-4",
    "dataset": "toy",
    "classes": ["a", "b"],
    "shape": [1, 8, 8],
    "mean": [0.5],
    "std": [0.25],
    "eps": 0.1,
    "seed": 1 << 60,
    "flags": {"gamma": 1.0, "limit": None},
    "complete": True,
    **SCORED,
}
PROGRESS: dict[str, Any] = {
    "step": 3,
    "seconds": 1.5,
    "passes": {"forward": 3, "backward": 0},
    "best": {**SCORED, "val_robust": -1.0},
    "rescue": {"accuracy": 0.0, "active": False},
    "collapses": {"now": False, "count": 0, "rescued_until": 0},
    "seen": {},
    "averaged": 0,
}
HOSTILE = (-1.5, 10**20, None, "x", [], [[[]]], ["\0", 1], [True])


def places(values: dict[str, Any], within: str = "") -> Iterator[tuple[str, dict[str, Any], str]]:
    for name, value in list(values.items()):
        if name not in ("kind", "limit", "gamma"):  # flags are what a method makes of them
            yield within + name, values, name
            if isinstance(value, dict):
                yield from places(value, f"{within}{name}.")


def read(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    checkpoints.save(path, {"w": torch.ones(1)}, header)
    return checkpoints.load(path, (MODEL, STATE))[1]


@pytest.mark.parametrize("header", [HEADER, {**HEADER, "kind": STATE, "progress": PROGRESS}], ids=[MODEL, STATE])
def test_every_field_is_of_its_type_and_range(header: dict[str, Any], tmp_path: Path) -> None:
    assert read(tmp_path / "m.safetensors", header).items() >= header.items()
    for place, values, name in places(header := json.loads(json.dumps(header))):
        whole = values[name]
        for hostile in HOSTILE:
            values[name] = hostile
            large = isinstance(hostile, int) and (isinstance(whole, float) or place == "seed")
            if large or (place in ("model", "dataset") and isinstance(hostile, str)):
                continue
            with pytest.raises(InputError) as refused:
                read(tmp_path / "m.safetensors", header)
            assert f"m.safetensors: header: {place} is " in str(refused.value) and "\n" not in str(refused.value)
        del values[name]
        read(tmp_path / "m.safetensors", header)  # who needs a field says what it lacks
        values[name] = whole


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("eps", True),
        ("eps", 1.5),
        ("mean", True),
        ("std", [0.0]),
        ("shape", [8, 8]),
        ("shape", [0, 8, 8]),
        ("epoch", 1.0),
    ],
)
def test_values_of_similar_types_are_refused(field: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"header: {field} is .*, expected"):
        read(tmp_path / "m.safetensors", {**HEADER, field: value})
