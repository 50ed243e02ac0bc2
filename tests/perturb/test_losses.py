import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bsk.perturb.losses import cross_entropy, kl, margin


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[math.log(2.0), math.log(3.0), math.log(5.0)]])
    assert cross_entropy(logits, torch.tensor([1])).item() == pytest.approx(-math.log(0.3), rel=1e-6)


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
