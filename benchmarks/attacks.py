"""The cost of PGD-100 that takes every step, compared with its forward and backward passes alone."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.steps import CPU, EPS, random_images
from bsk.attacks.flags import AttackFlags
from bsk.attacks.registry import attack_named
from bsk.data.store import Split
from bsk.evaluation.calls import exact
from bsk.evaluation.verdicts import judge


def small_cnn() -> nn.Module:
    """Return the network of the published checkpoint cnn_a_adv: 2 convolutions and 2 linear layers."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2048, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
    return layers.to(memory_format=torch.channels_last).eval()


class Undecided(nn.Module):
    """A network that always predicts class 0, but has the gradients of the network inside.

    The lift of its logit is small enough that gradients do not become subnormal fp32 numbers, with which some
    processors are a hundred times slower.
    """

    def __init__(self, network: nn.Module) -> None:
        """Wrap a network of 10 classes."""
        super().__init__()
        self.network = network
        self.register_buffer("lift", torch.nn.functional.one_hot(torch.tensor(0), 10) * 30.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits with the first one lifted."""
        logits: torch.Tensor = self.network(x) + self.lift
        return logits


class Evaluation:
    """PGD-100 on 256 images, none of which is fooled, and its passes alone."""

    def __init__(self) -> None:
        """Build the network and the images."""
        self.model = Undecided(small_cnn())
        images, labels = random_images(256)
        self.split = Split(images, torch.zeros_like(labels), torch.arange(256))
        self.x = (images.float() / 255).contiguous(memory_format=torch.channels_last)

    def attack(self) -> None:
        """Run the attack as `bsk evaluate --no-early-stop` does."""
        attack = attack_named("pgd-100", EPS, AttackFlags(early_stop=False))
        ledger = judge(self.model, self.split, attack, eps=EPS, seed=0, batch_size=256, device=CPU)
        assert bool(ledger.standing.all()) and int(ledger.forward.sum()) == 102 * 256

    def passes(self) -> None:
        """Run 102 forward passes, 100 of them with gradients with respect to the images."""
        with exact(self.model):
            for _ in range(100):
                leaf = self.x.detach().requires_grad_()
                torch.autograd.grad(self.model(leaf).sum(), leaf)
            with torch.no_grad():
                for _ in range(2):
                    self.model(self.x)
