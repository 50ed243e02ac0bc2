"""State dicts made by hand, and the layers that read them."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def bn(state: State, name: str, n: int) -> None:
    state |= {f"{name}.weight": torch.rand(n) + 0.5, f"{name}.bias": torch.randn(n) * 0.1}
    state |= {f"{name}.running_mean": torch.randn(n) * 0.1, f"{name}.running_var": torch.rand(n) + 0.5}
    state[f"{name}.num_batches_tracked"] = torch.tensor(7)


def conv(state: State, name: str, outputs: int, inputs: int, k: int) -> None:
    state[f"{name}.weight"] = torch.randn(outputs, inputs, k, k) / (k * inputs**0.5)


def norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (state[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias, training=False)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path
