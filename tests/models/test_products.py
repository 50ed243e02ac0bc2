"""Linear layers by oneDNN: results do not depend on the batch, the position or the threads."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from bsk.models.products import steady_products

SHAPES = [(48, 1000), (100, 10), (300, 64), (512, 10), (1024, 200), (2048, 10), (2048, 100), (4096, 512)]  # in, out


@pytest.fixture(autouse=True)
def as_many_threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def both(layer: nn.Module, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    y = layer(leaf)
    return y.detach(), torch.autograd.grad(y, leaf, gradient)[0]


def rows_for(layer: nn.Linear, n: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(n, layer.in_features, generator=random), torch.randn(n, layer.out_features, generator=random)


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_a_row_does_not_depend_on_batch_position_or_threads(inputs: int, outputs: int) -> None:
    layer = nn.Linear(inputs, outputs).requires_grad_(False)
    x, gradient = rows_for(layer, 260)
    with steady_products(layer):
        torch.set_num_threads(1)
        y, back = both(layer, x, gradient)
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for n in (2, 3, 4, 7, 8, 12, 16, 24, 33, 64, 100, 131, 260):
                rows = torch.randperm(260)[:n]
                found, found_back = both(layer, x[rows], gradient[rows])
                assert torch.equal(found, y[rows]) and torch.equal(found_back, back[rows]), f"{n} rows"


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_it_is_as_accurate_as_torch(inputs: int, outputs: int) -> None:
    """Against float64, forward and backward: the root mean square error of 64 rows is at most four times torch's."""
    layer = nn.Linear(inputs, outputs).requires_grad_(False)
    x, gradient = rows_for(layer, 64)
    truth = x.double() @ layer.weight.double().t() + layer.bias.double()
    back = gradient.double() @ layer.weight.double()
    usual = both(layer, x, gradient)
    with steady_products(layer):
        found = both(layer, x, gradient)
    for true, ours, theirs in zip((truth, back), found, usual, strict=True):
        assert ours.dtype == torch.float32
        error, customary = ((each.double() - true).square().mean().sqrt() for each in (ours, theirs))
        assert error < 4 * customary


def test_a_weight_that_changes_within_the_block_is_seen() -> None:
    layer, x = nn.Linear(5, 3).requires_grad_(False), torch.randn(4, 5)
    with steady_products(layer):
        before = layer(x)
        layer.weight.mul_(2)
        layer.bias.mul_(2)
        torch.testing.assert_close(layer(x), 2 * before)
        layer.weight = nn.Parameter(layer.weight.neg(), requires_grad=False)
        layer.bias.neg_()
        torch.testing.assert_close(layer(x), -2 * before)


def test_layers_are_put_back_even_after_an_error_and_own_forwards_are_undisturbed() -> None:
    class Own(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 1

    model = nn.Sequential(nn.Linear(4, 4), Own(4, 4))
    with pytest.raises(RuntimeError), steady_products(model):
        assert "forward" in vars(model[0]) and "forward" not in vars(model[1])
        raise RuntimeError
    assert "forward" not in vars(model[0])
    with steady_products(model), steady_products(model):
        pass
    assert "forward" not in vars(model[0])


def test_within_autocast_the_last_layer_alone_keeps_fp32() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)).requires_grad_(False)
    x = torch.randn(2, 6)
    with steady_products(model), torch.autocast("cpu", torch.bfloat16):
        middle = model[0](x)
        assert middle.dtype == torch.bfloat16
        found = model(x)
    assert found.dtype == torch.float32
    expected = middle.double() @ model[1].weight.double().t() + model[1].bias.double()
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-6)


def test_other_types_and_shapes() -> None:
    layer = nn.Linear(6, 3, bias=False).requires_grad_(False)
    x = torch.randn(2, 5, 6)
    with steady_products(layer):
        torch.testing.assert_close(layer(x), x @ layer.weight.t())
        assert layer(x[0, 0]).shape == (3,) and layer(x[:0]).shape == (0, 5, 3)
        assert not layer(torch.tensor([[math.inf, 0, 0, 0, 0, 0]])).isfinite().any()
        assert not layer(torch.tensor([[math.nan, 0, 0, 0, 0, 0]])).isfinite().any()
        assert layer(torch.zeros(1, 6)).tolist() == [[0, 0, 0]]
        layer.double()
        assert torch.equal(layer(x.double()), nn.functional.linear(x.double(), layer.weight))
