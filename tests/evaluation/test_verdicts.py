"""Evaluation: verdicts that do not depend on the batch, eval mode, counted passes, and published checkpoints."""

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bsk.attacks.flags import AttackFlags
from bsk.attacks.registry import attack_named
from bsk.data.sources import prepare
from bsk.data.store import Split, open_data
from bsk.devices import rows_of_a_call
from bsk.errors import InputError
from bsk.evaluation.calls import exact, steady
from bsk.evaluation.ledger import Block, Ledger, StageResult
from bsk.evaluation.verdicts import Progress, _Reporter, judge
from bsk.models.registry import Normalised, build
from bsk.records.bits import decode_correct, encode_correct

CPU = torch.device("cpu")


class Judged(NamedTuple):
    correct: Tensor
    x_adv: Tensor
    forward: int
    backward: int


@pytest.fixture(scope="module")
def model() -> nn.Module:
    net = build("resnet18-4", classes=10, channels=3, size=16, mean=[0.5] * 3, std=[0.25] * 3, seed=3)
    net.train()
    with torch.no_grad():  # batch norm statistics of its own
        random = torch.Generator().manual_seed(0)
        for _ in range(10):
            net(torch.rand(64, 3, 16, 16, generator=random))
    return net


@pytest.fixture(scope="module")
def split(model: nn.Module) -> Split:
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (75, 3, 16, 16), generator=random, dtype=torch.uint8)
    with exact(model):
        labels = model(images / 255).argmax(1)
    labels[::9] = (labels[::9] + 1) % 10  # some are wrong from the start
    return Split(images, labels, torch.arange(75) * 3)


def verdicts(model, split, name="pgd-5x2", **more):
    arguments = {"eps": 0.004, "seed": 0, "batch_size": 75, "device": CPU, **more}
    images = torch.full(split.images.shape, torch.nan)

    def keep(rows, found, predictions):
        images[rows] = found.x_adv

    attack = attack_named(name, arguments["eps"] or 0.004, AttackFlags(start="uniform"))
    ledger = judge(model, split, attack, **arguments, keep=keep)
    assert not images.isnan().any()
    return Judged(ledger.standing, images, int(ledger.forward.sum()), int(ledger.backward.sum()))


@pytest.mark.parametrize("batch_size", [7, *(pytest.param(rows, marks=pytest.mark.slow) for rows in (1, 33, 64))])
def test_the_batch_size_changes_no_verdict(model, split: Split, batch_size: int) -> None:
    whole = verdicts(model, split)
    parts = verdicts(model, split, batch_size=batch_size)
    assert 5 < whole.correct.sum() < 60
    assert torch.equal(whole.correct, parts.correct)
    assert torch.equal(whole.x_adv, parts.x_adv), "not even the last bit of an image"


@pytest.mark.parametrize(
    "batch_size", [pytest.param(5, marks=pytest.mark.slow), 40, pytest.param(300, marks=pytest.mark.slow)]
)
def test_the_batch_size_does_not_affect_steps_evaluated_ahead(model, split: Split, batch_size: int) -> None:
    """Square fills each call with steps ahead; their number depends on the batch size, but the verdicts do not."""
    attack = attack_named("square", 0.02, AttackFlags(queries=60))
    arguments = {"eps": 0.02, "seed": 0, "device": CPU}
    whole, other = (judge(model, split, attack, batch_size=size, **arguments) for size in (75, batch_size))
    assert 5 < whole.standing.sum() < 60 and int(whole.forward.max()) == 62
    for name in ("broken_by", "distance", "forward"):
        assert torch.equal(getattr(whole, name), getattr(other, name)), name


def test_order_and_limit_change_no_verdict(model, split: Split) -> None:
    whole = verdicts(model, split)
    order = torch.randperm(75, generator=torch.Generator().manual_seed(3))
    mixed = verdicts(model, Split(split.images[order], split.labels[order], split.index[order]))
    assert torch.equal(mixed.correct, whole.correct[order])
    first = verdicts(model, Split(split.images[:20], split.labels[:20], split.index[:20]))
    assert torch.equal(first.correct, whole.correct[:20])


