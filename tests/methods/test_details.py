"""Details of methods that five updates do not cover: parts of losses, zero gradients, limits of settings."""

import math

import pytest
import torch
from calls import EPS, Fixed, called, pixels, remembered
from torch import Tensor, nn

from bsk.contract.network import Network
from bsk.errors import UsageError
from bsk.methods.registry import ABOUT, METHODS, names, summary
from bsk.perturb.draws import BatchDraws, generator
from bsk.perturb.losses import cross_entropy
from bsk.perturb.passes import PassCounter
from bsk.training.bound import bind
from bsk.training.profile import profile

SEES_THE_FIRST = [[3.0, 0.0], [-2.0, 0.0]]  # logits that do not depend on the second pixel
STEPS = {"at": 0.07, "trades": 0.07, "mart": 0.07, "fast-at-plus": 0.07}


@pytest.mark.parametrize(
    "name",
    ["at", "fast-at", "fast-at-plus", "bs-at", "n-fgsm", "free-at", "gradalign", "fgsm-pgi", "liet"]
    + ["zero-grad", "multi-grad", "ssat", "rs-cs", "elle", "rs-aaer", "n-aaer", "uap", "cuap", "atas", "dynamic-at"],
)
def test_the_robust_part_is_the_cross_entropy_at_the_end(name: str) -> None:
    model, x, y = Fixed([[2, -1], [-3, 1]]), pixels((0.5, 0.2), (0.1, 0.8)), torch.tensor([0, 1])
    found = called(name, model, x, y, update=1)
    assert found.natural is None and found.x_adv is not None
    torch.testing.assert_close(found.robust, cross_entropy(model(found.x_adv), y))


@pytest.mark.parametrize("name", names())
def test_a_pixel_without_gradient_stays_where_the_start_has_put_it(name: str) -> None:
    x, y, memory = pixels((0.5, 0.3), (0.4, 0.6)), torch.tensor([0, 1]), remembered(2)
    seen = memory.batch(torch.arange(2))
    found = called(name, Fixed(SEES_THE_FIRST), x, y, memory=seen, update=1)
    found.total.sum().backward()
    seen.commit()
    assert found.start is not None and found.x_adv is not None
    moved, begun = ((each - x)[..., 1] for each in (found.x_adv, found.start))
    parts = [k / 3 for k in range(4)] if name == "ssat" else [1.0]
    assert torch.stack([(moved - part * begun).abs() < 1e-12 for part in parts]).any(dim=0).all()
    for what, kept in {**memory.rows, **memory.shared}.items():  # what the next batch starts with
        if what in ("u", "prior", "delta"):
            assert torch.allclose(kept[..., 1].abs(), begun.abs() if what != "u" else torch.tensor(1.25 * EPS).double())
        elif kept.dim() == 4:
            assert not kept[..., 1].any()


@pytest.mark.parametrize("start", ["backward", "noise", "zero"])
@pytest.mark.parametrize("name", list(STEPS))
def test_a_start_is_the_same_for_every_method(name: str, start: str) -> None:
    model, x, y = Fixed([[2, -1], [-3, 1]]), pixels((0.5, 0.2), (0.1, 0.8)), torch.tensor([0, 1])
    hyper = {"start": start, "step": 0.07, "steps": 2, "gamma": 30.0}
    found, other = (called(each, model, x, y, hyper) for each in (name, "bs-at"))
    assert torch.equal(found.start, other.start)
    if name in ("at", "fast-at-plus", "mart"):  # all climb the cross entropy
        assert torch.equal(found.x_adv, other.x_adv) and not torch.equal(found.x_adv, found.start)


def test_the_size_of_the_random_output_matters() -> None:
    model, x, y = Fixed([[2, -1], [-3, 1]]), pixels((0.5, 0.2), (0.1, 0.8), (0.4, 0.4)), torch.tensor([0, 1, 0])
    z, psi = model(x).detach(), BatchDraws(generator(1)).uniform(model(x).detach())
    found = called("bs", model, x, y, {"gamma": 9.0}, BatchDraws(generator(1))).start
    gradient = (
        (z.softmax(1) - (z + 9 * psi).softmax(1)) @ model.weight
    ).detach()  # of the KL divergence, in closed form
    torch.testing.assert_close(found, (x - EPS * gradient.view_as(x).sign()).clamp(0, 1))


def test_trades_without_a_step_ends_where_it_starts() -> None:
    found = called("trades", Fixed([[2, -1], [-3, 1]]), pixels((0.5, 0.2)), torch.tensor([0]), {"steps": 0})
    assert found.start is not None and torch.equal(found.x_adv, found.start)


def test_trades_passes_the_image_once_for_start_and_ascent() -> None:
    counter, x = PassCounter(), pixels((0.5, 0.2), (0.1, 0.8))
    net = Network(Fixed([[2, -1], [-3, 1]]), counter=counter)
    called("trades", net, x, torch.tensor([0, 1]), {"steps": 3, "start": "backward"})
    assert counter.forward == 2 * (1 + 3 + 2)


def test_an_accuracy_that_fell_by_just_the_drop_has_not_fallen() -> None:
    model, x, y = Fixed([[2, -1], [-3, 1]]), pixels((0.5, 0.2)), torch.tensor([0])
    for fall, rescued in ((0.25, 0), (0.5, 1)):
        seen = remembered(1).batch(torch.arange(1))
        seen.numbers |= {"accuracy": 0.75, "other": 1.0}
        called("fast-at-plus", model, x, y, {"rescue_drop": 0.25}, memory=seen, validate=lambda *_, f=fall: 0.75 - f)
        assert seen.logged == {"rescued_updates": rescued} and seen.numbers["other"] == 1.0


