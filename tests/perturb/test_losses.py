import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bsk.perturb.gradients import cosines
from bsk.perturb.losses import cross_entropy, jensen_shannon, kl, margin, nuclear, squared_distance


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[math.log(2.0), math.log(3.0), math.log(5.0)]])
    assert cross_entropy(logits, torch.tensor([1])).item() == pytest.approx(-math.log(0.3), rel=1e-6)


def test_label_smoothing_by_hand() -> None:
    """Of probabilities (3/4, 1/4) and label 0, smoothed by 0.2: 0.9 and 0.1 of the weight."""
    z = torch.tensor([[math.log(3), 0.0]])
    by_hand = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    assert float(cross_entropy(z, torch.tensor([0]), 0.2)) == pytest.approx(by_hand, rel=1e-6)


def test_kl_by_hand() -> None:
    p = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    q = torch.log(torch.tensor([[0.25, 0.25, 0.5]])) + 7  # a constant added to all logits changes nothing
    assert kl(p, q).item() == pytest.approx(0.5 * math.log(2) + 0.25 * math.log(0.5), rel=1e-5)


def test_kl_sends_its_gradient_through_both_arguments() -> None:
    p = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    q = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: kl(a, b), (p, q))
    kl(p, q).sum().backward()
    torch.testing.assert_close(q.grad, (q.softmax(1) - p.softmax(1)).detach())  # closed form
    assert p.grad is not None and p.grad.abs().min() > 0


def test_the_gradient_of_kl_is_finite_where_a_probability_is_zero() -> None:
    """Of fp32 probabilities (1, 0, 0): softmax and then logarithms would give NaN."""
    p = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    q = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    kl(p, q).sum().backward()
    assert p.grad is not None and torch.equal(p.grad, torch.zeros(1, 3))  # s(p) is at a corner of the simplex
    torch.testing.assert_close(q.grad, (q.softmax(1) - torch.tensor([1.0, 0, 0])).detach())


def test_jensen_shannon_by_hand() -> None:
    """Of (1/2, 1/2) and (1/4, 3/4): m = (3/8, 5/8)."""
    p, q = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3)]])
    by_hand = (0.5 * math.log(4 / 3) + 0.5 * math.log(4 / 5) + 0.25 * math.log(2 / 3) + 0.75 * math.log(6 / 5)) / 2
    assert float(jensen_shannon(p, q)) == pytest.approx(by_hand, rel=1e-5)
    assert float(jensen_shannon(torch.tensor([[99.0, 0]]), torch.tensor([[0, 99.0]]))) == pytest.approx(math.log(2))


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_jensen_shannon_is_symmetric_and_between_0_and_log_2(seed: int) -> None:
    p, q = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 5
    found = jensen_shannon(p, q)
    torch.testing.assert_close(found, jensen_shannon(q, p))
    assert (found >= -1e-12).all() and (found <= math.log(2) + 1e-12).all()
    assert float(jensen_shannon(p, p).abs().max()) < 1e-12


def test_the_nuclear_norm_by_hand() -> None:
    """Rows (3, 0) and (0, 4) have the singular values 3 and 4; two equal rows (3, 4) have 5 sqrt 2 alone."""
    assert float(nuclear(torch.tensor([[3.0, 0], [0, 4]]))) == pytest.approx(7 / 2)
    assert float(nuclear(torch.tensor([[3.0, 4], [3, 4]]))) == pytest.approx(5 * math.sqrt(2) / 2)


def test_the_squared_distance_by_hand() -> None:
    p, q = torch.tensor([[1.0, 2], [0, 0]]), torch.tensor([[4.0, -2], [0, 0]])
    assert squared_distance(p, q).tolist() == [25.0, 0.0]


def test_margin_masks_the_label_by_infinity() -> None:
    logits = torch.tensor([[-5.0, -1.0, -3.0], [2.0, 1.0, 0.5], [0.0, 0.0, 0.0]])
    assert margin(logits, torch.tensor([1, 1, 2])).tolist() == [-2.0, 1.0, 0.0]


@given(seed=st.integers(0, 10_000))
def test_margin_is_positive_exactly_where_the_class_is_wrong(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logits, y = torch.randn(16, 6, generator=g), torch.randint(0, 6, (16,), generator=g)
    assert torch.equal(margin(logits, y) > 0, logits.argmax(1) != y)


def test_half_precision_logits_are_lifted_and_double_ones_kept() -> None:
    logits = torch.randn(3, 4)
    y = torch.tensor([0, 1, 2])
    assert cross_entropy(logits.bfloat16(), y).dtype == torch.float32
    assert kl(logits.half(), logits.half()).dtype == torch.float32
    assert margin(logits.double(), y).dtype == torch.float64


@given(st.integers(-38, 30), st.integers(-38, 30), st.integers(0, 2**32))
def test_a_cosine_does_not_depend_on_the_lengths(one: int, other: int, seed: int) -> None:
    a, b = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(seed))
    expected = torch.nn.functional.cosine_similarity(a, b, dim=1)
    assert torch.equal(cosines(a, b), expected)
    found = cosines(a * 10.0**one, b * 10.0**other)  # at 1e-38 with fewer digits
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_a_cosine_with_zero_is_0_and_goes_back() -> None:
    a = torch.tensor([[0.0, 0], [1e-20, 1e-20], [2e-30, 0]], requires_grad=True)
    found = cosines(a, torch.tensor([[3.0, 4], [3e-12, 4e-12], [0, 1]]))
    torch.testing.assert_close(found, torch.tensor([0, 1.4 / math.sqrt(2), 0]))
    found[1:].sum().backward()
    by_hand = torch.tensor([[0.0, 0], [-0.1 / math.sqrt(2) * 1e20, 0.1 / math.sqrt(2) * 1e20], [0, 0.5e30]])
    torch.testing.assert_close(a.grad, by_hand, rtol=1e-4, atol=0)
