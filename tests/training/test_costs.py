"""The predicted cost of a training equals the cost that the training counts."""

from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from torch import nn

from bsk.attacks.flags import AttackFlags
from bsk.attacks.registry import attack_named
from bsk.contract.method import Memory
from bsk.data.store import DataFile
from bsk.methods.registry import METHODS
from bsk.perturb.draws import BatchDraws, generator
from bsk.perturb.passes import PassCounter, Passes, counting
from bsk.training import costs
from bsk.training.bound import bind
from bsk.training.costs import TrainingCost, Work, attack_work, time_passes, time_step, training_cost
from bsk.training.divergence import divergence
from bsk.training.profile import profile
from bsk.training.settings import Settings

EPS = 0.2


def cost(s: Settings) -> TrainingCost:
    """Of 1150 images, 200 of val and 400 of test."""
    return training_cost(s, profile(s.bound, (1, 8, 8), 10), images=1150, val=200, test=400)


@pytest.mark.parametrize(
    ("method", "awp"), [*((method, 0.0) for method in toys.ALONE), ("bs", 0.01), ("liet", 0.01), ("free-at", 0.01)]
)
def test_the_passes_counted_beforehand_are_those_that_a_training_makes(
    method: str, awp: float, data: DataFile, tmp_path: Path
) -> None:
    s = toys.settings(method, epochs=1, awp=awp)
    end = toys.trained(tmp_path / "m.safetensors", data, s)
    expected = training_cost(s, profile(s.bound, (1, 8, 8), 3), images=240, val=60, test=90).own.images
    patterns = 3 if method == "liet" else 0  # of three labels, every tenth of eight updates, and a look at how many
    assert end["train_forward_passes"] == expected.forward + patterns + (method == "liet")
    assert end["train_backward_passes"] == expected.to_input + expected.full + patterns


@pytest.mark.parametrize("method", METHODS)
def test_the_passes_of_a_look_at_divergences_are_those_that_it_makes(method: str, monkeypatch) -> None:
    counter, n = PassCounter(), 6
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    plain = model.forward
    monkeypatch.setattr(model, "forward", counting(plain, counter))
    s = toys.settings(method, log_divergence=True, epochs=1)
    memory = Memory({"pattern": torch.zeros(3, 1, 8, 8)} if method == "liet" else {}, classes=3)
    divergence(s.bound, model, torch.rand(n, 1, 8, 8), torch.arange(n) % 3, BatchDraws(generator(0)), memory)
    found = training_cost(s, profile(s.bound, (1, 8, 8), 3), images=240, val=n, test=90).exact.images
    assert (counter.forward, counter.backward) == (found.forward, found.to_input) and found.full == 0


def test_sums_of_passes_and_their_seconds_by_hand() -> None:
    bs, trades = (profile(bind(method, EPS), (3, 2, 2), 5).passes for method in ("bs", "trades"))
    assert bs == Passes(forward=4, to_input=2, full=2)
    assert bs.seconds(Passes(forward=1.0, to_input=1.0, full=2.0)) == 10
    assert trades.seconds(Passes(1, 1, 2)) == 27


def test_an_attack_without_gradients_has_no_backward_passes() -> None:
    work = attack_work(attack_named("rays", EPS, AttackFlags(queries=1000)), 10, batch=4)
    checks = attack_work(attack_named("pgd-1", EPS), 0, batch=4)
    assert checks == Work(Passes(150, 150) * 64, Passes(150, 150))
    assert work.images.to_input == checks.images.to_input
    assert work.images.forward - checks.images.forward == 10 + 5 * 1000  # natural for all, and half of them stand
    assert work.batches.forward - checks.batches.forward == 3 + 3 * 1000  # of 4, 4 and 2 images


def test_each_kind_of_pass_takes_time_and_leaves_no_gradient() -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 256, 10))
    found = time_passes(model, (3, 16, 16), "fp32", 64, torch.device("cpu"))
    whole = found.image * 64 + found.batch
    assert whole.forward > 0 and whole.to_input > 0 and whole.full > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_time_of_a_batch_is_told_from_that_of_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a simulated clock a forward pass takes 4 s plus 0.5 s per image, a backward pass twice as long."""
    now = 0.0

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            nonlocal now
            now += 4 + 0.5 * len(x)
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            nonlocal now
            now += 8 + 1.0 * len(gradient)
            return gradient

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = Slow.apply(self.linear(x.flatten(1)))
            return out

    def clock(work: Any, device: torch.device) -> float:
        start = now
        work()
        return (now - start) * scale

    monkeypatch.setattr(costs, "_clock", clock)
    scale = 1e-3  # a pass of 64 images is short of `ENOUGH`
    found = time_passes(Model(), (1, 2, 2), "fp32", 64, torch.device("cpu"))
    assert [*found.image] == pytest.approx([0.0005, 0.001, 0.001]) and [*found.batch] == pytest.approx(
        [4e-3, 8e-3, 8e-3]
    )
    assert Work(Passes(100), Passes(2)).seconds(found.image, found.batch) == pytest.approx(0.058)
    scale = 1.0  # now it would take 36 s: 8 images are timed, and all of it is theirs
    found = time_passes(Model(), (1, 2, 2), "fp32", 64, torch.device("cpu"))
    assert [*found.image] == pytest.approx([1.0, 2.0, 2.0]) and found.batch == Passes()


def settings(method: str, **flags: Any) -> Settings:
    return toys.settings(method, **{"batch_size": 100, "augment": "none", **flags})


def test_the_costs_of_training_besides_updates_by_hand() -> None:
    plain = cost(settings("bs"))
    assert plain.updates == 36  # 12 batches, the last of 50
    assert plain.own == Work(Passes(4, 2, 2) * (1150 * 3), Passes(4, 2, 2) * 36)
    natural, pgd = Work(Passes(200), Passes(1)), Work(Passes(21, 20) * 100, Passes(21, 20))  # half of them stand
    assert plain.beside == (natural + pgd) * 3
    assert plain.exact == Work()
    logged = cost(settings("bs", log_divergence=True))
    look = Passes(4 + 4, 2 + 1)  # the own ones, the outputs at x, at the start and at the end, and the gradient there
    assert logged.exact == Work(look * (200 * 3), look * (2 * 3)) and logged.own == plain.own
    by_test = cost(settings("bs", select="test"))
    assert by_test.beside.images == plain.beside.images * 3  # 200 images of val and 400 of test
    assert by_test.beside.batches == plain.beside.batches * 3  # of at most 250
    modern = cost(settings("bs", ema=0.9, awp=0.01))
    assert modern.beside == plain.beside * 2 and modern.own.images == Passes(4 + 2, 2, 2 + 2) * (1150 * 3)
    free = cost(settings("free-at"))
    assert free.own.images == Passes(8, 0, 8) * (1150 * 3) and free.updates == 8 * 36
    rescued = cost(settings("fast-at-plus"))
    checks = Work(Passes(11, 10) * (0.5 * 128 * 36 / 20), Passes(11, 10) * (36 / 20))
    assert rescued.beside.images.forward == pytest.approx((plain.beside + checks).images.forward)
    assert rescued.beside.batches.forward == pytest.approx((plain.beside + checks).batches.forward)


def test_a_step_of_the_optimiser_takes_time_and_changes_nothing() -> None:
    model = nn.Linear(300, 300)
    before = model.weight.clone()
    assert time_step(model, torch.device("cpu")) > 0
    assert torch.equal(model.weight, before) and model.weight.grad is None
