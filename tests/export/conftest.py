"""Checkpoints to export."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bsk.data.store import open_data
from bsk.models.registry import build
from bsk.plugins import load
from bsk.records import checkpoints
from bsk.records.checkpoints import MODEL

SOURCE = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.linear = nn.Linear(64, classes)
    def forward(self, x):
        return self.linear(x.flatten(1))
class Counts(Net):
    def forward(self, x):
        return super().forward(x) + float(len(x))  # which a trace takes for a constant
class Noisy(Net):
    def forward(self, x):
        return super().forward(x + torch.rand_like(x))
def net(num_classes): return Net(num_classes)
def counts(num_classes): return Counts(num_classes)
def noisy(num_classes): return Noisy(num_classes)
"""


@pytest.fixture
def saved(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Save a network of the toy data, its batch norms with statistics of their own, as `bsk train` does."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exported_nets.py").write_text(SOURCE)
    data = open_data(toy)

    def save(name: str) -> Path:
        told = {"classes": 3, "channels": 1, "size": 8, "mean": [0.3], "std": [0.2]}
        model = build(name, **told, seed=2)
        random = torch.Generator().manual_seed(1)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0.0, 0.3, generator=random)
                layer.running_var.uniform_(0.5, 2.0, generator=random)
        header = {"kind": MODEL, "model": name, "flags": {"method": "bs", "lr": 0.1}, "classes": data.classes}
        header |= {"shape": [1, 8, 8], "dataset": "toy", "eps": 8 / 255, "method": "bs", "seed": 1, "epoch": 3}
        header |= {"mean": [0.3], "std": [0.2], "selected": "best", "val_n": 60, "val_natural": 0.9}
        header |= {"val_robust": 0.5, "train_forward_passes": 1000, "train_backward_passes": 234, "version": "0.1.0"}
        header |= {"code": load(name, "--model").sha256} if ":" in name else {}
        checkpoints.save(tmp_path / "m.safetensors", model.state_dict(), header)
        return tmp_path / "m.safetensors"

    return save
