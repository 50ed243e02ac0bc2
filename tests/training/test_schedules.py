import pytest

from bsk.training.schedules import SCHEDULES, constant, cosine, cyclic, piecewise


def test_piecewise_by_hand() -> None:
    rates = [piecewise(t, 15, 0.1, 0.9).lr for t in range(15)]  # milestones 7 and 11, whole
    assert rates == pytest.approx([0.1] * 7 + [0.01] * 4 + [0.001] * 4)


def test_cyclic_by_hand() -> None:
    rates = [cyclic(t, 4, 0.2, 0.9) for t in range(4)]
    assert [r.lr for r in rates] == pytest.approx([0.05, 0.15, 0.15, 0.05])
    assert [r.momentum for r in rates] == pytest.approx([0.875, 0.825, 0.825, 0.875])


def test_the_momentum_of_cyclic_never_falls_below_0() -> None:
    assert [cyclic(t, 4, 0.2, 0.05).momentum for t in range(4)] == pytest.approx([0.025, 0, 0, 0.025])
    assert {cyclic(t, 10, 0.2, 0.0).momentum for t in range(10)} == {0.0}


def test_cosine_by_hand() -> None:
    assert [cosine(t, 4, 0.1, 0.9).lr for t in range(4)] == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447], rel=1e-5)


def test_constant_by_hand() -> None:
    assert {constant(t, total, 0.1, 0.9) for t in range(4) for total in (4, 9)} == {(0.1, 0.9)}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 3, 5865])
def test_every_rate_is_usable(name: str, total: int) -> None:
    for t in {0, total // 2, total - 1}:
        lr, momentum = SCHEDULES[name](t, total, 0.1, 0.9)
        assert 0 < lr <= 0.1 and 0.79 <= momentum <= 0.9
