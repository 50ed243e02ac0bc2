import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bsk.errors import StoppedError
from bsk.perturb.ball import L1, ball_around, length, region
from bsk.perturb.draws import BatchDraws, ExampleDraws, example_draws, generator
from bsk.perturb.gradients import HUGE, NoGradientError, gradient_of, raw_gradient
from bsk.perturb.radius import paper_step


def test_projection_by_hand() -> None:
    x = torch.tensor([[0.0, 0.5, 1.0, 0.9]])
    moved = torch.tensor([[-0.3, 0.75, 1.2, 0.2]])
    projected = ball_around(x, 0.2).project(moved)
    torch.testing.assert_close(projected, torch.tensor([[0.0, 0.7, 1.0, 0.7]]))


@given(eps=st.floats(0, 1), seed=st.integers(0, 1000), scale=st.floats(0, 10))
def test_projection_is_in_ball_and_box_and_idempotent(eps: float, seed: int, scale: float) -> None:
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 2, 4, 4, generator=g)
    point = x + scale * torch.randn(x.shape, generator=g)
    ball = ball_around(x, eps)
    projected = ball.project(point)
    assert projected.min() >= 0 and projected.max() <= 1
    assert (projected - x).abs().max() <= eps + 1e-7
    assert torch.equal(ball.project(projected), projected)
    assert torch.equal(ball.project(x), x)


def test_the_l1_projection_by_hand() -> None:
    """All values shrink by 0.025, then by 0.2; the second is still at 1, and no value crosses its original one."""
    x = torch.tensor([[0.5, 0.9, 0.2, 0.7]])
    ball = region(x, 0.4, "l1")
    assert ball.project(torch.tensor([[0.8, 1.2, 0.25, 0.7]]))[0].tolist() == pytest.approx([0.775, 1.0, 0.225, 0.7])
    assert ball.project(torch.tensor([[0.8, 1.2, 0.25, 0.3]]))[0].tolist() == pytest.approx([0.6, 1.0, 0.2, 0.5])
    inside = torch.tensor([[0.6, 0.9, 0.1, 0.75]])
    assert torch.equal(ball.project(inside), inside)


def sorted_l1_projection(x: np.ndarray, z: np.ndarray, eps: float) -> np.ndarray:
    """min |p - z|^2 with |p - x|_1 <= eps and 0 <= p <= 1: of all kinks of sum |p - x| the two about eps."""
    size, room = np.abs(z - x), np.where(z > x, 1 - x, x)

    def gone(t: float) -> np.ndarray:
        return np.minimum(np.maximum(size - t, 0), room)

    kinks = sorted({0.0, *np.maximum(size, 0), *np.maximum(size - room, 0)})
    if gone(0).sum() <= eps:
        return x + np.sign(z - x) * gone(0)
    low = max(t for t in kinks if gone(t).sum() >= eps)
    high = min((t for t in kinks if gone(t).sum() < eps), default=low)
    fall = gone(low).sum() - gone(high).sum()
    t = low + (high - low) * (gone(low).sum() - eps) / fall if fall else low
    return x + np.sign(z - x) * gone(t)


@given(eps=st.floats(0.001, 8), seed=st.integers(0, 10_000), scale=st.floats(0, 3), n=st.integers(1, 30))
@example(eps=0.001, seed=1486, scale=2.0, n=1)
@settings(max_examples=200)
def test_the_l1_projection_is_that_of_the_sorted_reference(eps: float, seed: int, scale: float, n: int) -> None:
    random = np.random.default_rng(seed)
    x = random.random((3, n)).round(1)  # black, white and equal ones are among them
    z = x + scale * random.normal(size=(3, n)).round(1)
    for dtype, precision in ((torch.float64, 2e-6), (torch.float32, 2e-5)):
        at, point = (torch.tensor(each, dtype=dtype)[:, None, None] for each in (x, z))
        found = region(at, eps, "l1").project(point)
        assert found.min() >= 0 and found.max() <= 1
        rounding = n * torch.finfo(torch.float32).eps * (2 + np.abs(z - x).max())  # of x + delta, z - x and its parts
        assert length(found - at, "l1").max() <= eps * (1 + 1e-5) + rounding
        for row in range(3):
            expected = sorted_l1_projection(x[row], z[row], eps)
            np.testing.assert_allclose(found[row].flatten().numpy(), expected, rtol=0, atol=precision * max(1, eps))


