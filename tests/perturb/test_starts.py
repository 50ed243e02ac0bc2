"""Starts, passes, regions and draws by their formulas."""

import math

import pytest
import torch
from torch import Tensor

from bsk.errors import UsageError
from bsk.perturb.ball import ball_around, length, region
from bsk.perturb.draws import BatchDraws, ExampleDraws, example_draws, generator
from bsk.perturb.passes import Passes
from bsk.perturb.pixels import to_images, to_rows
from bsk.perturb.starts import STARTS, begin, coins

EPS = 0.1


def images(n: int = 3, channels: int = 2) -> Tensor:
    return torch.rand(n, channels, 3, 4, generator=torch.Generator().manual_seed(0))


def started(name: str, x: Tensor) -> Tensor:
    draws, nothing = BatchDraws(generator(2)), lambda x: pytest.fail("no pass is needed")
    start, z = begin(name, nothing, x, ball_around(x, EPS), draws, eps=EPS, step=0.05, gamma=1.0)
    assert z is None
    return start


def test_random_starts_by_their_formulas() -> None:
    x, uniform = images(), BatchDraws(generator(2)).uniform(images())
    assert torch.equal(started("zero", x), x)
    torch.testing.assert_close(started("uniform", x), x + EPS * uniform)
    torch.testing.assert_close(started("gaussian", x), x + 0.001 * BatchDraws(generator(2)).gaussian(x))
    torch.testing.assert_close(started("noise", x), (x + 2 * EPS * uniform).clamp(0, 1))
    torch.testing.assert_close(started("bernoulli", x), (x + 0.5 * EPS * uniform.sign()).clamp(0, 1))
    assert STARTS == ["zero", "uniform", "gaussian", "noise", "bernoulli", "backward"]
    with pytest.raises(UsageError, match="--start unifrom: no such start; did you mean uniform?"):
        started("unifrom", x)


def test_a_coin_at_zero_is_heads() -> None:
    assert coins(torch.tensor([-0.1, 0.0, 0.1], dtype=torch.float64)).tolist() == [-1.0, 1.0, 1.0]


def test_lengths_by_hand() -> None:
    d = torch.tensor([[[[3.0, -4.0]]], [[[-1.0, 0.0]]]])
    assert length(d, "linf").tolist() == [4.0, 1.0] and length(d, "l2").tolist() == [5.0, 1.0]
    assert length(d, "l1").tolist() == [7.0, 1.0]


def test_regions_of_some_images() -> None:
    x, rows = images(), torch.tensor([2, 0])
    other = x + torch.linspace(-0.5, 0.5, x.numel()).view_as(x)
    for norm in ("linf", "l2", "l1"):
        whole = region(x, EPS, norm)
        assert torch.equal(whole.keep(rows).project(other[rows]), whole.project(other)[rows])
    ball = ball_around(x, EPS).keep(rows)
    assert torch.equal(ball.lower, (x[rows] - EPS).clamp(0, 1)) and torch.equal(ball.upper, (x[rows] + EPS).clamp(0, 1))


def test_passes_and_their_times_are_added_by_kind() -> None:
    one = Passes(2.0, 3.0, 4.0)
    assert one.seconds(Passes(10.0, 100.0, 1000.0)) == 4320.0
    assert one + Passes(10.0, 20.0, 30.0) == Passes(12.0, 23.0, 34.0) and one * 3 == Passes(6.0, 9.0, 12.0)


def test_images_are_rows_of_pixels() -> None:
    x = images()
    rows = to_rows(x)
    assert rows.shape == (3, 24) and rows[1, :4].tolist() == [*x[1, :, 0, 0].tolist(), *x[1, :, 0, 1].tolist()]
    assert torch.equal(to_images(rows, x.shape), x)


def test_streams_continue_where_they_stopped() -> None:
    whole, draws = example_draws(0, "a", [3, 1]).bits(9), example_draws(0, "a", [3, 1])
    parts = [draws.bits(2), draws.bits(3)]
    kept = draws.keep(torch.tensor([True, False]))
    assert torch.equal(torch.cat([*parts, draws.bits(4)], 1), whole)
    assert torch.equal(kept.bits(4), whole[:1, 5:])


def test_normal_numbers_are_those_of_box_and_muller() -> None:
    like = images(4)
    first, second = example_draws(0, "a", range(4)).unit(48).double().split(24, dim=1)
    expected = (-2 * (1 - first).log()).sqrt() * (2 * math.pi * second).cos()
    found = example_draws(0, "a", range(4)).gaussian(like)
    torch.testing.assert_close(found.double(), expected.view(found.shape), rtol=1e-5, atol=1e-5)


def test_shared_numbers_are_of_the_batch_in_training_and_of_the_example_in_evaluation() -> None:
    like = images(4).double()
    batch = BatchDraws(generator(3)).shared(like, 2)
    assert batch.shape == (2, 4) and (batch == batch[:, :1]).all() and batch[0, 0] != batch[1, 0]
    own, unit = example_draws(0, "a", range(4)).shared(like, 2), example_draws(0, "a", range(4)).unit(2)
    assert own.dtype == torch.float64 and torch.equal(own.float(), (2 * unit - 1).T)


def test_numbers_lie_in_memory_as_the_images_do() -> None:
    """The generator fills memory in order, so that it is the layout that decides which pixel gets which number."""
    plain = images(4, 3)
    last = plain.contiguous(memory_format=torch.channels_last)
    found = BatchDraws(generator(3)).uniform(last)
    assert found.is_contiguous(memory_format=torch.channels_last) and not found.is_contiguous()
    assert torch.equal(found.permute(0, 2, 3, 1).flatten(), BatchDraws(generator(3)).uniform(plain).flatten())
    assert BatchDraws(generator(3)).gaussian(plain).is_contiguous()
    volumes = torch.zeros(2, 3, 4, 4, 4).contiguous(memory_format=torch.channels_last_3d)
    assert BatchDraws(generator(3)).uniform(volumes).is_contiguous()


def test_streams_are_on_the_device_of_their_keys() -> None:
    draws = example_draws(0, "a", range(3), device="meta")
    assert isinstance(draws, ExampleDraws) and draws.keys.dtype == torch.int64
    here = torch.zeros(2, dtype=torch.int64, device="meta")
    assert draws.unit(4).device.type == "meta" and draws.unit_at(here, here, 4).device.type == "meta"
    assert example_draws(0, "a", []).keys.dtype == torch.int64