def test_the_seed_affects_only_random_starts(model, split: Split) -> None:
    a, b = (verdicts(model, split, seed=seed) for seed in (0, 1))
    assert not torch.equal(a.x_adv, b.x_adv)
    attack = attack_named("pgd-3", 0.01)
    a, b = (judge(model, split, attack, eps=0.01, seed=seed, batch_size=40, device=CPU) for seed in (0, 1))
    assert torch.equal(a.distance, b.distance) and torch.equal(a.broken_by, b.broken_by)


def test_the_model_is_in_eval_mode_and_left_as_it_was(model, split: Split) -> None:
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen: list[bool] = []
    hook = model.register_forward_hook(lambda m, i, o: seen.append(m.training))
    verdicts(model, split)
    hook.remove()
    assert seen and not any(seen) and model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_passes_are_counted_as_fooled_examples_leave(model, split: Split) -> None:
    natural = verdicts(model, split, "natural")
    assert (natural.forward, natural.backward) == (75, 0)
    right = int(natural.correct.sum())
    fgsm = judge(model, split, attack_named("fgsm", 0.01), eps=0.01, seed=0, batch_size=75, device=CPU)
    assert (int(fgsm.forward.sum()), int(fgsm.backward.sum())) == (75 + 2 * right, right)
    attack = attack_named("pgd-4", 0.01, AttackFlags(last_iterate=True))
    last = judge(model, split, attack, eps=0.01, seed=0, batch_size=75, device=CPU)
    assert last.forward.tolist() == [5] * 75 and last.backward.tolist() == [4] * 75


def test_progress_counts_the_work_of_all_processes() -> None:
    """Of 20 images 2 are wrong as they are; then this process, one of two, has attacked 4 and fooled 3 of them."""
    attack, ledger, rows = attack_named("screen", 0.1, AttackFlags(classes=10)), Ledger(20), torch.arange(20)
    cost = [stage.passes for stage in attack.stages]
    assert cost == [1, 200, 1800]
    none = torch.zeros(20, dtype=torch.int64)
    ledger.add(Block(0, rows, rows < 2, torch.zeros(20), none, none, 0.0))
    four = Block(1, rows[2:6], torch.tensor([True, True, True, False]), torch.zeros(4), none[:4], none[:4], 0.0)
    found = StageResult(20)
    found.add(four)
    seen: list[Progress] = []

    def told(world: int, amid: int = 0) -> Progress:
        _Reporter(ledger, found, attack, 1, world, seen.append)(amid)
        return seen[-1]

    one, two = told(1), told(2)
    assert (one.standing, one.n, one.done, one.total - one.done) == (15, 20, 20 + 800, 14 * 200 + 15 * 1800)
    assert (two.standing, two.n, two.done, two.total - two.done) == (15, 20, 20 + 1600, 10 * 200 + 12 * 1800)
    amid = told(2, amid=300)
    assert (amid.standing, amid.done, amid.total) == (15, two.done + 2 * 300, two.total), "300 passes into a block"
    assert told(2, amid=10**6).done == 20 + 18 * 200, "never more than is due"
    rest = Block(1, rows[6:16], torch.ones(10, dtype=torch.bool), torch.zeros(10), none[:10], none[:10], 0.0)
    found.add(rest)
    late = told(2)
    assert (late.standing, late.done, late.total) == (5, 20 + 18 * 200, 20 + 18 * 200), "never more than there is"


def test_eps_zero_is_natural_accuracy(model, split: Split) -> None:
    assert torch.equal(verdicts(model, split, eps=0.0).correct, verdicts(model, split, "natural").correct)


def test_a_model_that_returns_nan_is_refused(split: Split) -> None:
    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 10), math.nan)

    with pytest.raises(InputError, match=r"example 0 \(index 0\): the model returns NaN"):
        verdicts(Broken(), split)

    class Picky(nn.Module):
        def forward(self, x):
            dark = (x.flatten(1).mean(1) == float(split.images[41].float().div(255).flatten().mean()))[:, None]
            return torch.where(dark, math.nan, x.flatten(1)[:, :10])

    with pytest.raises(InputError, match=r"example 41 \(index 123\)"):
        verdicts(Picky(), split, "natural")


