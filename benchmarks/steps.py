"""The cost of an update, compared with its passes alone and with the naive implementation."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import Tensor

from benchmarks.reference import Plain
from bsk.data.batches import Batch, Loader, Share, to_unit
from bsk.data.store import Split
from bsk.models import registry
from bsk.models.modes import folded_eval_mode, in_precision
from bsk.training.averaging import average_of, follow
from bsk.training.flags import TrainingFlags
from bsk.training.initial import new_state
from bsk.training.monitor import look
from bsk.training.profile import profile
from bsk.training.schedules import Rates
from bsk.training.settings import resolve
from bsk.training.state import State
from bsk.training.step import update

EPS, BATCH, MODEL = 8 / 255, 128, "resnet18-16"
CPU = torch.device("cpu")
CIFAR = SimpleNamespace(
    name="random",
    classes=list(range(10)),
    mean=[0.4914, 0.4822, 0.4465],
    std=[0.2471, 0.2435, 0.2616],
    eps=EPS,
    augment="crop-flip",
    model=MODEL,
)


def random_images(n: int) -> tuple[Tensor, Tensor]:
    """Return n random images (n, 3, 32, 32) uint8 and labels (n,)."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, 32, 32), generator=random, dtype=torch.uint8)
    return images, torch.randint(0, 10, (n,), generator=random)


class Subject:
    """The training of a method on one fixed batch."""

    def __init__(
        self, method: str, precision: str = "auto", model: str = MODEL, device: torch.device = CPU, batch: int = BATCH
    ) -> None:
        """Set up the training of the method with this id."""
        flags = TrainingFlags(method, model, precision=precision, batch_size=batch, schedule="cyclic", epochs=15)
        self.settings = resolve(flags, CIFAR, device)  # type: ignore[arg-type]
        self.precision = self.settings.precision
        self.profile = profile(self.settings.bound, (3, 32, 32), 10)
        self.state: State = new_state(self.settings, CIFAR, 3, 32, device)  # type: ignore[arg-type]
        images, labels = random_images(batch)
        self.batch = Batch(to_unit(images.to(device)), labels.to(device), torch.arange(batch, device=device), batch)
        self.state.model.train()
        self.average = average_of(self.state.model, 0.999)
        with folded_eval_mode(self.state.model), torch.no_grad():
            right = self.state.model(self.batch.x).argmax(dim=1)
        self.val = Split(images, right.cpu(), torch.arange(batch))

    def step(self) -> None:
        """Make one update, with a learning rate so small that the weights stay nearly the same."""
        update(self.state, self.settings, self.batch, Share(), Rates(1e-9, 0.9), total=10**6)

    def averages(self) -> None:
        """Update the weight average 20 times: the extra cost of --ema in 20 updates."""
        for _ in range(20):
            follow(self.average, self.state.model)

    def look(self) -> None:
        """Run the monitor's check in its worst case, where no image falls early in PGD."""
        look(self.state, replace(self.settings, eps=1e-6), self.val, Share())

    def passes(self, forward: int, to_input: int, full: int) -> None:
        """Run the given numbers of passes alone: no loss, perturbation or optimiser.

        Of the `forward` passes, `to_input` have a backward pass to the images in eval mode, `full` one to all weights
        in train mode, and the others none.
        """
        model, x = self.state.model, self.batch.x
        run = in_precision(model, self.precision)
        with folded_eval_mode(model):
            for _ in range(to_input):
                leaf = x.detach().requires_grad_()
                torch.autograd.grad(run(leaf).sum(), leaf)
            with torch.no_grad():
                for _ in range(forward - to_input - full):
                    run(x)
        for _ in range(full):
            run(x).sum().backward()
        self.state.optimiser.zero_grad(set_to_none=True)


class PlainStep:
    """Naive Backward Smoothing: fp32, torch's default memory layout, f(x) recomputed wherever needed."""

    def __init__(self) -> None:
        """Build the same network and batch."""
        model = registry.build(MODEL, classes=10, channels=3, size=32, mean=CIFAR.mean, std=CIFAR.std)
        self.plain = Plain(model.to(memory_format=torch.contiguous_format), EPS)
        images, self.y = random_images(BATCH)
        self.x = images.float() / 255

    def step(self) -> None:
        """Make one update."""
        self.plain.update("bs", self.x, self.y, lr=1e-9, momentum=0.9, total=10**6)


def load_epoch() -> None:
    """Load the batches of 20 updates."""
    images, labels = random_images(20 * BATCH)
    for _ in Loader(images, labels, batch_size=BATCH, augment="crop-flip", seed=1, device=CPU).epoch(0):
        pass