def test_the_l1_projection_of_a_row_does_not_depend_on_its_neighbours() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(40, 3, 8, 8, generator=g)
    point = x + torch.randn(x.shape, generator=g) * torch.logspace(-3, 1, 40)[:, None, None, None]
    whole = region(x, 3.0, "l1").project(point)
    for i in range(40):
        assert torch.equal(region(x[i : i + 1], 3.0, "l1").project(point[i : i + 1]), whole[i : i + 1])


def test_the_steepest_way_in_l1_by_hand() -> None:
    gradient = torch.tensor([[[[0.5, -4.0, 0.0, 3.0]]]])
    ball = region(torch.zeros_like(gradient), 1.0, "l1")
    assert ball.steepest(gradient).flatten().tolist() == [0, -1, 0, 0]
    assert isinstance(ball, L1)
    for share, expected in (
        (0.5, [0, -0.5, 0, 0.5]),
        (0.8, [1 / 3, -1 / 3, 0, 1 / 3]),
        (1.0, [1 / 3, -1 / 3, 0, 1 / 3]),
    ):
        assert ball.steepest(gradient, torch.tensor([share])).flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("power", [-100, -40, 40])
def test_the_steepest_way_does_not_depend_on_the_size_of_the_gradient(norm: str, power: int) -> None:
    gradient = torch.randn(3, 1, 4, 4)
    gradient[1] = 0
    ball = region(torch.zeros_like(gradient), 1.0, norm)
    assert torch.equal(ball.steepest(gradient * 2.0**power), ball.steepest(gradient))
    assert torch.equal(ball.steepest(gradient)[1], torch.zeros(1, 4, 4))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_region_can_be_restricted_to_some_images(norm: str) -> None:
    x, rows = torch.rand(4, 1, 2, 2), torch.tensor([True, False, False, True])
    kept, alone = region(x, 0.1, norm).keep(rows), region(x[rows], 0.1, norm)
    points = [ball.sample(example_draws(0, "ball", range(2), torch.device("cpu"))) for ball in (kept, alone)]
    assert torch.equal(*points) and torch.equal(kept.project(x[rows] + 1), alone.project(x[rows] + 1))


def test_a_gradient_is_finite_whatever_the_model_s_is() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    factors = torch.tensor([[float("nan"), float("inf")], [-float("inf"), 5.0]])
    found = gradient_of((x * factors).sum(dim=1), x)
    assert found.tolist() == [[0.0, pytest.approx(HUGE)], [pytest.approx(-HUGE), 5.0]]


def test_a_step_of_the_paper_says_at_which_radius_and_keeps_its_part_of_it() -> None:
    assert repr(paper_step(10 / 255)) == "10/255 at 8/255"
    assert paper_step(10 / 255).at(16 / 255) == pytest.approx(20 / 255)


def test_an_output_that_does_not_use_the_images_has_no_gradient() -> None:
    x, weight = torch.ones(2, 3, requires_grad=True), torch.ones(2, requires_grad=True)
    for losses in (weight * 2, torch.ones(2)):
        with pytest.raises(NoGradientError):
            raw_gradient(losses, x)


