"""One update: its arguments, its counts, and the fallback after a collapse."""

import contextlib
import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import CPU, settings

from bsk.contract.method import Losses
from bsk.contract.network import Network
from bsk.data.batches import WHOLE, Batch, Share
from bsk.training import step as module
from bsk.training.initial import new_state
from bsk.training.schedules import Rates
from bsk.training.settings import Settings
from bsk.training.state import State
from bsk.training.step import update

DATA = SimpleNamespace(classes=["a", "b", "c"], mean=[0.25], std=[0.2])
RATES = Rates(0.1, 0.9)


def begun(s: Settings) -> State:
    state = new_state(s, DATA, 1, 8, CPU)  # type: ignore[arg-type]
    state.model.train()
    return state


def batch(n: int = 5, total: int = 5) -> Batch:
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Batch(x, torch.arange(n) % 3, torch.arange(n), total)


def one_update(state: State, s: Settings, **more: Any) -> None:
    update(state, s, more.pop("batch", batch()), more.pop("share", WHOLE), RATES, 10, **more)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_losses_of_an_epoch_are_summed_with_their_labels_smoothed() -> None:
    s = settings("natural", label_smoothing=0.3)
    state = begun(s)
    model = copy.deepcopy(state.model)
    b = batch()
    loss = F.cross_entropy(model(b.x), b.y, label_smoothing=0.3, reduction="sum").double()
    one_update(state, s)
    torch.testing.assert_close(state.sums, torch.stack([loss, loss, 0 * loss]), rtol=1e-5, atol=0)
    one_update(state, s)
    assert state.step == 2 and state.sums[0] > loss and state.sums[2] == 0


def test_the_average_follows_every_update() -> None:
    """It starts as the model, and then keeps 2/11 of its value."""
    s = settings("natural", ema=0.9)
    state = begun(s)
    assert state.average is not None
    one_update(state, s)
    first = weights(state.model)
    torch.testing.assert_close(weights(state.average.module), first)
    one_update(state, s)
    expected = (2 * first + 9 * weights(state.model)) / 11
    torch.testing.assert_close(weights(state.average.module), expected)
    assert (expected - first).abs().max() > 1e-3


def test_pgd_replaces_the_method_after_a_collapse_for_a_while() -> None:
    s = settings("natural")
    state = begun(s)
    state.collapses = replace(state.collapses, rescued_until=2)
    state.memory.logged = {"other": 1.0}
    robust = []
    for _ in range(4):
        before = float(state.sums[2])
        one_update(state, s)
        robust.append(float(state.sums[2]) > before)
    assert robust == [True, True, False, False]
    assert state.memory.logged == {"other": 1.0, "rescued_updates": 2}


def test_a_process_draws_its_part_of_the_batch_s_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def method(net, x, y, draws, context) -> Losses:  # type: ignore[no-untyped-def]
        seen.append((draws, context))
        return Losses(net.cross_entropy(net(x), y))

    method.replays = 3  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "method_in_force", lambda state, s: method)
    summed: list[Any] = []
    copied: list[Any] = []
    monkeypatch.setattr(module, "sum_gradients", lambda *given: summed.append(given))
    monkeypatch.setattr(module, "share_statistics", lambda *given: copied.append(given))
    s, share = settings("natural"), Share(1, 2)
    state = begun(s)
    state.step = 4
    one_update(state, s, share=share, batch=batch(3, total=7), epoch=2)
    assert [(draws.first, draws.total) for draws, _ in seen] == [(4, 7)] * 3
    assert [(c.update, c.epoch, c.progress, c.validate("pgd-10", 0)) for _, c in seen] == [(4, 2, 0.5, 1.0)] * 3
    assert summed == copied == [(state.model, share)] * 3 and state.step == 5
    one_update(state, s, batch=batch(3, total=7))
    assert seen[-1][1].epoch == 0


@pytest.mark.parametrize("replays", [1, 2])
def test_an_accuracy_is_measured_once_per_descent_and_not_where_awp_has_moved_the_weights(replays: int) -> None:
    s = settings("fast-at-plus", awp=0.02)
    state, seen = begun(s), []

    def method(net, x, y, draws, context) -> Losses:  # type: ignore[no-untyped-def]
        accuracy = context.validate("pgd-10", 3)
        context.memory.numbers["accuracy"] = accuracy
        return Losses(net.cross_entropy(net(x), y) * accuracy)

    method.replays = replays  # type: ignore[attr-defined]

    def validate(attack: str, turn: int) -> float:
        seen.append((attack, turn, weights(state.model)))
        return 0.5 / len(seen)

    before = weights(state.model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "method_in_force", lambda state, s: method)
        one_update(state, s, validate=validate)
    assert [each[:2] for each in seen] == [("pgd-10", 3)] * replays
    assert torch.equal(seen[0][2], before) and state.memory.numbers == {"accuracy": 0.5 / replays}


def test_the_loss_is_descended_where_the_weights_are_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    @contextlib.contextmanager
    def worst(net, loss, draws, gamma, share):  # type: ignore[no-untyped-def]
        given.append((net, loss(), draws, gamma, share))
        yield

    monkeypatch.setattr(module, "worst_weights", worst)
    s = settings("natural", awp=0.02)
    state = begun(s)
    expected = F.cross_entropy(copy.deepcopy(state.model)(batch().x), batch().y, reduction="sum") / 5
    one_update(state, s)
    ((net, loss, draws, gamma, share),) = given
    assert isinstance(net, Network) and net.module is state.model and (gamma, share) == (0.02, WHOLE)
    assert loss.requires_grad and (draws.first, draws.total) == (0, 5)
    torch.testing.assert_close(loss.detach(), expected.detach())


def test_each_update_begins_with_no_gradient() -> None:
    """Twice the same batch at a rate of zero: the gradient is that of one of them."""
    s = settings("natural")
    state, gradients = begun(s), []
    for _ in range(2):
        update(state, s, batch(), WHOLE, Rates(0.0, 0.0), 10)
        gradients.append([p.grad.clone() for p in state.model.parameters() if p.grad is not None])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)