def test_nothing_is_rescued_before_the_first_check() -> None:
    seen = remembered(1).batch(torch.arange(1))
    called("fast-at-plus", Fixed([[2, -1], [-3, 1]]), pixels((0.5, 0.2)), torch.tensor([0]), memory=seen, update=1)
    assert seen.logged == {"rescued_updates": 0}


class Steps(nn.Module):
    """Logits that rise with the first pixel from 1/2 on, and do not change below."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        risen = self.weight * (x.flatten(1)[:, 0] - 0.5).relu()
        return torch.stack([risen, torch.zeros_like(risen)], dim=1)


def test_an_image_of_which_one_gradient_is_zero_has_no_angle() -> None:
    """At 0.49 the gradient is zero, near it perhaps not; at 0.51 it may be the other way; at 0.7 both point alike."""
    x, y, met = pixels((0.49, 0.5), (0.51, 0.5), (0.7, 0.5)), torch.tensor([0, 0, 1]), set()
    for seed in range(6):
        near = (x + EPS * BatchDraws(generator(seed)).uniform(x)).flatten(1)[:2, 0] > 0.5
        found = called("gradalign", Steps(), x, y, {"beta": 5.0}, BatchDraws(generator(seed)))
        assert found.robust is not None
        torch.testing.assert_close(found.total, found.robust)
        met |= set(zip((0.49, 0.51), near.tolist(), strict=True))
    assert len(met) == 4


def test_the_noise_of_nuat_is_as_large_as_it_is_told() -> None:
    x = pixels((0.5, 0.3), (0.4, 0.6))
    found = called("nuat", Fixed([[2, -1], [-3, 1]]), x, torch.tensor([0, 1]), {"noise": 0.25})
    assert found.start is not None
    torch.testing.assert_close((found.start - x).abs(), torch.full_like(x, 0.25 * EPS))


def test_a_pattern_is_of_the_labels_as_training_smooths_them() -> None:
    """At grey the label 0 has probability 0.8: less than 1, and more than the 0.6 that smoothing by 0.6 leaves it."""
    weight = [[2 * math.log(8), 0.0], [0.0, 0.0], [0.0, 0.0]]
    signs = []
    for smoothing in (0.0, 0.6):
        seen = remembered(1).batch(torch.arange(1))
        net = Network(Fixed(weight), smoothing=smoothing)
        called("liet", net, pixels((0.5, 0.5)), torch.tensor([0]), memory=seen)
        signs.append(float(seen.shared["pattern"][0, 0, 0, 0]))
    assert signs == [-1.0, 1.0]


class Attentive(nn.Module):
    """One layer of attention over the rows of an image; its formula is written out, or is torch's function."""

    def __init__(self, written_out: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project, self.last, self.written_out = nn.Linear(8, 24), nn.Linear(64, 3), written_out

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (each.unsqueeze(1) for each in self.project(x[:, 0]).split(8, dim=2))
        if self.written_out:
            z = (q @ k.transpose(2, 3) / math.sqrt(8)).softmax(dim=3) @ v
        else:
            z = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.last(z.flatten(1))


@pytest.mark.parametrize("name", ["gradalign", "llr"])
def test_methods_of_second_order_train_networks_with_attention(name: str) -> None:
    """The fused kernels of torch's attention have no second derivative."""
    x, y = torch.rand(4, 1, 8, 8, generator=generator(1)), torch.tensor([0, 1, 2, 0])
    gradients = []
    for written_out in (True, False):
        model = Attentive(written_out)
        called(name, model, x, y).total.sum().backward()
        gradients.append(model.project.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_without_growing_the_radius_of_llr_is_eps_from_the_first_update_on() -> None:
    x, y = torch.rand(4, 1, 8, 8, generator=generator(1)), torch.tensor([0, 1, 2, 0])
    early, whole, late = (
        called("llr", Attentive(True), x, y, {"growing": growing}, BatchDraws(generator(2)), progress=progress).start
        for growing, progress in ((0.0, 0.001), (0.5, 1.0), (0.5, 0.25))
    )
    assert torch.equal(early, whole) and (late - x).abs().max() < 0.6 * (whole - x).abs().max()


def test_an_unknown_hyper_parameter_is_named_as_a_flag() -> None:
    with pytest.raises(UsageError, match=r"^--rescue-every: natural has no rescue_every; it has no hyper-parameters$"):
        bind("natural", EPS, {"rescue_every": 3})


def test_ids_of_one_function_are_told_apart() -> None:
    found = {name: summary(name) for name in names()}
    assert len(set(found.values())) == len(found) and all(found.values())
    assert "pseudo-labelled" in found["rst"] and ABOUT.keys() < METHODS.keys()


def test_a_method_without_docstring_has_no_summary(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "silent.py").write_text("def method(net, x, y, *, eps, draws): return net.cross_entropy(net(x), y)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert summary("silent:method") == "" and summary("natural") == "Cross entropy on the clean images."


def test_a_profile_counts_every_validation() -> None:
    assert profile(bind("fast-at-plus", EPS, {"rescue_every": 5}), (1, 2, 2), 3).validations == 4 / 20
