"""Attacks that read from a slow device only every few steps give the same verdicts, images and passes."""

import pytest
import torch
from torch import Tensor, nn

from bsk import devices
from bsk.attacks.flags import AttackFlags
from bsk.attacks.leaving import Leaving
from bsk.attacks.outcome import NotFiniteError, Outcome
from bsk.attacks.registry import attack_named
from bsk.attacks.search import Search
from bsk.evaluation.calls import Checked
from bsk.perturb.draws import example_draws

N, EPS = 40, 0.2


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat the CPU as a device from which results are read every eight steps."""
    monkeypatch.setitem(devices.ANSWERS, "cpu", 8)


def model() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 12), nn.ReLU(), nn.Linear(12, 4)
    )
    with torch.no_grad():
        net[0].weight.mul_(4)
        net[0].bias.copy_(-net[0].weight.sum(dim=(1, 2, 3)) / 2)  # grey is in the middle
        net[5].bias.zero_()
    return net.requires_grad_(False)


def outcome(name: str, net: object, eps: float = EPS, **flags: object) -> Outcome:
    stage = attack_named(name, eps, AttackFlags(classes=4, **flags)).stages[-1]
    x = torch.rand(N, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    y = model()(x).argmax(dim=1)
    return stage(net, x, y, example_draws(0, name, range(N)), eps, 16)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        *(("pgd-1", {}), ("pgd-7", {}), ("pgd-8", {}), ("pgd-33", {}), ("pgd-20x3", {"step": 0.01}), ("fgsm", {})),
        *(("pgd-100", {"step": 0.05}), ("cw-30x2", {"start": "uniform"}), ("pgd-20", {"last_iterate": True})),
        *(("apgd-t", {}), ("apgd-ce", {"norm": "l2"})),
        *(
            pytest.param(name, flags, marks=pytest.mark.slow)
            for name, flags in (
                ("pgd-100", {}),
                ("pgd-300", {"early_stop": False}),
                ("apgd-ce", {}),
                ("apgd-dlr", {}),
                ("autoattack-rand", {}),
            )
        ),
    ],
)
def test_asking_seldom_gives_the_same_results_as_in_every_step(name: str, flags: dict, late: None, monkeypatch) -> None:
    """At radii where some fall early, some late, and some never."""
    seen = set()
    for eps in (0.05, 0.2):
        found = outcome(name, model(), eps, **flags)
        with monkeypatch.context() as usual:
            usual.setitem(devices.ANSWERS, "cpu", 1)
            expected = outcome(name, model(), eps, **flags)
        for what in ("fooled", "x_adv", "forward", "backward"):
            assert torch.equal(getattr(found, what), getattr(expected, what)), (eps, what)
        seen |= {int(expected.fooled.sum())}
    assert len(seen) > 1


def test_the_device_is_read_seldom(late: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks of 40 and 100 steps read from the device only a few times per eight steps, by any operation."""
    asked = 0

    def counting(name: str) -> None:
        usual = getattr(Tensor, name)

        def counted(self: Tensor, *arguments: object) -> object:
            nonlocal asked
            mask = any(isinstance(each, Tensor) and each.dtype == torch.bool for each in arguments)
            asked += name[2:-2] not in ("getitem", "setitem") or mask
            return usual(self, *arguments)

        monkeypatch.setattr(Tensor, name, counted)

    for name in ("__bool__", "__int__", "__float__", "__getitem__", "__setitem__", "item", "tolist", "nonzero"):
        counting(name)
    for attack, steps, flags in (
        ("pgd-40", 40, {"early_stop": False}),
        ("pgd-40", 40, {}),
        ("apgd-ce", 100, {}),
        ("apgd-t", 100, {}),
    ):
        asked = 0
        outcome(attack, model(), 0.001, **flags)  # nobody falls: rows that leave are read, each time
        assert asked <= (12 if attack == "pgd-40" and not flags else 3) * (steps // 8) + 8, attack


@pytest.mark.parametrize("name", ["pgd-50", "apgd-ce", "apgd-t"])
def test_each_claim_of_a_search_is_verified(name: str, late: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Approximate logits with errors that depend on the image: many claims are refuted, and later ones hold."""
    exact = model()
    off = torch.randn(36, 4, generator=torch.Generator().manual_seed(2))

    def rough(x: Tensor) -> Tensor:
        return exact(x) + 0.1 * (37 * x.flatten(1) @ off).sin()

    found = outcome(name, Search(rough, exact), 0.05)
    monkeypatch.setitem(devices.ANSWERS, "cpu", 1)
    expected = outcome(name, Search(rough, exact), 0.05)
    for what in ("fooled", "x_adv", "forward", "backward"):
        assert torch.equal(getattr(found, what), getattr(expected, what)), what
    assert 0 < int(expected.fooled.sum()) < N


def test_the_first_wrong_row_of_an_example_is_the_one_that_is_kept(late: None) -> None:
    """Three examples of two rows; the second one falls by its second row, then by its first: by hand."""
    x = torch.arange(3.0)[:, None, None, None] / 10
    tally, y = Outcome.begin(x), torch.zeros(3, dtype=torch.long)
    leave, owner = Leaving(lambda x: x, tally, y), torch.tensor([0, 0, 1, 1, 2, 2])
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    rows = torch.arange(6.0)[:, None, None, None] / 100
    leave.count(owner, 1, 1)
    assert leave(owner, rows, torch.tensor([right, right, right, wrong, right, right]), y[owner]) is None
    leave.count(owner, 1, 1)
    stays = leave(owner, rows + 0.5, torch.tensor([right, right, wrong, right, right, wrong]), y[owner], now=True)
    assert stays.tolist() == [True, True, False, False, False, False]
    assert tally.fooled.tolist() == [False, True, True]
    assert tally.x_adv.flatten().tolist() == pytest.approx([0.0, 0.03, 0.55])
    assert tally.forward.tolist() == tally.backward.tolist() == [4, 2, 4]


def test_a_logit_that_is_not_finite_is_reported_at_the_latest_at_the_end(late: None) -> None:
    values = iter([0.0, float("nan"), *[0.0] * 20])
    checked = Checked(lambda x: x.flatten(1)[:, :2] + next(values))
    for _ in range(3):
        checked(torch.rand(2, 1, 2, 2))
    with pytest.raises(NotFiniteError):
        checked.settle()
    with pytest.raises(NotFiniteError):
        for _ in range(8):
            checked(torch.rand(2, 1, 2, 2))
