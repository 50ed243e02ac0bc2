"""Attacks that search in low precision: only images misclassified in fp32 count, and the record has the precision."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from bsk.attacks.flags import AttackFlags
from bsk.attacks.outcome import Outcome
from bsk.attacks.registry import AUDIT, Stage, attack_named
from bsk.attacks.search import Search, ended, misclassified
from bsk.errors import InputError
from bsk.evaluation.calls import exact, rough, steady
from bsk.models.modes import in_precision
from bsk.models.registry import network
from bsk.models.small import cnn
from bsk.perturb.ascent import Model
from bsk.perturb.draws import example_draws
from bsk.perturb.gradients import gradient_of

CPU = torch.device("cpu")
EPS = 0.08
NAMES = ["fgsm", "pgd-10", "cw-10", "apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square"]


def given(seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network, images and labels, all of them right."""
    torch.manual_seed(seed)
    model = cnn(5, 1, 8, width=4).eval().requires_grad_(False)
    x = torch.rand(24, 1, 8, 8)
    return model, x, model(x).argmax(dim=1)


def stage(name: str, search: str = "bf16") -> Stage:
    flags = AttackFlags(classes=5, queries=200 if name == "square" else None, search=search)
    return attack_named(name, EPS, flags).stages[-1]


def attacked(name: str, model: Model, x: Tensor, y: Tensor, eps: float = EPS) -> Outcome:
    return stage(name)(model, x, y, example_draws(0, name, list(range(len(x))), CPU), eps)


def says(right: bool, y: int = 0) -> Model:
    """Return a model, with a gradient, that calls every image right, or none, if all labels are y."""

    def forward(x: Tensor) -> Tensor:
        favour = 10.0 * nn.functional.one_hot(torch.tensor(y if right else y + 1), 5)
        return favour + x.flatten(1)[:, :5]

    return forward


@pytest.mark.parametrize("name", NAMES)
def test_fallen_images_are_misclassified_by_the_exact_model_and_in_the_ball(name: str) -> None:
    model, x, y = given()
    eps = 0.2 if name == "square" else EPS  # the weakest
    with exact(model):
        found = attacked(name, Search(rough(model, "bf16"), model), x, y, eps)
        fp32 = attacked(name, model, x, y, eps)
        assert torch.equal(found.fooled, model(found.x_adv).argmax(dim=1) != y)
    assert 0 < int(found.fooled.sum()) < len(x), "some fall, some stand"
    assert int((found.fooled != fp32.fooled).sum()) <= 1
    assert float((found.x_adv - x).abs().max()) <= eps + 1e-6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lost", [False, True])
def test_claims_that_the_exact_model_refutes_do_not_count(name: str, lost: bool) -> None:
    _, x, y = given()
    claims = says(False)
    liar = Search((lambda x: claims(x) + torch.inf) if lost else claims, exact=says(True))
    found, honest = (attacked(name, each, x, torch.zeros_like(y)) for each in (liar, says(True)))
    assert not bool(found.fooled.any())
    assert lost or (found.forward > honest.forward).all(), "each judgement is a pass"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fab-t"])
def test_the_end_of_a_search_is_checked_by_the_exact_model(name: str) -> None:
    _, x, y = given()
    blind = Search(says(True), exact=says(False))
    assert bool(attacked(name, blind, x, torch.zeros_like(y)).fooled.all())


@pytest.mark.parametrize("name", ["resnet18-4", "wrn-10-1", "cnn"])
def test_rough_logits_and_gradients_of_a_row_do_not_depend_on_the_others(name: str) -> None:
    torch.manual_seed(0)
    model = network(name, 10, 3, (32, 32))
    x = torch.rand(40, 3, 32, 32)
    with exact(model):
        low = steady(rough(model, "bf16"), 40)

        def at(x: Tensor) -> tuple[Tensor, Tensor]:
            leaf = x.clone().requires_grad_()
            logits = low(leaf)
            return logits.detach(), gradient_of(logits.logsumexp(dim=1) - logits[:, 0], leaf)

        logits, gradients = at(x)
        for n in range(1, 40):
            some, theirs = at(x[:n])
            assert torch.equal(some, logits[:n]) and torch.equal(theirs, gradients[:n]), n


def test_the_last_layer_is_not_rounded() -> None:
    model, x, _ = given()
    with exact(model):
        low, whole = rough(model, "bf16")(x), model(x)
    assert not torch.equal(low, whole) and torch.allclose(low, whole, atol=0.05)
    assert not torch.equal(low, low.bfloat16().float()), "logits of 8 bits would tie in Square"


def test_gradients_in_fp16_do_not_vanish_and_have_their_own_size() -> None:
    """Losses of up to 1e-9, as of an image that the network is sure of; the least number of fp16 is 6e-8."""
    model, x, y = given()
    sizes = 10.0 ** -torch.arange(9, 33).clamp(max=12)
    low, exact_one, plain = (
        gradient_of(sizes * nn.functional.cross_entropy(f(leaf), y, reduction="none"), leaf).flatten(1)
        for f in (rough(model, "fp16"), model, in_precision(model, "fp16"))
        for leaf in [x.clone().requires_grad_()]
    )
    assert not plain.any() and (exact_one != 0).any(dim=1).all()
    error = (low - exact_one).norm(dim=1) / exact_one.norm(dim=1)
    assert error.max() < 0.02


