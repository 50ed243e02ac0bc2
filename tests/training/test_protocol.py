"""The modern protocol: averaged weights, weight perturbation, warm-up, smoothed labels."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import settings, trained

import bsk
from bsk.contract.method import Memory
from bsk.contract.network import Network
from bsk.data.batches import WHOLE
from bsk.data.store import DataFile
from bsk.methods.registry import METHODS
from bsk.perturb.draws import BatchDraws, generator
from bsk.perturb.passes import PassCounter
from bsk.records import checkpoints
from bsk.records import jsonl as records
from bsk.training.averaging import average_of, follow
from bsk.training.awp import worst_weights
from bsk.training.bound import UpdateContext, bind
from bsk.training.profile import profile
from bsk.training.schedules import Rates, warmed


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


# --- moving average ---------------------------------------------------------------------------------------------------


def test_the_average_follows_by_its_formula_with_batch_norm_statistics() -> None:
    model = network()
    average, expected = average_of(model, 0.3), {}
    for t in range(8):
        model(torch.rand(6, 1, 8, 8))  # moves the statistics
        with torch.no_grad():
            model[0].weight += 0.1 * torch.randn_like(model[0].weight)
        follow(average, model)
        tau = 0.0 if t == 0 else min(0.3, (1 + t) / (10 + t))
        now = {k: v.double() for k, v in model.state_dict().items() if v.is_floating_point()}
        expected = {k: tau * expected.get(k, 0) + (1 - tau) * v for k, v in now.items()}
    found = average.module.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-6)
    assert not torch.equal(found["1.running_mean"], model.state_dict()["1.running_mean"])
    assert average_of(model, 0.0) is None


def test_indices_masks_and_counters_are_copied_into_the_average() -> None:
    model = network()
    model.register_buffer("index", torch.arange(100))
    model.register_buffer("mask", torch.arange(100) % 2 == 0)
    average = average_of(model, 0.9995)
    for _ in range(60):
        model[1](torch.rand(6, 4, 2, 2))
        follow(average, model)
    for name in ("index", "mask", "1.num_batches_tracked"):
        assert torch.equal(average.module.state_dict()[name], model.state_dict()[name]), name


def test_an_average_is_saved_beside_and_changes_nothing_else(data: DataFile, tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain.safetensors", data, settings())
    end = trained(tmp_path / "m.safetensors", data, settings(ema=0.9))
    for which in ("", ".last"):
        ours, header = checkpoints.load(tmp_path / f"m{which}.safetensors", ("model", "training-state"))
        theirs, _ = checkpoints.load(tmp_path / f"plain{which}.safetensors", ("model", "training-state"))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (end["val_robust"], end["last_val_robust"]) == (plain["val_robust"], plain["last_val_robust"])
    log = [record for record in records.read(tmp_path / "m.jsonl") if record["kind"] == "epoch"]
    best = max(log, key=lambda record: record["ema_val_robust"])
    assert end["ema_val_robust"] == best["ema_val_robust"] and end["ema_epoch"] == best["epoch"]
    assert end["ema_last_val_robust"] == log[-1]["ema_val_robust"] and end["ema_last_epoch"] == 3
    for which, selected in (("ema", "best ema 0.9"), ("ema-last", "last ema 0.9")):
        tensors, header = checkpoints.load(tmp_path / f"m.{which}.safetensors", "model")
        assert (header["selected"], header["complete"]) == (selected, True)
        assert header["train_forward_passes"] == end["train_forward_passes"]
        assert bsk.load(tmp_path / f"m.{which}.safetensors")(torch.rand(2, 1, 8, 8)).shape == (2, 3)
    last, _ = checkpoints.load(tmp_path / "m.last.safetensors", "training-state")
    assert all(torch.equal(tensors[name], last["average." + name]) for name in tensors)


# --- weight perturbation ----------------------------------------------------------------------------------------------


def test_within_the_block_weights_are_where_the_loss_is_higher_and_afterwards_back() -> None:
    model, x, y = network().train(), torch.rand(16, 1, 8, 8), torch.arange(16) % 3
    net, draws = Network(model), BatchDraws(generator(0))
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def loss() -> Tensor:
        return nn.functional.cross_entropy(net(x), y)

    gradients = dict(
        zip(("0.weight", "4.weight"), torch.autograd.grad(loss(), [model[0].weight, model[4].weight]), strict=True)
    )
    model.load_state_dict(before)
    with worst_weights(net, loss, draws, 0.02, WHOLE):
        assert torch.equal(model[1].running_mean, before["1.running_mean"]), "the statistics stay"
        for name, gradient in gradients.items():
            away = model.state_dict()[name] - before[name]
            assert float(away.norm()) == pytest.approx(0.02 * float(before[name].norm()), rel=1e-4)
            cosine = nn.functional.cosine_similarity(away.flatten(), gradient.flatten(), dim=0)
            assert float(cosine) == pytest.approx(1.0, abs=1e-4)
        assert torch.equal(model[4].bias, before["4.bias"]), "biases and batch norms have one dimension"
        worse = float(loss().detach())
    model.load_state_dict({**model.state_dict(), **{k: v for k, v in before.items() if k.startswith("1.")}})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert worse > float(loss().detach())


def test_both_calls_see_the_same_numbers_of_the_global_generators() -> None:
    model, x, y, seen = network().train(), torch.rand(16, 1, 8, 8), torch.arange(16) % 3, []
    net = Network(model)

    def loss() -> Tensor:
        seen.append((float(torch.rand(())), float(np.random.rand()), random.random()))
        return nn.functional.cross_entropy(net(x), y)

    with worst_weights(net, loss, BatchDraws(generator(0)), 0.02, WHOLE):
        loss()
    assert len(seen) == 2 and seen[0] == seen[1]


def test_weights_without_influence_stay_within_the_block() -> None:
    model, x, y = network().train(), torch.rand(16, 1, 8, 8), torch.arange(16) % 3
    model.register_module("unused", nn.Linear(2, 2))
    model.forward = lambda images: nn.Sequential(*list(model)[:5])(images)
    net, before = Network(model), {name: value.clone() for name, value in model.state_dict().items()}
    with worst_weights(net, lambda: nn.functional.cross_entropy(net(x), y), BatchDraws(generator(0)), 0.02, WHOLE):
        now = model.state_dict()
        assert torch.equal(now["unused.weight"], before["unused.weight"])
        assert not torch.equal(now["0.weight"], before["0.weight"])


@pytest.mark.parametrize("method", METHODS)
def test_the_perturbation_within_the_block_is_the_one_before_it_without_its_passes(method: str) -> None:
    """It is computed with the weights before and the same random numbers; the method's loss is that of the perturbed
    weights.
    """
    model, x, y = network().train(), torch.rand(16, 1, 8, 8), torch.arange(16) % 3
    counter, seen = PassCounter(), []
    net, draws = Network(model, counter=counter), BatchDraws(generator(0))
    found = bind(method, 0.1)

    def loss() -> Tensor:
        memory = Memory(images=16, classes=3).batch(torch.arange(16))
        losses = found(net, x, y, draws, UpdateContext(memory, 1, 0, 0.5, lambda attack, turn: 1.0))
        seen.append((losses, counter.forward))
        return losses.total.mean()

    with worst_weights(net, loss, draws, 0.05, WHOLE):
        loss()
    (first, passes), (second, both) = seen
    trained = {"liet", "gradalign", "fgsm-pgi", "fgsm-mep", "rs-cs", "rs-aaer", "n-aaer", "uap", "cuap", "pco"}
    if method not in trained:  # these perturb in train mode, by passes that are descended
        assert torch.equal(first.x_adv, second.x_adv)
    assert torch.equal(first.start, second.start) or method == "liet"
    assert (first.total - second.total).abs().max() > 1e-6
    assert both - passes == 16 * profile(found, (1, 8, 8), 3).trained.forward
    assert net.through is None


def test_a_weight_perturbation_costs_the_passes_of_the_outer_loss(data: DataFile, tmp_path: Path) -> None:
    ends = [trained(tmp_path / f"{awp}.safetensors", data, settings("fast-at", awp=awp)) for awp in (0.0, 0.01)]
    assert ends[1]["train_forward_passes"] * 2 == ends[0]["train_forward_passes"] * 3
    assert ends[1]["train_backward_passes"] * 2 == ends[0]["train_backward_passes"] * 3
    assert ends[0]["checkpoint_sha256"] != ends[1]["checkpoint_sha256"]


# --- warm-up and labels -----------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_and_then_is_the_schedule_s() -> None:
    rates = Rates(0.2, 0.9)
    assert [warmed(step, 4, rates).lr for step in range(6)] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2, 0.2])
    assert warmed(0, 0, rates) is rates
