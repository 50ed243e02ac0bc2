"""Deceptive models, each with one defect, and honest ones: which of them the checks doubt."""

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bsk.contract.method import Memory
from bsk.contract.network import Network
from bsk.data.sources import prepare
from bsk.data.store import DataFile, Split, open_data
from bsk.evaluation.diagnostics import FEW, PARTS, SIGNS, Diagnostics, late_doubts, look_at
from bsk.models.foreign import foreign_model
from bsk.models.registry import build
from bsk.perturb.draws import BatchDraws, generator
from bsk.training.bound import UpdateContext, bind

pytestmark = pytest.mark.checks
CPU = torch.device("cpu")
WORDS = {  # what a doubt about each says
    "zero": "gradient is zero",
    "bounds": "pixels of 0 and 1",
    "wrong": "gradient is wrong",
    "black box": "Square fools",
    "early": "after its first 10 steps",
    "late": "more after 50 steps",
    "cross entropy": "on cross-entropy misses",
    "margin": "on the margin misses",
    "random": "output is random",
    "batch": "depends on the rest of the batch",
    "softmax": "looks like probabilities",
    "changes": "change during evaluation",
    "flat": "are all equal, so the first class is predicted",
}


def look(model: nn.Module, split: Split, eps: float, seed: int = 0, **more: Any) -> Diagnostics:
    return look_at(model, split, eps=eps, seed=seed, device=CPU, **more)


def kinds(seen: Diagnostics) -> set[str]:
    """Return which doubts there are, each one line that says what to do."""
    assert all("\n" not in doubt and len(doubt) < 120 and (":" in doubt or ";" in doubt) for doubt in seen.doubts)
    found = [[kind for kind, words in WORDS.items() if words in doubt] for doubt in seen.doubts]
    assert all(len(each) == 1 for each in found), seen.doubts
    return {kind for each in found for kind in each}


def cut(split: Split, first: int, n: int = 64) -> Split:
    rows = slice(first, first + n)
    return Split(split.images[rows], split.labels[rows], split.index[rows])


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataFile:
    path = tmp_path_factory.mktemp("digits") / "digits.safetensors"
    prepare("digits", None, path)
    return open_data(path)


@pytest.fixture(scope="module")
def test_split(digits: DataFile) -> Split:
    return digits.split("test")


def train(data: DataFile, method: str, epochs: int = 10, eps: float = 0.1) -> nn.Module:
    split, bound = data.split("train"), bind(method, eps)
    model = build("cnn-8", classes=10, channels=1, size=8, mean=data.mean, std=data.std, seed=0)
    batches = [
        rows
        for epoch in range(epochs)
        for rows in torch.randperm(len(split.labels), generator=generator(epoch)).split(64)[:-1]
    ]
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.2, total_steps=len(batches))
    for step, rows in enumerate(batches):
        x, y = split.images[rows] / 255, split.labels[rows]
        context = UpdateContext(Memory().batch(rows), step, 0, 1.0, lambda attack, turn: 1.0)
        optimiser.zero_grad()
        bound(Network(model), x, y, BatchDraws(generator(step)), context).total.mean().backward()
        optimiser.step()
        rate.step()
    return model.eval()


@pytest.fixture(scope="module")
def models(digits: DataFile) -> dict[str, nn.Module]:
    torch.set_num_threads(1)
    return {method: train(digits, method) for method in ("natural", "fast-at", "bs")}


def check_room(seen: Diagnostics) -> None:
    """An honest model is not only undoubted but far below each threshold, or within a few images of zero."""
    assert seen.doubts == ()
    facts = seen.facts
    for name, share, of_fooled, _ in SIGNS:
        least = share if of_fooled is None else min(share, of_fooled * facts["fooled"])
        assert facts[name] <= 0.65 * least or round(facts[name] * facts["checked"]) < FEW, (name, facts)


