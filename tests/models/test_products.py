"""Linear layers without an order: exact sums, so that no company, place or thread changes a bit."""

import math
from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bsk.models.products import exact_bits, order_free, pre_rounded

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
def test_a_row_is_the_same_in_any_company_at_any_place_by_any_number_of_threads(inputs: int, outputs: int) -> None:
    layer = nn.Linear(inputs, outputs).requires_grad_(False)
    x, gradient = rows_for(layer, 260)
    with order_free(layer):
        torch.set_num_threads(1)
        y, back = both(layer, x, gradient)
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for n in (1, 2, 3, 4, 7, 8, 12, 16, 24, 33, 64, 100, 131, 260):
                rows = torch.randperm(260)[:n]
                found, found_back = both(layer, x[rows], gradient[rows])
                assert torch.equal(found, y[rows]) and torch.equal(found_back, back[rows]), f"{n} rows"


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_it_is_nearly_as_near_to_the_truth_as_float32(inputs: int, outputs: int) -> None:
    """Against float64: the worst of 64 rows is off by no more than eight times as much as torch's, and by few units."""
    layer = nn.Linear(inputs, outputs).requires_grad_(False)
    x, gradient = rows_for(layer, 64)
    truth = x.double() @ layer.weight.double().t() + layer.bias.double()
    back = gradient.double() @ layer.weight.double()
    usual = both(layer, x, gradient)
    with order_free(layer):
        found = both(layer, x, gradient)
    for true, ours, theirs in zip((truth, back), found, usual, strict=True):
        assert ours.dtype == torch.float32
        error, customary = ((each.double() - true).abs().max() for each in (ours, theirs))
        assert error < 8 * customary
        assert error < 16 * 2.0 ** -exact_bits(max(inputs, outputs)) * true.square().mean().sqrt()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1024, 1024, width=32), min_size=2, max_size=70),
    st.integers(0, 2**32 - 1),
    st.integers(-60, 60),
)
def test_sums_are_exact(row: list[float], seed: int, scale: int) -> None:
    """The layer's value is the true sum of the rounded factors, by fractions, rounded once."""
    layer = nn.Linear(len(row), 3, bias=False).requires_grad_(False)
    layer.weight.normal_(generator=torch.Generator().manual_seed(seed))
    x, bits = torch.tensor([row]) * 2.0**scale, exact_bits(max(len(row), 3))
    a = [Fraction(each) for each in pre_rounded(x, bits)[0].tolist()]
    w = pre_rounded(layer.weight.reshape(1, -1), bits).view_as(layer.weight).tolist()
    with order_free(layer):
        found = layer(x)[0].tolist()
    for value, weights in zip(found, w, strict=True):
        exact = sum((f * Fraction(each) for f, each in zip(a, weights, strict=True)), Fraction(0))
        assert Fraction(float(exact)) == exact, "it fits into float64"
        assert value == torch.tensor(float(exact), dtype=torch.float64).float().item()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=20), st.integers(2, 24))
def test_rounding_is_to_multiples_and_to_the_nearest(row: list[float], bits: int) -> None:
    largest = max(abs(each) for each in row)
    found = pre_rounded(torch.tensor([row]), bits)[0].tolist()
    if largest == 0:
        assert found == row
        return
    unit = Fraction(2) ** (math.frexp(largest)[1] - bits)
    for before, after in zip(row, found, strict=True):
        assert (Fraction(after) / unit).denominator == 1
        assert abs(Fraction(after) - Fraction(before)) <= unit / 2


def test_bits_fill_float64() -> None:
    assert [exact_bits(n) for n in (1, 32, 33, 512, 2048, 2049, 25088)] == [24, 24, 23, 22, 21, 20, 19]
    assert all(2 * exact_bits(n) + math.log2(n) <= 53 for n in range(1, 5000))


def test_a_weight_that_changes_within_the_block_is_seen() -> None:
    layer, x = nn.Linear(5, 3).requires_grad_(False), torch.randn(4, 5)
    with order_free(layer):
        before = layer(x)
        layer.weight.mul_(2)
        layer.bias.mul_(2)
        torch.testing.assert_close(layer(x), 2 * before)
        layer.weight = nn.Parameter(layer.weight.neg(), requires_grad=False)
        layer.bias.neg_()
        torch.testing.assert_close(layer(x), -2 * before)


def test_layers_are_put_back_even_after_an_error_and_own_forwards_are_left_alone() -> None:
    class Own(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 1

    model = nn.Sequential(nn.Linear(4, 4), Own(4, 4))
    with pytest.raises(RuntimeError), order_free(model):
        assert "forward" in vars(model[0]) and "forward" not in vars(model[1])
        raise RuntimeError
    assert "forward" not in vars(model[0])
    with order_free(model), order_free(model):
        pass
    assert "forward" not in vars(model[0])


def test_other_types_and_shapes() -> None:
    layer = nn.Linear(6, 3, bias=False).requires_grad_(False)
    x = torch.randn(2, 5, 6)
    with order_free(layer):
        torch.testing.assert_close(layer(x), x @ layer.weight.t())
        assert layer(x[0, 0]).shape == (3,) and layer(x[:0]).shape == (0, 5, 3)
        assert not layer(torch.tensor([[math.inf, 0, 0, 0, 0, 0]])).isfinite().any()
        assert not layer(torch.tensor([[math.nan, 0, 0, 0, 0, 0]])).isfinite().any()
        assert layer(torch.zeros(1, 6)).tolist() == [[0, 0, 0]]
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        layer.double()
        assert torch.equal(layer(x.double()), nn.functional.linear(x.double(), layer.weight))