class _Fails(torch.autograd.Function):
    error: Exception

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        return x.clone()

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        raise _Fails.error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NotImplementedError("no relu"), NoGradientError),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), RuntimeError),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"), RuntimeError),
        (RuntimeError("out of memory"), RuntimeError),
        (StoppedError("stopped", 143), StoppedError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_only_a_failure_of_the_network_itself_is_one_of_its_backward_pass(error, kind) -> None:
    _Fails.error = error
    x = torch.ones(2, 3, requires_grad=True)
    with pytest.raises(kind) as raised:
        raw_gradient(_Fails.apply(x).sum(dim=1), x)
    assert type(raised.value) is kind


def test_the_error_without_gradient_names_attacks_that_need_none() -> None:
    assert str(NoGradientError()).endswith("as this attack needs; use --attack square or rays")


def test_a_stream_depends_on_its_whole_key() -> None:
    def first(*key: object) -> float:
        return float(torch.rand(1, generator=generator(*key)))

    assert first(1, "noise", 7) == first(1, "noise", 7)
    assert len({first(1, "noise", 7), first(2, "noise", 7), first(1, "order", 7), first(1, "noise", 8)}) == 4


def test_random_numbers_of_an_example_do_not_depend_on_the_batch() -> None:
    like = torch.zeros(4, 3, 5, 5)
    together = example_draws(0, "pgd-10", [3, 1, 4, 15]).uniform(like)
    alone = example_draws(0, "pgd-10", [4]).uniform(like[:1])
    assert torch.equal(together[2:3], alone)
    kept = example_draws(0, "pgd-10", [3, 1, 4, 15]).keep(torch.tensor([False, True, True, False]))
    assert torch.equal(kept.uniform(like[:2]), together[1:3])
    assert isinstance(kept, ExampleDraws) and together.abs().max() <= 1


def test_processes_that_share_a_batch_draw_what_one_would() -> None:
    whole = BatchDraws(generator(0)).uniform(torch.zeros(5, 2, 3, 3))
    first = BatchDraws(generator(0), 0, 5).uniform(torch.zeros(3, 2, 3, 3))
    second = BatchDraws(generator(0), 3, 5).uniform(torch.zeros(2, 2, 3, 3))
    assert torch.equal(torch.cat([first, second]), whole)


def test_draws_have_the_moments_they_should() -> None:
    like = torch.zeros(20_000, 1)
    uniform, gaussian = BatchDraws(generator(1)).uniform(like), BatchDraws(generator(2)).gaussian(like)
    assert abs(float(uniform.mean())) < 0.02 and abs(float(uniform.var()) - 1 / 3) < 0.01
    assert abs(float(gaussian.mean())) < 0.03 and abs(float(gaussian.var()) - 1) < 0.04


def test_streams_are_splitmix64() -> None:
    """Against the algorithm in Python's unbounded integers."""
    key, mask = 0x1234567890ABCDEF, (1 << 64) - 1
    expected = []
    for k in range(1, 6):
        z = (key + k * 0x9E3779B97F4A7C15) & mask
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        expected.append((z ^ z >> 31) >> 40)
    draws = ExampleDraws(torch.tensor([key, 7]))
    assert torch.cat([draws.bits(2), draws.bits(3)], 1)[0].tolist() == expected


def test_a_stream_can_be_read_anywhere() -> None:
    whole = example_draws(0, "a", [3, 1, 4]).unit(20)
    draws = example_draws(0, "a", [3, 1, 4])
    found = draws.unit_at(torch.tensor([2, 0, 2]), torch.tensor([5, 0, 16]), 4)
    assert torch.equal(found, torch.stack([whole[2, 5:9], whole[0, :4], whole[2, 16:]]))
    assert torch.equal(draws.unit(20), whole), "it stays where it was"


def test_streams_have_the_moments_they_should_along_and_across() -> None:
    wide = example_draws(0, "a", [5]).uniform(torch.zeros(1, 20_000))
    tall = example_draws(0, "a", range(20_000)).uniform(torch.zeros(20_000, 1))
    for drawn in (wide, tall):
        assert abs(float(drawn.mean())) < 0.02 and abs(float(drawn.var()) - 1 / 3) < 0.01
        assert drawn.min() >= -1 and drawn.max() <= 1 and len(drawn.unique()) > 19_900
    normal = example_draws(0, "a", range(200)).gaussian(torch.zeros(200, 100))
    assert abs(float(normal.mean())) < 0.03 and abs(float(normal.var()) - 1) < 0.04