@pytest.mark.parametrize("eps", [pytest.param(0.1, marks=pytest.mark.slow), 0.2])
@pytest.mark.parametrize("method", ["natural", "fast-at", "bs"])
def test_networks_trained_here_are_not_doubted(models, test_split: Split, method: str, eps: float) -> None:
    for first in (0, 128):
        check_room(look(models[method], cut(test_split, first), eps, seed=first, search="fp16"))


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Split:
    path = tmp_path_factory.mktemp("cifar") / "c.safetensors"
    prepare("cifar10", str(shared / "data" / "cifar10-subset-exact-python.tar.gz"), path, train_limit=10, val=10)
    return open_data(path).split("test")


@pytest.mark.slow
@pytest.mark.parametrize("eps", [2 / 255, 8 / 255])
@pytest.mark.parametrize(
    "name, weights", [("cnn-a", "cnn_a_adv.model"), ("resnet2b", "resnet2b.pth"), ("resnet20", "resnet20.th")]
)
def test_real_checkpoints_are_not_doubted(shared: Path, cifar: Split, name: str, weights: str, eps: float) -> None:
    model = foreign_model(name, shared / "models" / weights, classes=10, channels=3, size=32).model
    seen = look(model, cut(cifar, 64), eps, search="fp16")
    check_room(seen)
    assert (seen.facts["pgd_100"] == 0) == (name == "resnet20"), "the natural network falls, and rightly so"


class Bent(torch.autograd.Function):
    """The identity with a custom gradient."""

    @staticmethod
    def forward(ctx, x, bend):
        ctx.save_for_backward(x)
        ctx.bend = bend
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.bend(gradient, *ctx.saved_tensors), None


class Masked(nn.Module):
    """A network with a function applied to its images and one to its logits."""

    def __init__(
        self,
        network: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
    ) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.network(self.before(x)))


