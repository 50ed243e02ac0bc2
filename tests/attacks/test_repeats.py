"""PGD that stops when its iterates repeat gives the same images and verdicts as PGD with all its steps."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bsk.attacks import repeats
from bsk.attacks.outcome import Outcome
from bsk.attacks.pgd import pgd
from bsk.attacks.repeats import Repeats
from bsk.evaluation.calls import exact, steady
from bsk.models.small import cnn
from bsk.perturb.draws import example_draws

CPU = torch.device("cpu")
EPS = 0.06


def robust(seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network, images and labels of which about half stand."""
    torch.manual_seed(seed)
    model = cnn(5, 1, 8, width=4).eval().requires_grad_(False)
    x = torch.rand(24, 1, 8, 8)
    return model, x, model(x).argmax(dim=1)


def attacked(model: nn.Module, x: Tensor, y: Tensor, early_stop: bool, **more) -> Outcome:
    given = {"eps": EPS, "step": EPS / 4, "steps": 60, **more}
    with exact(model):  # a row's bits are then its own, whatever else is in the batch
        draws = example_draws(0, "pgd", list(range(len(x))), CPU)
        return pgd(steady(model), x, y, draws, early_stop=early_stop, **given)


def same(a: Outcome, b: Outcome) -> bool:
    return torch.equal(a.fooled, b.fooled) and torch.equal(a.x_adv, b.x_adv)


@pytest.mark.parametrize("steps", [1, 61, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (60, 63))])
@pytest.mark.parametrize("more", [{}, {"loss": "margin"}, {"restarts": 3}, {"start": "uniform"}])
def test_images_and_verdicts_equal_those_without_early_stopping(steps: int, more: dict) -> None:
    found = [attacked(*robust(), early_stop, steps=steps, **more) for early_stop in (True, False)]
    assert same(*found)
    early, plain = (int(each.forward.sum()) for each in found)
    stands = ~found[1].fooled
    assert bool(stands.any()) and early <= plain
    if steps >= 60:
        assert not bool(stands.all())
        assert early < 0.8 * plain, "most of those that stand repeat"
        whole = (steps + 1) * more.get("restarts", 1)
        assert (found[1].forward[stands] == whole).all() and (found[0].forward[stands] < whole).any()
    assert (found[0].forward - found[0].backward >= 0).all()


@settings(max_examples=15)
@given(st.integers(0, 1000), st.sampled_from([0.25, 0.3, 0.1]), st.integers(1, 50))
def test_early_stopping_is_exact_for_any_network_and_steps(seed: int, part: float, steps: int) -> None:
    model, x, y = robust(seed)
    assert same(*(attacked(model, x[:6], y[:6], early, step=EPS * part, steps=steps) for early in (True, False)))


def test_an_equal_hash_alone_is_not_a_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_bits", lambda x: torch.zeros(len(x), 4, dtype=torch.int32))  # all collide
    assert same(*(attacked(*robust(), early) for early in (True, False)))


@pytest.mark.parametrize("period", [1, 2, 3, 5])
@pytest.mark.parametrize("steps", [20, 21, 24])
def test_a_stopped_row_has_the_image_of_the_last_step(period: int, steps: int) -> None:
    # iterates 0 1 2 3, and from then on round in a circle of this period; a second row that never repeats
    circle = lambda i: i if i < 4 else 4 + (i - 4) % period  # noqa: E731
    path = [torch.tensor([float(circle(i)), float(i)]).view(2, 1, 1, 1) for i in range(steps + 1)]
    watched, left = Repeats(path[0], steps), [0, 1]
    ends = {}
    for i in range(steps):
        ended = watched.ended(path[i][left], i, path[i - 1][left].flatten(1) if i else None)
        if ended is None:
            continue
        for row, stops in zip(left, ended.tolist(), strict=True):
            if stops:
                ends[row] = (i, float(path[i][row]))
        watched.keep(~ended)
        left = [row for row, stops in zip(left, ended.tolist(), strict=True) if not stops]
    assert left == [1] and ends[0][1] == float(path[steps][0])
    assert ends[0][0] <= 4 + 3 * period, "met again after one round, sure after two, at its end before three"


