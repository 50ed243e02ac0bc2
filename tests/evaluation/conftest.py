"""A small model for several tests of evaluations."""

from pathlib import Path

import pytest
import torch

from bsk.data.store import open_data
from bsk.evaluation.subjects import Subject
from bsk.models.registry import build


@pytest.fixture(scope="module")
def subject(toy: Path) -> Subject:
    """A model that recognises bright quadrants: at EPS many examples fall and some stand."""
    data = open_data(toy)
    model = build("cnn-2", classes=3, channels=1, size=8, mean=data.mean, std=data.std, seed=1)
    split = data.split("train")
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(40):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(split.images / 255), split.labels).backward()
        optimiser.step()
    header = {"classes": data.classes, "shape": [1, 8, 8], "dataset": "toy", "eps": 0.1, "mean": data.mean}
    return Subject(model.eval(), Path("m.safetensors"), "0" * 64, header)