class Noisy(nn.Module):
    """A model that is random: noise on its images, from torch's global generator."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x + 0.02 * torch.randn_like(x))


def test_a_random_model_draws_the_same_again_and_leaves_the_generator_alone(model, split: Split) -> None:
    attack = attack_named("autoattack-rand", 0.004, AttackFlags())
    few = [replace(stage, parameters={**stage.parameters, "steps": 4, "eot": 2}) for stage in attack.stages[1:]]
    attack = replace(attack, stages=(attack.stages[0], *few))

    def found(seed: int, before: int) -> list:
        torch.manual_seed(before)
        state = torch.get_rng_state()
        ledger = judge(Noisy(model), split, attack, eps=0.004, seed=seed, batch_size=20, device=CPU)
        assert torch.equal(torch.get_rng_state(), state)
        return [ledger.broken_by.tolist(), ledger.distance.tolist(), ledger.forward.tolist()]

    assert found(0, 1) == found(0, 2) != found(1, 1)


def test_each_block_of_a_random_model_has_numbers_of_its_own(split: Split) -> None:
    seen: list[float] = []

    class Loud(nn.Module):
        def forward(self, x):
            seen.append(float(torch.rand(1)))
            return x.flatten(1)[:, :10]

    judge(Loud(), split, attack_named("fgsm", 0.1), eps=0.1, seed=0, batch_size=25, device=CPU)
    assert len(seen) == len(set(seen)) >= 5, "three blocks without an attack, then with one"
    again, seen = seen, []
    judge(Loud(), split, attack_named("fgsm", 0.1), eps=0.1, seed=0, batch_size=25, device=CPU)
    assert seen == again


@pytest.mark.parametrize(
    "numbers",
    [
        [1, 2, 7, 16, 17, 33, 65, 128],
        pytest.param([3, 4, 5, 8, 9, 12, 15, 20, 24, 31, 32, 47, 63, 104], marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_no_number_of_rows_changes_a_bit(model, threads: int, numbers: list[int]) -> None:
    """Logits and gradients of an example are bit-identical in any batch."""
    torch.set_num_threads(threads)
    networks = [model, small_cnn().eval(), build("wrn-10-1", classes=10, channels=3, size=32, mean=[0], std=[1])]
    for network, size in zip(networks, (16, 32, 32), strict=True):
        images = torch.rand(131, 3, size, size, generator=torch.Generator().manual_seed(0))
        images = images.contiguous(memory_format=torch.channels_last)
        with exact(network):
            whole, gradient = _both(network, images)
            for n in numbers:
                logits, part = _both(network, images[:n])
                assert torch.equal(logits, whole[:n]) and torch.equal(part, gradient[:n]), f"{n} rows"


@pytest.mark.parametrize("threads", [1, 2])
def test_no_number_of_rows_changes_a_bit_of_small_images(threads: int) -> None:
    """Up to 512 rows, the default for them."""
    torch.set_num_threads(threads)
    for name, channels in (("cnn", 1), ("resnet18-8", 3)):
        network = build(name, classes=10, channels=channels, size=8, mean=[0] * channels, std=[1] * channels)
        images = torch.rand(512, channels, 8, 8, generator=torch.Generator().manual_seed(0))
        images = images.contiguous(memory_format=torch.channels_last)
        with exact(network):
            whole, gradient = _both(network, images)
            for n in (1, 16, 128, 200, 264, 400, 504):
                logits, part = _both(network, images[:n])
                assert torch.equal(logits, whole[:n]) and torch.equal(part, gradient[:n]), f"{name}, {n} rows"


def test_the_default_number_of_rows() -> None:
    shapes = [(1, 8, 8), (3, 16, 16), (3, 16, 17), (3, 32, 32)]
    assert [rows_of_a_call(CPU, shape) for shape in shapes] == [512, 512, 128, 128]
    assert [rows_of_a_call(torch.device("cuda"), shape) for shape in shapes] == [512] * 4
    large = [(3, 64, 64), (3, 128, 128), (3, 224, 224), (3, 600, 400)]
    assert [rows_of_a_call(torch.device("cuda"), shape) for shape in large] == [512, 128, 41, 32]


def _both(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    leaf = images.clone().requires_grad_()
    logits = steady(network)(leaf)
    return logits.detach(), torch.autograd.grad(logits.logsumexp(1).sum(), leaf)[0]


def test_filling_up_a_batch_changes_no_gradient(model, split: Split) -> None:
    x = (split.images[:5] / 255).requires_grad_()
    with exact(model):
        (bare,) = torch.autograd.grad(model(x).logsumexp(1).sum(), x)
        (filled,) = torch.autograd.grad(steady(model)(x).logsumexp(1).sum(), x)
    torch.testing.assert_close(filled, bare)


def small_cnn() -> nn.Sequential:
    convolutions = [nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(2048, 100), nn.ReLU(), nn.Linear(100, 10))


@pytest.mark.slow
def test_a_real_checkpoint_has_its_known_accuracy(shared: Path, tmp_path: Path) -> None:
    """cnn_a_adv on the 2,000 test images: PGD-20 51.25 % at 2/255 and 14.40 % at 8/255, as its README says."""
    network = small_cnn()
    network.load_state_dict(torch.load(shared / "models" / "cnn_a_adv.model", weights_only=True))
    model = Normalised(network, [0.4914, 0.4824, 0.4467], [0.2471, 0.2435, 0.2616]).eval()
    archive = shared / "data" / "cifar10-subset-exact-python.tar.gz"
    prepare("cifar10", str(archive), tmp_path / "c.safetensors")
    images = open_data(tmp_path / "c.safetensors").split("test")
    for eps, expected in ((2 / 255, 0.5125), (8 / 255, 0.1440)):
        attack = attack_named("pgd-20", eps)
        found = judge(model, images, attack, eps=eps, seed=0, batch_size=500, device=CPU)
        assert float(found.standing.float().mean()) == pytest.approx(expected, abs=0.005)


def test_fgsm_and_pgd_agree_with_foolbox(model, split: Split) -> None:
    foolbox = pytest.importorskip("foolbox")
    with exact(model):
        x, y = split.images / 255, split.labels
        other = foolbox.PyTorchModel(model, bounds=(0, 1))
        pgd = foolbox.attacks.LinfProjectedGradientDescentAttack(abs_stepsize=0.0025, steps=5, random_start=False)
        _, theirs, success = pgd(other, x, y, epsilons=0.01)
        ours = attack_named("pgd-5", 0.01, AttackFlags(last_iterate=True, step=0.0025)).stages[0](
            model, x, y, None, 0.01
        )
        torch.testing.assert_close(ours.x_adv, theirs, rtol=0, atol=1e-6)
        assert torch.equal(ours.fooled, success)
        _, theirs, success = foolbox.attacks.FGSM(random_start=False)(other, x, y, epsilons=0.01)
        ours = attack_named("fgsm", 0.01, AttackFlags(last_iterate=True)).stages[0](model, x, y, None, 0.01)
        torch.testing.assert_close(ours.x_adv, theirs, rtol=0, atol=1e-6)
        assert torch.equal(ours.fooled, success)


def test_encoded_outcomes_are_decoded_again(split: Split) -> None:
    bits = np.arange(75) % 3 == 0
    assert np.array_equal(decode_correct(encode_correct(bits), 75), bits)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["natural", "fgsm", "pgd-20", "cw-20x2", "apgd-ce", "autoattack", "rays"])
def test_a_cuda_device_finds_what_the_cpu_finds(name: str, model, split: Split, monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    attack, some = attack_named(name, 0.004, AttackFlags(start="uniform", queries=100)), slice(24)
    few = Split(split.images[some], split.labels[some], split.index[some])

    def judged(device: str, batch_size: int = 24) -> Ledger:
        where = torch.device(device)
        return judge(model.to(where), few, attack, eps=0.004, seed=0, batch_size=batch_size, device=where)

    here, there, parts = judged("cpu"), judged("cuda"), judged("cuda", batch_size=7)
    model.to(CPU)
    for other in (there, parts):
        assert int((here.standing != other.standing.cpu()).sum()) <= 1
        assert float(other.forward.double().mean()) == pytest.approx(float(here.forward.double().mean()), rel=0.2)