def bent(bend: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: Bent.apply(x, bend)


def shuffled(gradient: Tensor, x: Tensor) -> Tensor:
    """Replace the gradient by a pseudo-random pattern that depends only on the image."""
    return torch.sin(1e5 * x + 3)


def clamped(gradient: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of `x.clamp(0, 1)` as torch has it from 2.14 on."""
    return torch.where((x > 0) & (x < 1), gradient, 0.0)


def half_hidden(gradient: Tensor, x: Tensor) -> Tensor:
    """Add such a pattern to the gradient: PGD still succeeds, but less than it could."""
    return gradient + 3 * gradient.abs().mean(dim=(1, 2, 3), keepdim=True) * torch.sin(1e5 * x + 3)


def piecemeal(blocks: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the gradient for alternating parts of the pixels: correct, but slow for ascent."""
    turn = itertools.count()

    def bend(gradient: Tensor, x: Tensor) -> Tensor:
        block = torch.arange(gradient[0].numel()).view(gradient[0].shape) % blocks
        return torch.where(block == next(turn) % blocks, gradient, 0.0)

    return bend


def against(dense: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """Negate the gradient of the cross entropy (in all logits) or of the margin (in two logits)."""
    return lambda gradient, logits: torch.where(
        ((gradient != 0).sum(dim=1, keepdim=True) > 2) == dense, -gradient, gradient
    )


def abstaining(logits: Tensor) -> Tensor:
    """Return zeros for images of which the network is not sure."""
    return torch.where(logits.softmax(dim=1).amax(dim=1, keepdim=True) > 0.99, logits, 0.0)


MASKED: dict[str, tuple[Callable[[nn.Module], nn.Module], set[str], set[str]]] = {
    # a model, the doubts that it must raise, and those that it may raise too
    "logits x 1e4": (lambda m: Masked(m, after=lambda z: z * 1e4), {"zero"}, {"cross entropy"}),
    "logits x 1e6": (lambda m: Masked(m, after=lambda z: z * 1e6), {"zero"}, {"cross entropy"}),
    "quantised": (lambda m: Masked(m, before=lambda x: (x * 8).round() / 8), {"zero"}, {"black box"}),
    "softmax": (lambda m: Masked(m, after=lambda z: z.softmax(dim=1)), {"softmax"}, set()),
    "noise": (lambda m: Masked(m, before=lambda x: x + 0.05 * torch.randn_like(x)), {"random"}, set()),
    "dropout": (lambda m: Masked(m, before=lambda x: F.dropout(x, 0.1, training=True)), {"random"}, set()),
    "clamped": (lambda m: Masked(m, before=bent(clamped)), {"bounds"}, {"black box", "wrong"}),
    "uphill": (lambda m: Masked(m, before=bent(lambda g, x: -g)), {"wrong", "black box"}, set()),
    "shuffled": (lambda m: Masked(m, before=bent(shuffled)), {"wrong", "black box"}, set()),
    "half hidden": (lambda m: Masked(m, before=bent(half_hidden)), {"wrong"}, {"black box"}),
    "against cross entropy": (lambda m: Masked(m, after=bent(against(True))), {"cross entropy"}, set()),
    "against the margin": (lambda m: Masked(m, after=bent(against(False))), {"margin", "wrong"}, set()),
    "slow": (lambda m: Masked(m, before=bent(piecemeal(7))), {"early"}, {"late"}),
    "slower": (lambda m: Masked(m, before=bent(piecemeal(21))), {"late"}, {"early"}),
    "batch": (lambda m: Masked(m, after=lambda z: z - 0.2 * z.mean(dim=0)), {"batch"}, set()),
    "abstaining": (lambda m: Masked(m, after=abstaining), {"flat"}, {"zero", "margin", "cross entropy", "wrong"}),
}


@pytest.mark.parametrize("first", [0, pytest.param(128, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", MASKED)
def test_a_deceptive_model_is_doubted_for_its_reason(models, test_split: Split, name: str, first: int) -> None:
    torch.manual_seed(0)
    mask, must, may = MASKED[name]
    seen = look(mask(models["fast-at"]), cut(test_split, first), 0.2)
    assert must <= kinds(seen) <= must | may, (seen, name)


@pytest.mark.parametrize(("precision", "losing"), [("bf16", set()), ("fp16", {"large"})])
def test_a_search_that_loses_the_gradient_is_doubted(models, test_split: Split, precision: str, losing) -> None:
    """The first layer of `large` has outputs beyond 65,504; gradients of `sure` are below 6e-8, which is no loss."""
    plain = models["fast-at"]
    large = copy.deepcopy(plain)
    conv, norm = (next(m for m in large.modules() if isinstance(m, kind)) for kind in (nn.Conv2d, nn.BatchNorm2d))
    with torch.no_grad():
        for tensor, factor in ((conv.weight, 1e6), (norm.running_mean, 1e6), (norm.running_var, 1e12)):
            tensor.mul_(factor)  # the same function
    for name, model in {"plain": plain, "large": large, "sure": Masked(plain, after=lambda z: z * 3)}.items():
        few = {"parts": ("outputs", "gradients")}
        seen, fp32 = (look(model, cut(test_split, 0), 0.2, **few, **how) for how in ({"search": precision}, {}))
        assert (seen.facts["lost_in_search"] >= 0.05) is (name in losing), (name, seen)
        assert ("leave out --search" in " ".join(seen.doubts)) is (name in losing)
        assert {**seen.facts, "lost_in_search": None} == {**fp32.facts, "lost_in_search": None}


class Moving(nn.Module):
    """Batch norm that updates its running statistics in eval mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.zeros(1), persistent=False)
        self.register_buffer("var", torch.ones(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        F.batch_norm(x, self.mean, self.var, training=True, momentum=0.1)
        return self.network(x)


def test_a_model_that_changes_at_test_time_is_doubted_for_that(models, test_split: Split) -> None:
    seen = look(Moving(models["fast-at"]), cut(test_split, 0), 0.2)
    assert kinds(seen) == {"changes"} and seen.facts["changes_at_test_time"]


def test_the_model_is_left_as_it_was(models, test_split: Split) -> None:
    model = models["fast-at"].train()
    model.network[0].eval()
    model.network[0].weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    before = [tensor.clone() for tensor in model.state_dict().values()]
    noise = torch.get_rng_state()
    tf32 = torch.backends.cudnn.allow_tf32
    seen = [look(model, cut(test_split, 0), 0.2) for _ in range(2)]
    assert seen[0] == seen[1], "the same twice"
    assert modes == [module.training for module in model.modules()]
    assert wanted == [parameter.requires_grad for parameter in model.parameters()]
    assert all(map(torch.equal, before, model.state_dict().values()))
    assert all(parameter.grad is None or parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert torch.equal(noise, torch.get_rng_state()) and tf32 == torch.backends.cudnn.allow_tf32
    model.eval().requires_grad_(True)


def test_it_costs_no_more_than_a_few_hundred_passes_an_image(models, test_split: Split) -> None:
    forward, backward = [], []

    def count(x: Tensor) -> Tensor:
        forward.append(len(x))
        backward.append(len(x) if x.requires_grad and torch.is_grad_enabled() else 0)
        return x

    look(Masked(models["fast-at"], before=count), cut(test_split, 0), 0.001)  # nothing falls: the dearest case
    assert sum(forward) <= 64 * 409 and sum(backward) <= 64 * 152 and 1 + sum(PARTS.values()) == 409 + 152


@pytest.mark.parametrize("n", [1, 5, 20])
def test_few_images_are_checked_but_raise_no_doubt(models, test_split: Split, n: int) -> None:
    seen = look(models["fast-at"], cut(test_split, 0, n), 0.2)
    assert 0 < seen.facts["checked"] <= n and seen.doubts == ()


def test_without_a_radius_only_outputs_are_looked_at(models, test_split: Split) -> None:
    seen = look(Masked(models["fast-at"], after=lambda z: z.softmax(dim=1)), cut(test_split, 0), 0.0)
    assert kinds(seen) == {"softmax"} and "pgd_10" not in seen.facts
    assert look(models["fast-at"], cut(test_split, 0), 0.0).doubts == ()


def test_a_model_that_gets_nothing_right_raises_no_doubt(models, test_split: Split) -> None:
    seen = look(Masked(models["fast-at"], after=lambda z: -z), cut(test_split, 0), 0.2)
    assert seen.facts["checked"] == 0 and seen.doubts == () and "pgd_10" not in seen.facts


@pytest.mark.parametrize("shape, classes", [((1, 5, 9), 2), ((3, 9, 4), 3), ((1, 1, 1), 2)])
def test_checks_work_for_any_shape_and_two_classes(shape: tuple[int, int, int], classes: int) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (70, *shape), generator=random, dtype=torch.uint8)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), classes))
    labels = model(images / 255).argmax(dim=1)
    seen = look(model, Split(images, labels, torch.arange(70)), 0.05)
    assert seen.facts["checked"] == 64 and seen.doubts == ()


def test_an_evaluation_counts_no_pass_of_the_checks(call, trained: Path, toy: Path) -> None:
    words = ["evaluate", trained, "--data", toy, "--attack", "pgd-5", "--eps", "0.05"]
    looked, not_looked = (json.loads(call(*words, *more).stdout) for more in ([], ["--no-checks"]))
    assert looked["checks"]["checked"] > 0 and not_looked["checks"] == {}
    assert all(looked[name] == not_looked[name] for name in ("accuracy", "forward_passes", "backward_passes"))
    natural = json.loads(call(*words[:4], "--attack", "natural").stdout)
    assert set(natural["checks"]) < set(looked["checks"]) and "pgd_10" not in natural["checks"]
    assert natural["doubts"] == []


STAGES = {"natural": 0.9, "apgd-ce": 0.5, "apgd-t": 0.48, "fab-t": 0.48}


@pytest.mark.parametrize(
    "accuracies, n, doubted",
    [
        ({**STAGES, "square": 0.48}, 1000, False),
        ({**STAGES, "square": 0.478}, 1000, False),  # 0.2 points: AutoAttack's limit
        ({**STAGES, "square": 0.47}, 1000, True),
        ({**STAGES, "square": 0.47}, 100, False),  # one image
        ({**STAGES, "square": 0.46}, 100, True),
        ({"natural": 0.9, "square": 0.5}, 1000, False),  # nothing before it that has gradients
        (STAGES, 1000, False),
    ],
)
def test_square_after_gradients_finds_nothing_on_an_honest_model(accuracies, n: int, doubted: bool) -> None:
    doubts = late_doubts(accuracies, n)
    assert bool(doubts) == doubted and all(": run rays too" in doubt for doubt in doubts)