@pytest.mark.parametrize("every", [1, 8])
def test_equal_images_after_different_logits_are_no_repeat(every: int) -> None:
    """Both rows go from 0 to 1 and back; the logits of the second are random."""
    watched, ended = Repeats(torch.zeros(2, 1, 1, 1), 40, every), None
    for i in range(40):
        logits = torch.tensor([[float(i % 2)], [float(torch.rand(()))]]) if i else None
        ended = watched.ended(torch.full((2, 1, 1, 1), float(i % 2)), i, logits)
        if ended is not None:
            break
    assert ended is not None and ended.tolist() == [True, False]


def test_a_random_model_is_called_in_all_steps_though_its_images_repeat() -> None:
    """Its logits point the same way with another size each time, so that all iterates are those of the corner."""

    class Linear(nn.Module):
        def __init__(self, noise: float) -> None:
            super().__init__()
            self.noise = noise

        def forward(self, z: Tensor) -> Tensor:
            return (1 + self.noise * torch.rand(())) * z.flatten(1) @ torch.tensor([[1.0, -1.0]] * 4)

    torch.manual_seed(1)
    x, y = torch.full((3, 1, 2, 2), 0.9), torch.zeros(3, dtype=torch.long)
    still, noisy, whole = (attacked(Linear(*how), x, y, early) for *how, early in ((0, True), (1, True), (1, False)))
    assert not noisy.fooled.any() and torch.equal(noisy.backward, whole.backward)
    assert (still.backward < noisy.backward).all()


def test_a_random_model_is_called_as_long_as_its_images_change() -> None:
    model, x, y = robust()

    class Noisy(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return model(z + 0.05 * torch.randn_like(z))

    torch.manual_seed(1)
    found = attacked(Noisy(), x, y, True)
    assert (found.forward[~found.fooled] >= 3).all()
    assert ((found.x_adv - x).abs() <= EPS + 1e-6).all()


def test_the_record_says_how_many_stopped_and_the_key_is_that_of_all_steps(call, toy, trained, tmp_path) -> None:
    def measured(*words: object) -> dict:
        words = (
            "evaluate",
            trained,
            "--data",
            toy,
            "--eps",
            "0.03",
            "--attack",
            "pgd-100",
            "--quiet",
            *words,
        )
        return json.loads(call(*words).stdout)

    early, plain = measured(), measured("--no-early-stop")
    assert early["correct"] == plain["correct"] and early["accuracy"] > 0
    assert early["forward_passes"] < plain["forward_passes"] and "repeats" not in plain
    found = early["repeats"]
    assert 0 < found["stopped"] <= found["standing"] == round(early["accuracy"] * early["n"])
    assert 3 < found["passes_median"] < 101
    assert "early_stop" not in early["attack_parameters"] and plain["attack_parameters"]["early_stop"] is False
    assert "repeats" not in measured("--attack", "fgsm")


def test_only_pgd_and_cw_have_the_flag(call) -> None:
    line = call("evaluate", "m.safetensors", "--attack", "apgd-ce", "--no-early-stop", check=2).line
    assert "--early-stop: no attack here takes it; it is for pgd, cw" in line


@pytest.mark.parametrize("rows", [8, 16])
def test_limiting_the_rows_per_call_changes_no_result(rows: int) -> None:
    model, x, y = robust()
    lengths = []

    def heard(images: Tensor) -> Tensor:
        if images.requires_grad:
            lengths.append(len(images))
        return steady(model)(images)

    with exact(model):
        draws = example_draws(0, "pgd", list(range(len(x))), CPU)
        found = pgd(heard, x, y, draws, eps=EPS, step=EPS / 4, steps=60, rows=rows)
    assert same(found, attacked(model, x, y, True)) and max(lengths) == rows
