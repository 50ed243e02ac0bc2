"""Methods called on one batch, and a model that can be computed by hand."""

from typing import Any

import torch
from torch import Tensor, nn

from bsk.contract.method import BatchMemory, Losses, Memory
from bsk.contract.network import Network
from bsk.perturb.draws import BatchDraws, generator
from bsk.training.bound import UpdateContext, bind

EPS = 0.1


def remembered(n: int = 8, classes: int = 5) -> Memory:
    """An empty memory of n training images."""
    return Memory(images=n, classes=classes)


def called(
    method: str,
    model: nn.Module | Network,
    x: Tensor,
    y: Tensor,
    hyper: dict[str, Any] | None = None,
    draws: BatchDraws | None = None,
    memory: BatchMemory | None = None,
    *,
    eps: float = EPS,
    update: int = 0,
    epoch: int = 0,
    progress: float = 1.0,
    validate: Any = lambda attack, turn: 1.0,
) -> Losses:
    """Return a method's losses of a batch."""
    net = model if isinstance(model, Network) else Network(model)
    memory = memory or remembered(len(x)).batch(torch.arange(len(x), device=x.device))
    context = UpdateContext(memory, update, epoch, progress, validate)
    return bind(method, eps, hyper)(net, x, y, draws or BatchDraws(generator(0)), context)


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
