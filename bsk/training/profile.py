"""The cost and the needs of a method, found by running it on a toy network, which also checks the contract."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bsk.contract.method import Losses, Memory
from bsk.contract.network import Network
from bsk.errors import UsageError
from bsk.perturb.draws import BatchDraws, generator, own_randomness
from bsk.perturb.passes import Passes
from bsk.plugins import is_plugin
from bsk.records.schema import EpochRecord
from bsk.training.bound import Bound, UpdateContext

IMAGES = 4
ROUGH_UPDATES = 8  # updates on the rough network, enough for rare cases to occur
SHARED = 32  # images of a batch shared by processes
# What an epoch's record has of its own. A method may log other names, and how many updates a rescue has made.
OWN_NAMES = {"kind", *EpochRecord.__struct_fields__} - {"rescued_updates"}
ROUGH = 50  # angular frequency in the rough network's hidden values
UPDATES = 20  # updates of a method that validates; other methods run two


@dataclass(frozen=True)
class Profile:
    """What one update of a method does.

    Attributes:
        frozen: passes per image in eval mode, for the perturbation.
        trained: passes per image in train mode.
        natural, robust: whether its losses have these parts.
        moves: whether it returns the start and the end of its perturbation.
        smooths: whether it applies label smoothing.
        validations: the mean number of validations per update.
        memory: what it has written into the memory.
        second_order: whether it differentiates a gradient.
    """

    frozen: Passes
    trained: Passes
    natural: bool
    robust: bool
    moves: bool
    smooths: bool
    validations: float
    memory: Memory
    second_order: bool

    @property
    def passes(self) -> Passes:
        """Passes per image and update."""
        return self.frozen + self.trained

    @property
    def attacks(self) -> bool:
        """Whether it trains on perturbed images, so that epochs are selected by robust accuracy."""
        return self.robust or not self.natural


class _Toy(nn.Module):
    """A small network that counts its passes: in eval mode, in train mode, and in the final backward pass.

    It is smooth, or so rough that a step often lowers the loss it should raise.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, rough: bool) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(math.prod(shape), 4), nn.Linear(4, classes)
        self.rough = rough
        self.counts: dict[str, int] = {}
        self.descending = self.second_order = False

    def forward(self, x: Tensor) -> Tensor:
        where = "trained" if self.training else "frozen"
        self._count(f"{where} forward", len(x))
        hidden: Tensor = self.inner(x.flatten(1))
        logits: Tensor = self.outer((ROUGH * hidden).sin() if self.rough else hidden.tanh())
        if logits.requires_grad:

            def count(_: Tensor) -> None:
                self._count("full" if self.descending else f"{where} to_input", len(x))
                self.second_order |= torch.is_grad_enabled()  # enabled in a backward pass with create_graph

            logits.register_hook(count)
        return logits

    def _count(self, what: str, images: int) -> None:
        self.counts[what] = self.counts.get(what, 0) + images


@dataclass
class _Trial:
    """Updates of a method on the toy network, possibly those of one of several processes."""

    toy: _Toy
    memory: Memory
    net: Network
    losses: list[Losses] = field(default_factory=list)
    validations: int = 0

    def validate(self, attack: str, turn: int) -> float:
        self.validations += 1
        return 1.0


def _try(
    method: Bound,
    shape: tuple[int, ...],
    classes: int,
    images: int = IMAGES,
    mine: slice = slice(None),
    rough: bool = False,
) -> _Trial:
    """Run a few updates on the images `mine` of a batch, without changing the weights.

    If there are more than IMAGES images, in fp64.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        toy, rows = _Toy(shape, classes, rough), torch.arange(images)
        x, y = 0.2 + 0.6 * torch.rand(images, *shape), rows % classes
    if images > IMAGES:
        toy, x = toy.double(), x.double()
    trial = _Trial(toy, Memory(images=images, classes=classes), Network(toy))
    updates = UPDATES if method.validates else ROUGH_UPDATES if rough else 2  # the first may initialise a memory
    with own_randomness(torch.device("cpu"), "profile"):
        for update in range(updates):
            toy.counts, toy.descending = {}, False
            seen = trial.memory.batch(rows[mine])
            draws = BatchDraws(generator("profile", update), mine.start or 0, images)
            context = UpdateContext(seen, update, update, (update + 1) / 100, trial.validate)
            with trial.net.scope:
                trial.losses.append(method(trial.net, x[mine], y[mine], draws, context))
                toy.descending = True
                with method.guard():
                    trial.losses[-1].total.sum().backward()
            with method.guard():
                seen.commit()
    return trial


def profile(method: Bound, shape: tuple[int, ...], classes: int) -> Profile:
    """Return what a method does for images of a shape (C, H, W) and a number of classes.

    Raises:
        UsageError: it breaks the contract, or fails.
    """
    trial = _try(method, shape, classes)
    if not any(weight.grad is not None and bool(weight.grad.any()) for weight in trial.toy.parameters()):
        raise UsageError(f"{method.start}: its loss has no gradient with respect to the weights")
    taken = trial.memory.logged.keys() & (OWN_NAMES if is_plugin(method.name) else set())
    if taken:
        raise UsageError(f"{method.start}: memory.logged[{min(taken)!r}]: each epoch's record has its own; rename it")
    each = {name: count / IMAGES for name, count in trial.toy.counts.items()}
    last = trial.losses[-1]
    return Profile(
        frozen=Passes(each.get("frozen forward", 0), each.get("frozen to_input", 0)),
        trained=Passes(each.get("trained forward", 0), each.get("trained to_input", 0), each.get("full", 0)),
        natural=last.natural is not None,
        robust=last.robust is not None,
        moves=last.start is not None and last.x_adv is not None,
        smooths=trial.net.smoothed,
        validations=trial.validations / len(trial.losses),
        memory=trial.memory,
        second_order=trial.toy.second_order,
    )


def check_shared(method: Bound, shape: tuple[int, ...], classes: int) -> None:
    """Raise unless several processes can share a batch.

    Raises:
        UsageError: they cannot.
    """
    if what := whole_batch(method, shape, classes):
        raise UsageError(f"{method.start}: {what}, so processes cannot share it; run it without torchrun")


def whole_batch(method: Bound, shape: tuple[int, ...], classes: int) -> str:
    """Return why a method needs a whole batch in one process, or "" if it does not.

    It does not if the losses of each image and the memory are the same however a batch is shared.
    """
    return _whole_batch(method, shape, classes, rough=False) or _whole_batch(method, shape, classes, rough=True)


def _whole_batch(method: Bound, shape: tuple[int, ...], classes: int, rough: bool) -> str:
    parts = (slice(None), slice(0, SHARED // 3), slice(SHARED // 3, SHARED))
    whole, one, other = (_try(method, shape, classes, SHARED, part, rough) for part in parts)
    shared = one.memory.shared
    if one.memory.rows or any(each.shape != shared[name].shape for name, each in other.memory.shared.items()):
        return "remembers each image of a batch"
    if not all(torch.allclose(each, shared[name]) for name, each in other.memory.shared.items()):
        return "remembers a batch as a whole"
    totals = [torch.stack([each.total for each in trial.losses]) for trial in (whole, one, other)]
    same = torch.allclose(totals[0], torch.cat(totals[1:], dim=1), rtol=1e-6, atol=1e-9)
    return "" if same else "takes a batch as a whole"
