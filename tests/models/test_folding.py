"""Batch norms folded into convolutions: the same function, for the time of a block, and nothing else changed."""

import copy

import pytest
import torch
from torch import Tensor, nn

from bsk.models.folding import folded
from bsk.models.registry import build
from bsk.models.resnet import ResNet


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


@pytest.mark.parametrize("name", ["resnet18-4", "resnet50-4"])
def test_it_computes_the_same_without_a_norm(name: str) -> None:
    model, x = network(name), torch.rand(3, 3, 16, 16, dtype=torch.float64)
    model.requires_grad_(False)
    logits, gradient = both(model, x)
    with folded(model):
        assert norms(model) == 0
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
