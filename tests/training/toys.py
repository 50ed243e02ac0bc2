"""Trainings on the toy data, and a model that can be worked by hand."""

from dataclasses import replace
from pathlib import Path

import torch
from bsk.training.methods import METHODS
from bsk.training.outer import Case
from torch import Tensor, nn

from bsk.data.store import DataFile
from bsk.perturb.draws import BatchDraws, generator
from bsk.training.run import run
from bsk.training.settings import Settings

CPU = torch.device("cpu")
EPS = 0.1


class Silent:
    """Says nothing, and keeps the notices."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def notice(self, text) -> None:
        self.notices.append(text)

    def step(self, done, total, epoch, loss) -> None:
        pass

    def alarm(self, record) -> None:
        pass

    def epoch(self, record) -> None:
        pass


def settings(method: str = "bs", **changes: object) -> Settings:
    """A training of three epochs of 8 updates."""
    row = METHODS[method].at(EPS)
    plain = Settings(method, row, "cnn-4", "toy", EPS, 3, 32, "cyclic", 0.1, 0.9, 5e-4, "fp32", "crop-flip", seed=1)
    return replace(plain, **changes)


def trained(out: Path, data: DataFile, s: Settings, **more: object) -> dict:
    """Train, and return the end record."""
    return run(s, data, out, **{"device": CPU, "watcher": Silent(), **more})


def stop_after(updates: int, code: int = 143):  # type: ignore[no-untyped-def]
    """Ask a training to stop after so many updates."""
    calls = iter(range(10**9))
    return lambda: code if next(calls) >= updates - 1 else 0


class Fixed(nn.Module):
    """Logits that are a linear function of two pixels, so that everything can be worked by hand."""

    def __init__(self, weight: list[list[float]]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


def pixels(*rows: tuple[float, float]) -> Tensor:
    """Images of two pixels."""
    return torch.tensor(rows, dtype=torch.float64).view(-1, 1, 1, 2)


def case(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor,
    beta: float,
    start: Tensor | None = None,
    smoothing: float = 0,
) -> Case:
    """What an outer loss is given; the start is x unless another one is said."""
    draws = BatchDraws(generator(0))
    return Case(model, model, x, y, x if start is None else start, x_adv, beta, EPS, draws, smoothing)
