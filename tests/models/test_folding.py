"""Batch norms folded into convolutions within a `with` block: the same function, and nothing else changes."""

import copy

import pytest
import torch
from torch import Tensor, nn

from bsk.contract import network as module
from bsk.contract.method import Memory
from bsk.contract.network import Network
from bsk.models.modes import eval_mode, folded, folded_eval_mode
from bsk.models.registry import build
from bsk.models.resnet import ResNet
from bsk.perturb.draws import BatchDraws, generator
from bsk.training.bound import UpdateContext, bind


def network(name: str) -> nn.Module:
    """A network in eval mode whose batch norms have statistics, scales and shifts of their own."""
    model = build(name, classes=5, channels=3, size=16, mean=[0.5] * 3, std=[0.25] * 3, seed=0)
    random = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.running_var):
                tensor.uniform_(0.5, 2.0, generator=random)
            for tensor in (layer.bias.data, layer.running_mean):
                tensor.normal_(0.0, 0.3, generator=random)
    return model.eval().double()


def norms(model: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


def both(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    return logits.detach(), torch.autograd.grad(logits.logsumexp(1).sum(), leaf)[0]


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("resnet18-4", 0),
        ("resnet50-4", 0),
        ("preact-resnet18-4", 8 + 1),  # the first of each block, whose input the sum needs too, and the last
        ("preact-resnet18-4-wong", 8),
        ("preact-resnet18-4-silu", 8 + 3 + 1),  # and those after a convolution with a padding of its own
        ("preact-resnet50-4", 16 + 1),
    ],
)
def test_it_computes_the_same_without_a_norm_that_can_go(name: str, left: int) -> None:
    model, x = network(name), torch.rand(3, 3, 16, 16, dtype=torch.float64)
    model.requires_grad_(False)
    logits, gradient = both(model, x)
    with folded(model):
        assert norms(model) == left
        found = both(model, x)
        weights = [layer.weight for layer in model.modules() if isinstance(layer, nn.Conv2d)]
        assert not any(weight.requires_grad for weight in weights)
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    torch.testing.assert_close(found, (logits, gradient), rtol=1e-9, atol=1e-12)
    assert not torch.equal(found[0], logits), "it was another way"


def test_everything_is_put_back_even_after_an_error() -> None:
    model = network("resnet18-4")
    before, state = list(model.modules()), copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError), folded(model), folded(model):
        raise RuntimeError
    assert all(a is b for a, b in zip(model.modules(), before, strict=True))
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_hooked_layer_and_other_networks_stay() -> None:
    model, seen = network("resnet18-4"), []
    first = next(layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))
    first.register_forward_hook(lambda layer, inputs, output: seen.append(layer))
    with folded(model):
        assert norms(model) == 1
        model(torch.rand(1, 3, 16, 16, dtype=torch.float64))
    assert seen == [first]

    class Theirs(ResNet):
        """It may do anything between its layers."""

    sequence = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval()
    model.network.__class__ = Theirs
    for other in (sequence, model, network("wrn-10-1")):
        count = norms(other)
        with folded(other):
            assert norms(other) == count > 0


def test_training_continues_after_folding() -> None:
    model = network("resnet18-4").train()
    state, leaf = copy.deepcopy(model.state_dict()), torch.rand(2, 3, 16, 16, dtype=torch.float64).requires_grad_()
    with folded_eval_mode(model):
        assert norms(model) == 0 and not any(layer.training for layer in model.modules())
        torch.autograd.grad(model(leaf).sum(), leaf)
    assert norms(model) and all(layer.training for layer in model.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", ["resnet18-4", "preact-resnet18-4"])
@pytest.mark.parametrize("method", ["fast-at", "trades", "bs", "liet"])
def test_a_perturbation_is_the_same(method: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp64, since otherwise rounding decides the sign of a nearly zero gradient. LIET's pattern is folded."""
    x, y = torch.rand(6, 3, 16, 16, dtype=torch.float64), torch.arange(6) % 5

    def perturbed() -> tuple[Tensor, Tensor]:
        context = UpdateContext(Memory(images=6).batch(torch.arange(6)), 0, 0, 0.5, lambda attack, turn: 1.0)
        model = network(name)
        losses = bind(method, 0.1)(Network(model), x, y, BatchDraws(generator(3)), context)
        assert norms(model), "they are back"
        return losses.start, losses.x_adv

    found, seen = perturbed(), []
    monkeypatch.setattr(module, "folded_eval_mode", lambda model: (seen.append(model), eval_mode(model))[1])
    expected = perturbed()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert seen and not torch.equal(found[1], x)
