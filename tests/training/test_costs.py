"""What a training will cost: counted beforehand as the training itself counts."""

import pytest
import torch
from torch import nn

from bsk.attacks.registry import Flags, attack_named
from bsk.perturb.draws import BatchDraws, generator
from bsk.perturb.passes import Passes as Counter
from bsk.perturb.passes import counting
from bsk.training.costs import Passes, attack_passes, time_passes, update_passes
from bsk.training.methods import METHODS, OUTER, perturb

EPS = 0.2


@pytest.mark.parametrize("method", METHODS)
def test_the_passes_of_an_update_are_those_that_it_makes(method: str) -> None:
    row, model, n = METHODS[method].at(EPS), nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), 3
    counter = Counter()
    forward = counting(model, counter)
    x, y = torch.rand(n, 3, 2, 2), torch.tensor([0, 1, 2])
    x_adv = perturb(row, forward, x, y, EPS, BatchDraws(generator(1, "noise", 0), 0, n))
    OUTER[row.outer](forward, x, x_adv, y, row.beta).total.sum().backward()
    passes = update_passes(row) * n
    assert (passes.forward, passes.to_input + passes.full) == (counter.forward, counter.backward)


def test_sums_of_passes_and_their_seconds_by_hand() -> None:
    bs = update_passes(METHODS["bs"].at(EPS))
    assert bs == Passes(forward=4, to_input=2, full=2)
    assert bs.seconds(Passes(forward=1.0, to_input=1.0, full=2.0)) == 10
    assert update_passes(METHODS["trades"].at(EPS)).seconds(Passes(1, 1, 2)) == 27


def test_an_attack_without_gradients_has_no_way_back() -> None:
    passes = attack_passes(attack_named("rays", EPS, Flags(queries=1000)), 10)
    checks = attack_passes(attack_named("pgd-1", EPS), 0)
    assert passes.to_input == checks.to_input
    assert passes.forward - checks.forward == 10 + 5 * 1000  # natural for all, and half of them stand


def test_each_kind_of_pass_takes_time_and_leaves_no_gradient() -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 256, 10))
    found = time_passes(model, (3, 16, 16), "fp32", 64, torch.device("cpu"))
    assert found.forward > 0 and found.to_input > 0 and found.full > 0
    assert all(parameter.grad is None for parameter in model.parameters())
