"""Five updates of every method against a plain loop in float64: all weights, batch-norm statistics and losses."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from benchmarks.reference import PLAIN, Plain
from bsk.contract import network
from bsk.data.batches import Batch, Share
from bsk.methods import adversarial, backward_smoothing, n_fgsm, registry
from bsk.training import step as module
from bsk.training.flags import TrainingFlags
from bsk.training.initial import new_state
from bsk.training.loop import rates_at
from bsk.training.schedules import Rates
from bsk.training.settings import Settings, resolve
from bsk.training.state import State
from bsk.training.step import update

EPS, CLASSES, TOTAL, BATCH, IMAGES = 0.11, 5, 7, 6, 12
CPU = torch.device("cpu")
DATA = SimpleNamespace(name="toy", classes=list("abcde"), mean=[0.4], std=[0.3], eps=EPS, augment="none", model="cnn-3")
ACCURACIES = [0.5, 0.2, 0.2]  # of the rescue's checks: the second finds that it fell


def settings(method: str, **hyper: object) -> Settings:
    extra = (
        "more.safetensors" if registry.needs_extra(method) else None
    )  # which images a batch has is not the method's business
    flags = TrainingFlags(method, hyper=hyper, extra=extra, schedule="cyclic", epochs=1, precision="fp32", lr=0.3)
    return resolve(flags, DATA, CPU)  # type: ignore[arg-type]


def batch(i: int) -> Batch:
    """Of 12 images those of the i-th update: six each, the last update four; images come again."""
    random = torch.Generator().manual_seed(5)
    x, y = torch.rand(IMAGES, 1, 6, 6, generator=random, dtype=torch.float64), torch.arange(IMAGES) % CLASSES
    x = torch.where(x < 0.2, 0.0, x)  # at the edge of the box of images
    rows = (i * BATCH + torch.arange(BATCH if i < 4 else BATCH - 2)) % IMAGES
    return Batch(x[rows], y[rows], rows, len(rows))


def extras(method: str, i: int) -> dict:
    """Arguments of some plain updates besides the batch."""
    return {
        "liet": {"classes": CLASSES},
        "fast-at-plus": {"accuracies": ACCURACIES, "every": 2},
        "fgsm-pgi": {"rows": batch(i).rows.tolist(), "epoch": i // 2},
        "fgsm-mep": {"rows": batch(i).rows.tolist(), "epoch": i // 2},
        "pco": {"rows": batch(i).rows.tolist(), "epoch": i // 2},
        "atas": {"rows": batch(i).rows.tolist(), "epoch": i // 2, "warmup": 1},
        "rs-cs": {"epoch": i // 2},
        "cuap": {"classes": CLASSES},
        "elle": {"beta": 10.0},
        "llr": {"growing": 0.5},
    }.get(method, {})


def rates(s: Settings, i: int) -> Rates:
    """What the loop gives the i-th update of 7."""
    setup = SimpleNamespace(settings=s, total_steps=TOTAL, loader=range(TOTAL))
    return rates_at(setup, i)  # type: ignore[arg-type]


def triangle(i: int) -> tuple[float, float]:
    """The rate and momentum of the i-th update by hand: up to 0.3 in the middle and down, 0.9 down to 0.8 and up."""
    height = 1 - abs((2 * i + 1) / TOTAL - 1)
    return 0.3 * height, 0.9 - 0.1 * height


def five_updates(s: Settings) -> State:
    state = new_state(s, DATA, 1, 6, CPU)  # type: ignore[arg-type]
    state.model.double().train()
    state.memory.images = IMAGES
    for i in range(5):
        update(state, s, batch(i), Share(), rates(s, i), TOTAL, i // 2, lambda attack, turn: ACCURACIES[turn])
    return state


def five_plain_updates(s: Settings) -> tuple[torch.nn.Module, Tensor]:
    model = new_state(s, DATA, 1, 6, CPU).model.double()  # type: ignore[arg-type]
    plain, losses = Plain(copy.deepcopy(model), EPS), []
    for i in range(5):
        b = batch(i)
        losses.append(plain.update(s.method, b.x, b.y, *triangle(i), TOTAL, **extras(s.method, i)) * len(b.y))
    return plain.model, torch.tensor(losses, dtype=torch.float64).sum()


def hyper(method: str) -> dict:
    return {
        "fast-at-plus": {"rescue_every": 2},
        "atas": {"warmup_epochs": 1},
        "llr": {"growing": 0.5},
        "elle": {"beta": 10.0},  # the usual weight is for slower rates
    }.get(method, {})


def furthest(state: State, model: torch.nn.Module) -> float:
    """The largest difference of any weight, running mean or running variance."""
    found, expected = state.model.state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    return max(float((found[name] - tensor).abs().max()) for name, tensor in expected.items())


def test_there_is_a_plain_update_of_every_method() -> None:
    assert list(PLAIN) == registry.names()


@pytest.mark.parametrize("method", registry.names())
def test_five_updates_are_those_of_a_plain_loop(method: str) -> None:
    s = settings(method, **hyper(method))
    state = five_updates(s)
    model, loss = five_plain_updates(s)
    assert furthest(state, model) < 1e-9
    moved = new_state(s, DATA, 1, 6, CPU).model.double()  # type: ignore[arg-type]
    assert furthest(state, moved) > 1e-3, "something is learnt"
    if method != "free-at":  # of eight losses a batch the first is logged
        assert abs(float(state.sums[0]) - float(loss)) < 1e-9


# --- wrong code that must not pass -------------------------------------------------------------------------------


def no_weight_decay(patch: pytest.MonkeyPatch, s: Settings) -> Settings:
    return replace(s, weight_decay=0.0)


def constant_momentum(patch: pytest.MonkeyPatch, s: Settings) -> Settings:
    original = rates
    patch.setitem(globals(), "rates", lambda s, i: original(s, i)._replace(momentum=0.9))
    return s


def one_noise(patch: pytest.MonkeyPatch, s: Settings) -> Settings:
    original = module.generator
    patch.setattr(module, "generator", lambda seed, what, step, **more: original(seed, what, 0, **more))
    return s


def train_mode(patch: pytest.MonkeyPatch, s: Settings) -> Settings:
    patch.setattr(network, "folded_eval_mode", lambda model: torch.enable_grad())
    return s


def half_the_radius(patch: pytest.MonkeyPatch, s: Settings) -> Settings:
    return replace(s, eps=s.eps / 2)


def start_and_end_swapped(patch: pytest.MonkeyPatch, s: Settings) -> Settings:
    for file in (adversarial, backward_smoothing, n_fgsm):
        patch.setattr(file, "ascend", lambda objective, f, x, *rest, **more: x.detach())
    return s


def clean_images_in_the_loss(patch: pytest.MonkeyPatch, s: Settings) -> Settings:
    def clean(objective, f, x, ball, *rest, **more):  # type: ignore[no-untyped-def]
        return (ball.lower + ball.upper) / 2 if s.method != "n-fgsm" else batch(0).x[: len(x)]

    for file in (adversarial, backward_smoothing, n_fgsm):
        patch.setattr(file, "ascend", clean)
    return s


MUTANTS = [
    no_weight_decay,
    constant_momentum,
    one_noise,
    train_mode,
    half_the_radius,
    start_and_end_swapped,
    clean_images_in_the_loss,
]


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("method", ["bs", "fast-at", "at", "n-fgsm"])
def test_wrong_updates_are_detected(method: str, mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    s = settings(method)
    model, _ = five_plain_updates(s)
    wrong = mutant(monkeypatch, s)
    assert furthest(five_updates(wrong), model) > 1e-6