def test_a_network_in_fp64_is_searched_too_and_one_that_fails_in_half_precision_is_named() -> None:
    model, x, y = given()

    class Double(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = cnn(5, 1, 8, width=4).eval().double()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.double())

    with exact(double := Double()):
        assert torch.isfinite(rough(double, "bf16")(x)).all()

    def fails(x: Tensor) -> Tensor:
        out = torch.zeros(len(x), 5)
        out[:] = model(x)
        out.index_put_((torch.arange(len(x)),), nn.functional.conv2d(x, torch.ones(5, 1, 8, 8)).flatten(1))
        return out

    assert rough(fails, "fp32")(x).shape == (24, 5)
    with pytest.raises(
        InputError, match=r"^the model fails in bf16 \(Index put requires.*\); leave out --search bf16$"
    ):
        rough(fails, "bf16")(x)
    with pytest.raises(RuntimeError, match="only in fp32 too"):
        rough(lambda x: (_ for _ in ()).throw(RuntimeError("only in fp32 too")), "fp32")(x)


def test_keys_and_records_contain_the_search(call, toy, trained) -> None:
    def measured(*flags: str) -> dict:
        words = ("--data", toy, "--attack", "screen", "--limit", 16, "--no-checks", "--quiet")
        return json.loads(call("evaluate", trained, *words, *flags).stdout)

    plain, fp32, bf16 = measured(), measured("--search", "fp32"), measured("--search", "bf16")
    assert plain["key"] == fp32["key"] != bf16["key"]
    assert all("search" not in stage for stage in plain["attack_parameters"].values() if isinstance(stage, dict))
    assert bf16["attack_parameters"]["apgd-ce"]["search"] == bf16["attack_parameters"]["apgd-t"]["search"] == "bf16"
    assert bf16["precision"] == "fp32", "which judges"


def test_only_claims_and_images_that_moved_are_judged_each_for_one_pass() -> None:
    """None of four correct rows; of a wrong and a non-finite row both, with the logits of the exact model."""
    x, y, rows = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 1, 0]), torch.arange(4)
    right = nn.functional.one_hot(y, 2).float()
    asked: list[int] = []

    def exact_model(images: Tensor) -> Tensor:
        asked.append(len(images))
        return torch.tensor([[1.0, 0.0]]).expand(len(images), -1)

    model, tally = Search(lambda images: right, exact_model), Outcome.begin(x)
    assert not misclassified(model, tally, rows, x, right, y).any() and asked == []
    claims = right.clone()
    claims[1], claims[2] = torch.tensor([1.0, 0.0]), torch.tensor([torch.nan, 0.0])
    assert misclassified(model, tally, rows, x, claims, y).tolist() == [False, True, True, False]
    assert asked == [2] and tally.forward.tolist() == [0, 1, 1, 0] and not tally.backward.any()
    moved = Outcome.begin(x)
    moved.x_adv[1:3] += 0.1 * (0.5 - x[1:3]).sign()
    moved.fooled[2] = True
    found = ended(model, x, y, moved)
    assert found.fooled.tolist() == [False, True, True, False] and asked == [2, 1]
    assert found.forward.tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(("flags", "audit", "within"), [({"audit": 30}, 30, None), ({"within": "0.5"}, None, 0.5)])
def test_an_audit_is_autoattack_with_a_sample_for_its_last_stages(flags, audit, within) -> None:
    whole, found = (attack_named("autoattack", EPS, AttackFlags(classes=5, **each)) for each in ({}, flags))
    assert (whole.name, whole.audit, whole.within, whole.whole) == ("autoattack", None, None, len(whole.stages))
    assert (found.name, found.audit, found.within, found.whole) == (AUDIT, audit, within, len(whole.stages) - 2)
    assert found.stages == whole.stages and set(whole.notices) < set(found.notices)
    assert attack_named("screen", EPS, AttackFlags(classes=5, **flags)).name == "screen"


@pytest.mark.parametrize("fast", ["bf16", "fp32"])
def test_auto_uses_the_fast_precision_only_for_apgd(call, toy, trained, monkeypatch, fast: str) -> None:
    monkeypatch.setattr("bsk.evaluation.settings.fast_precision", lambda device: fast)
    words = ("--data", toy, "--limit", 16, "--eps", "0.03", "--no-checks", "--attack")
    found = call("evaluate", trained, *words, "apgd-ce,pgd-100,square", "--search", "auto", "--queries", 20)
    apgd, pgd, square = (json.loads(line) for line in found.stdout.splitlines())
    assert "search" not in square["attack_parameters"], "rounded margins mislead it"
    assert apgd["attack_parameters"].get("search", "fp32") == fast and "slow" not in found.stderr
    assert "search" not in pgd["attack_parameters"] and pgd["repeats"]["stopped"] > 0
    slow = call("evaluate", trained, *words, "pgd-5", "--search", "fp16")
    assert f"--search fp16: slow on this device; auto uses {fast}" in slow.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--attack", "rays"], "--search: no attack here takes it; it is for fgsm, pgd, cw, apgd, fab, square"),
        (["--attack", "apgd-ce", "--engine", "reference"], "--engine reference: it searches in fp32"),
        (["--attack", "pgd-20", "--search", "int8"], "int8"),
    ],
)
def test_attacks_without_a_search_refuse_the_flag(call, words: list[str], line: str) -> None:
    assert line in call("evaluate", "m.safetensors", "--search", "bf16", *words, check=2).line
