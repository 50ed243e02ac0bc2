"""Every method: hyper-parameters with the paper's defaults, passes, ball, memory, and use in several processes."""

import inspect

import pytest
import torch
from calls import EPS, Fixed, called, pixels, remembered
from torch import Tensor, nn

from bsk.contract.network import Network
from bsk.contract.parameters import GIVEN
from bsk.errors import UsageError
from bsk.methods import registry
from bsk.methods.registry import METHODS
from bsk.perturb.draws import BatchDraws
from bsk.perturb.losses import cross_entropy
from bsk.perturb.passes import PassCounter, Passes
from bsk.perturb.radius import AtRadius
from bsk.training.bound import bind
from bsk.training.profile import check_shared, profile, whole_batch

SHAPE, CLASSES = (2, 4, 4), 5


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 16, CLASSES)).double()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(5)
    return torch.rand(7, *SHAPE, generator=g, dtype=torch.float64), torch.randint(0, CLASSES, (7,), generator=g)


# --- hyper-parameters -------------------------------------------------------------------------------------------------

FAMILY = {"start": "uniform", "steps": 1, "gamma": 1.0}
DEFAULTS = {  # at 8/255, in grey levels where they are a step
    "natural": {},
    "at": {**FAMILY, "steps": 10, "step": 2},
    "fast-at": {**FAMILY, "step": 10},
    "fast-at-plus": {**FAMILY, "step": 10, "rescue_every": 20, "rescue_drop": 0.1},
    "trades": {**FAMILY, "start": "gaussian", "steps": 10, "step": 2, "beta": 6.0},
    "fast-trades": {**FAMILY, "step": 8, "beta": 6.0},
    "fast-trades-2": {**FAMILY, "steps": 2, "step": 8, "beta": 6.0},
    "bs": {**FAMILY, "start": "backward", "step": 8, "beta": 10.0},
    "bs-alone": {**FAMILY, "start": "backward", "steps": 0, "step": 8, "beta": 10.0},
    "bs-at": {**FAMILY, "start": "backward", "step": 8},
    "n-fgsm": {"noise": 2.0, "steps": 1, "step": 8, "bound": None},
    "liet": {
        "step": 8,
        "beta": 100.0,
        "ramp": True,
        "noise": 1.0,
        "least": 0.1,
        "most": 0.5,
        "bound": 1.0,
        "every": 10,
    },
    "gradalign": {"step": 8, "beta": pytest.approx(0.2)},
    "free-at": {"step": 8, "replays": 8},
    "mart": {**FAMILY, "start": "gaussian", "steps": 10, "step": 2, "beta": 5.0},
    "nuat": {"noise": 0.5, "step": 8, "beta": 4.5, "ramp": 0.9},
    "gat": {"noise": 0.5, "step": 8, "beta": 10.0, "growth": 4.0, "late": 0.86},
    "fgsm-pgi": {"step": 8, "decay": 0.3, "beta": 10.0, "reset": 40},
    "fgsm-mep": {"step": 8, "decay": 0.3, "beta": 10.0, "reset": 40},
    "zero-grad": {"share": 0.4, "step": 16},
    "multi-grad": {"samples": 3, "step": 16},
    "ssat": {"step": 10, "checks": 3},
    "rs-cs": {"step": 8, "gamma": 0.03, "weight": 1.0, "wait": 2, "bound": None},
    "elle": {"step": 8, "beta": 1000.0},
    "rs-aaer": {"noise": 1.0, "step": 10, "beta": 1.5, "bound": 1.0},
    "n-aaer": {"noise": 2.0, "step": 8, "beta": 0.15, "bound": None},
    "uap": {"step": 8, "reach": pytest.approx(10 / 255), "decay": 0.3, "beta": 10.0, "classwise": False},
    "cuap": {"step": 8, "reach": pytest.approx(10 / 255), "decay": 0.3, "beta": 10.0, "classwise": True},
    "pco": {"step": 8, "stretch": 1.5, "beta": 10.0},
    "atas": {"c": 1.28, "decay": 0.5, "least": 0.5, "most": 1.75, "warmup_epochs": 5, "reset": 10},
    "llr": {"step": 8, "steps": 10, "nominal": 2.0, "beta": 4.0, "slope": 0.3, "growing": 0.005},
    "dynamic-at": {"step": 2, "steps": 10, "most": 0.5, "until": pytest.approx(5 / 6)},
    "rst": {**FAMILY, "start": "gaussian", "steps": 10, "step": 2, "beta": 6.0},
}


@pytest.mark.parametrize("name", METHODS)
def test_the_defaults_are_those_of_the_papers(name: str) -> None:
    found = dict(bind(name, 8 / 255).hyper)
    if "step" in found:
        found["step"] *= 255
    assert found == pytest.approx(DEFAULTS[name])


@pytest.mark.parametrize(
    ("eps", "steps"),  # of at and trades, of fast-at, of the others
    [
        (0.031, (2 / 255, 10 / 255, 0.031)),  # as the paper writes them
        (8 / 255, (2 / 255, 10 / 255, 8 / 255)),
        (16 / 255, (4 / 255, 20 / 255, 16 / 255)),
        (0.2, (0.05, 0.25, 0.2)),
    ],
)
def test_a_step_follows_the_radius(eps: float, steps: tuple[float, ...]) -> None:
    tenths = dict.fromkeys(("at", "trades", "mart", "dynamic-at", "rst"), 0)
    tenths |= dict.fromkeys(("fast-at", "fast-at-plus", "ssat", "rs-aaer"), 1)
    for name in METHODS:
        hyper = bind(name, eps).hyper
        twice = 2 * steps[0] * 4 if name in ("zero-grad", "multi-grad") else None
        assert "step" not in hyper or hyper["step"] == pytest.approx(twice or steps[tenths.get(name, 2)]), name
    assert [name for name in METHODS if "step" not in bind(name, eps).hyper] == ["natural", "atas"]


def test_the_weight_of_gradalign_grows_with_the_radius() -> None:
    """0.2 at 8/255 and 2 at 16/255, as in the authors' experiments."""
    weights = [bind("gradalign", eps).hyper["beta"] for eps in (8 / 255, 16 / 255, 0.2)]
    assert weights == pytest.approx([0.2, 2.0, 2.0])


def test_the_weights_of_aaer_are_those_of_its_authors() -> None:
    """Their commands for CIFAR-10 have 8, 12, 16 and 32 of 255."""
    for name, weights in (("rs-aaer", (1.5, 1.5, 2.5, 3.25, 1.5)), ("n-aaer", (0.15, 0.15, 0.55, 1.5, 0.7))):
        found = [bind(name, eps).hyper["beta"] for eps in (4 / 255, 0.031, 12 / 255, 16 / 255, 0.2)]
        assert tuple(found) == weights


def test_the_weight_of_elle_grows_with_the_radius() -> None:
    """As in the authors' scripts, which have 2, 4, ... 26 of 255."""
    weights = [bind("elle", eps / 255).hyper["beta"] for eps in (2, 8, 10, 20, 22, 26, 51)]
    assert weights == [1000, 1000, 5000, 5000, 10000, 10000, 100]


@pytest.mark.parametrize("name", METHODS)
def test_what_is_read_from_the_source_is_the_signature(name: str) -> None:
    arguments = list(inspect.signature(registry.function(name)).parameters.values())
    assert [each.name for each in arguments[:3]] == ["net", "x", "y"]
    assert all(each.kind is each.KEYWORD_ONLY for each in arguments[3:])
    assert {each.name for each in arguments if each.default is each.empty} <= {"net", "x", "y", *GIVEN}
    own = {each.name: each for each in arguments[3:] if each.name not in GIVEN}
    found = registry.parameters(name)
    assert list(found) == list(own)
    for key, parameter in found.items():
        default = METHODS[name].changes.get(key, own[key].default)
        if isinstance(default, AtRadius):
            assert parameter.default.words == default.words
            assert [parameter.default.at(eps) for eps in (0.031, 0.2)] == [default.at(eps) for eps in (0.031, 0.2)]
        else:
            assert parameter.default == default and type(parameter.default) is type(default)
        text = "true" if own[key].annotation == "bool" else "1"
        kind = "float | None" if parameter.optional else type(parameter.parsed(text)).__name__
        assert (parameter.name, kind) == (key, own[key].annotation) and parameter.help
    first = (registry.function(name).__doc__ or "").partition("\n")[0]
    assert registry.summary(name) == registry.ABOUT.get(name, first) != ""


def test_the_source_of_a_method_is_in_its_docstring() -> None:
    """As its docstring says, but where ids share a function."""
    known = {
        "natural": ("", None), "at": ("Madry et al.", 2018), "fast-at": ("Wong et al.", 2020),
        "fast-trades": ("Chen et al.", 2022), "bs": ("Chen et al.", 2022), "trades": ("Zhang et al.", 2019),
        "elle": ("Abad Rocamora et al.", 2024), "gradalign": ("Andriushchenko & Flammarion", 2020),
    }  # fmt: skip
    assert {name: registry.source(name) for name in known} == known
    assert all(registry.source(name)[1] for name in METHODS if name != "natural")


def test_a_value_has_the_type_of_its_default() -> None:
    own = registry.parameters("liet")
    read = {"step": "8/255", "beta": "3", "ramp": "false", "bound": "none", "every": "4"}
    found = {name: own[name].parsed(text) for name, text in read.items()}
    assert found == {"step": 8 / 255, "beta": 3.0, "ramp": False, "bound": None, "every": 4}
    assert [type(found[name]) for name in ("beta", "ramp", "every")] == [float, bool, int]


@pytest.mark.parametrize(
    ("method", "name", "text", "said"),
    [
        ("liet", "every", "1.5", "--set every=1.5: expected a whole number, like its default 10"),
        ("liet", "ramp", "yes", "--set ramp=yes: expected true or false"),
        ("liet", "beta", "ten", "--set beta=ten: expected a number, like its default 100.0"),
        ("liet", "beta", "inf", "--set beta=inf: expected a number"),
        ("liet", "beta", "none", "--set beta=none: expected a number"),
        ("liet", "bound", "0", "--bound 0: must be finite and above 0"),
        ("liet", "bound", "far", "--set bound=far: expected a number, like its default 1.0"),
        ("n-fgsm", "bound", "far", "--set bound=far: expected a number, like its default None"),
        ("bs", "step", "far", "--set step=far: expected a number, like its default eps"),
        ("bs", "step", None, "--set step=None: expected a number, like its default eps"),
        ("bs", "step", "0", "--step 0: must be finite and above 0"),
        ("bs", "gamma", "-1", "--gamma -1: must be finite and at least 0"),
        ("bs", "beta", True, "--set beta=True: expected a number"),
        ("free-at", "replays", "0", "--replays 0: must be finite and above 0"),
        ("liet", "every", "0", "--every 0: must be finite and above 0"),
        ("fast-at-plus", "rescue_every", "0", "--rescue-every 0: must be finite and above 0"),
        ("atas", "reset", "0", "--reset 0: must be finite and above 0"),
        ("multi-grad", "samples", "0", "--samples 0: must be finite and above 0"),
        ("ssat", "checks", "0", "--checks 0: must be finite and above 0"),
        ("dynamic-at", "until", "0", "--until 0: must be finite and above 0"),
        ("zero-grad", "share", "1.5", "--share 1.5: must be at most 1"),
        ("fast-at-plus", "rescue_every", "x", "--set rescue_every=x: expected a whole number"),
        ("bs", "noise", "1", "--noise: bs has no noise; it has start, step, steps, gamma, beta"),
        ("natural", "gamma", "1", "--gamma: natural has no gamma; it has no hyper-parameters"),
    ],
)
def test_an_invalid_value_is_a_one_line_error(method: str, name: str, text: object, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        bind(method, EPS, {name: text})
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)


# --- what an update costs and does ------------------------------------------------------------------------------------

PASSES = {  # of one image in one update: forward, and backward to the input or through everything
    "natural": (1, 1),
    "at": (11, 11),
    "fast-at": (2, 2),
    "fast-at-plus": (2, 2),
    "trades": (13, 12),
    "fast-trades": (4, 3),
    "fast-trades-2": (5, 4),
    "bs": (4, 4),
    "bs-alone": (3, 3),
    "bs-at": (3, 3),
    "n-fgsm": (2, 2),
    "liet": (2, 3),  # the output at the start serves the step and the loss
    "gradalign": (3, 4),  # of its two gradients one makes the step too, one is gone through again, by the weights
    "free-at": (1, 1),  # eight times a batch
    "mart": (12, 12),
    "nuat": (3, 3),
    "gat": (3, 3),
    "fgsm-pgi": (2, 3),
    "fgsm-mep": (2, 3),
    "zero-grad": (2, 2),
    "multi-grad": (4, 4),
    "ssat": (4, 2),
    "rs-cs": (2, 3),
    "elle": (5, 5),  # three of them of points around the image
    "rs-aaer": (2, 2),
    "n-aaer": (2, 2),
    "uap": (2, 3),
    "cuap": (2, 3),
    "pco": (3, 4),
    "atas": (2, 2),
    "llr": (13, 14),  # ten steps; of the three gradients at the image one is gone through again
    "dynamic-at": (11, 11),
    "rst": (13, 12),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_runs_exactly_its_own_passes(name: str, model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    found = profile(bind(name, EPS), SHAPE, CLASSES).passes
    assert (found.forward, found.to_input + found.full) == PASSES[name]
    counter, memory = PassCounter(), remembered(7).batch(torch.arange(7))
    net = Network(model, counter=counter)
    called(name, net, *batch, memory=memory)  # the first makes patterns
    counter.forward = counter.backward = 0
    called(name, net, *batch, memory=memory, update=1).total.sum().backward()
    assert (counter.forward, counter.backward) == (7 * PASSES[name][0], 7 * PASSES[name][1])


def test_a_profile_tells_the_passes_of_the_perturbation_from_the_others() -> None:
    found = profile(bind("trades", EPS), SHAPE, CLASSES)
    assert found.frozen == Passes(11, 10, 0) and found.trained == Passes(2, 0, 2)
    assert profile(bind("liet", EPS), SHAPE, CLASSES).trained == Passes(2, 1, 2)
    assert profile(bind("fast-at-plus", EPS), SHAPE, CLASSES).validations == 1 / 20
    assert profile(bind("bs", EPS), SHAPE, CLASSES).validations == 0


def test_only_natural_training_is_selected_by_natural_accuracy() -> None:
    found = {name: profile(bind(name, EPS), SHAPE, CLASSES) for name in METHODS}
    assert [name for name, each in found.items() if not each.attacks] == ["natural"]
    both = {"trades", "fast-trades", "fast-trades-2", "bs", "bs-alone", "nuat", "gat", "llr", "rst"}
    assert {name for name, each in found.items() if each.natural and each.robust} == both
    assert all(each.moves and each.smooths for each in found.values())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_stays_in_its_ball_and_leaves_the_weights_alone(name: str, model: nn.Module, batch) -> None:
    x, y = batch
    before = [p.clone() for p in model.parameters()]
    for update in (0, 1):
        losses = called(name, model, x, y, update=update)
        assert losses.x_adv is not None and losses.start is not None
        bound = bind(name, EPS).hyper.get("bound", 1.0)
        far = 2 if name == "rs-cs" else 3  # noise, of N-FGSM twice, and a step
        reach = EPS * (far if bound is None else bound)
        moved = (losses.x_adv - x).abs().max()
        assert moved <= reach + 1e-12 and losses.x_adv.min() >= 0 and losses.x_adv.max() <= 1
        assert bound is not None or moved > (far - 1) * EPS
        assert not losses.x_adv.requires_grad and not losses.start.requires_grad
    assert all(p.grad is None for p in model.parameters()) and model.training
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_runs_on_the_device_of_its_tensors(name: str) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(32, CLASSES)).to("meta")
    x, y = torch.empty(7, *SHAPE, device="meta"), torch.empty(7, dtype=torch.int64, device="meta")
    losses = called(name, network, x, y, draws=BatchDraws(torch.Generator()), update=1)
    assert losses.x_adv is not None and losses.x_adv.device.type == "meta" and losses.x_adv.shape == x.shape
    assert losses.total.device.type == "meta" and losses.total.shape == (7,)


@pytest.mark.parametrize("name", METHODS)
def test_labels_are_smoothed_in_the_cross_entropy_that_is_descended_alone(name: str) -> None:
    model, x, y = Fixed([[1, 0], [0, 1]]), pixels((0.7, 0.2), (0.3, 0.4)), torch.tensor([0, 1])
    plain, smoothed = (called(name, Network(model, smoothing=each), x, y) for each in (0.0, 0.2))
    assert torch.equal(plain.x_adv, smoothed.x_adv)
    image = x if smoothed.natural is not None else smoothed.x_adv
    if name == "pco":  # between the start and the end, by the probability of the label
        p = model(smoothed.start).softmax(1).gather(1, y[:, None])[..., None, None]
        image = (1 - p) * smoothed.start + p * (x + 1.5 * (image - x))
    weight = 2 if name == "llr" else 1
    difference = weight * (cross_entropy(model(image), y, 0.2) - cross_entropy(model(image), y))
    assert difference.abs().min() > 1e-3
    torch.testing.assert_close(smoothed.total - plain.total, difference)


def test_trades_from_the_backward_start_is_backward_smoothing(model: nn.Module, batch) -> None:
    hyper = {"start": "backward", "steps": 1, "step": 0.07, "gamma": 2.0, "beta": 3.0}
    trades, bs = (called(name, model, *batch, hyper) for name in ("trades", "bs"))
    assert all(torch.equal(one, getattr(bs, part)) for part, one in vars(trades).items())
    assert trades.start is not None and not torch.equal(trades.start, batch[0])


@pytest.mark.parametrize("start", ["zero", "uniform", "gaussian", "noise", "bernoulli"])
def test_backward_smoothing_from_another_start_is_trades(start: str, model: nn.Module, batch) -> None:
    hyper = {"start": start, "steps": 2, "step": 0.07, "beta": 3.0}
    trades, bs = (called(name, model, *batch, hyper) for name in ("trades", "bs"))
    assert all(torch.equal(one, getattr(bs, part)) for part, one in vars(trades).items())


# --- what outlives a batch --------------------------------------------------------------------------------------------


def test_each_image_has_a_memory_of_its_own() -> None:
    memory = remembered(5)
    first = memory.batch(torch.tensor([3, 0]))
    assert torch.equal(first.rows("prior", pixels((9, 9), (9, 9))), pixels((0, 0), (0, 0)))
    first.keep("prior", pixels((1, 2), (3, 4)))
    assert memory.rows == {}, "an update that is not done leaves nothing"
    first.commit()
    second = memory.batch(torch.tensor([0, 1, 3]))
    found = second.rows("prior", pixels((0, 0), (0, 0), (0, 0)))
    assert torch.equal(found, pixels((3, 4), (0, 0), (1, 2)))
    found += 7  # what a method does with it is its own
    like = torch.zeros(3, 1, 1, 2).to(memory_format=torch.channels_last)
    assert second.rows("prior", like).dtype == torch.float32 and second.rows("prior", like).stride() == like.stride()
    second.keep("prior", pixels((5, 5), (6, 6), (7, 7)).requires_grad_())
    second.commit()
    assert torch.equal(memory.rows["prior"], pixels((5, 5), (6, 6), (0, 0), (7, 7), (0, 0)))
    assert not memory.rows["prior"].requires_grad
    twice = memory.batch(torch.tensor([4, 1, 4, 1, 0]))  # as extra images can be
    assert twice._last().tolist() == [2, 3, 2, 3, 4], "no order of writing matters, on a GPU either"
    twice.keep("prior", pixels((1, 1), (2, 2), (3, 3), (4, 4), (5, 5)))
    twice.commit()
    assert torch.equal(memory.rows["prior"], pixels((5, 5), (4, 4), (0, 0), (7, 7), (3, 3)))


def test_an_image_comes_once_in_a_period_for_the_first_time_whatever_periods_it_missed() -> None:
    memory, found = remembered(3), []
    for rows, period in (([0, 1], 0), ([0], 0), ([2, 0], 1), ([1, 2], 1), ([0, 1, 2], 3), ([2], 3)):
        seen = memory.batch(torch.tensor(rows))
        found.append(seen.first_in(period).tolist())
        assert seen.first_in(period).tolist() == found[-1], "asked twice in an update"
        seen.commit()
    assert found == [[True, True], [False], [True, True], [True, False], [True, True, True], [False]]


def test_what_all_images_share_is_kept_once_the_update_is_done() -> None:
    memory = remembered()
    for value, done in ((1.0, True), (2.0, False)):
        seen = memory.batch(torch.arange(2))
        seen.shared["pattern"] = torch.tensor([value], requires_grad=True)
        seen.numbers["accuracy"] = seen.logged["rescued"] = value
        if done:
            seen.commit()
    assert memory.shared["pattern"].tolist() == [1.0] and not memory.shared["pattern"].requires_grad
    assert memory.numbers == {"accuracy": 1.0} and memory.logged == {"rescued": 1.0}


@pytest.mark.parametrize("name", METHODS)
def test_which_methods_processes_can_share(name: str) -> None:
    said = {
        "nuat": "takes a batch as a whole",
        "free-at": "remembers each image of a batch",
        "fgsm-pgi": "remembers each image of a batch",
        "fgsm-mep": "remembers each image of a batch",
        "pco": "remembers each image of a batch",
        "atas": "remembers each image of a batch",
        "uap": "remembers a batch as a whole",
        "cuap": "remembers a batch as a whole",
        "rs-cs": "remembers a batch as a whole",
        "rs-aaer": "takes a batch as a whole",
        "n-aaer": "takes a batch as a whole",
    }
    if name not in said:
        check_shared(bind(name, EPS), SHAPE, CLASSES)
        return
    with pytest.raises(UsageError) as refused:
        check_shared(bind(name, EPS), SHAPE, CLASSES)
    advice = "so processes cannot share it; run it without torchrun"
    assert str(refused.value) == f"--method {name}: {said[name]}, {advice}"


@pytest.mark.parametrize(
    ("shape", "classes", "eps"),
    [
        pytest.param((3, 32, 32), 100, 8 / 255, marks=pytest.mark.slow),
        pytest.param((1, 28, 28), 10, 0.1, marks=pytest.mark.slow),
        ((1, 8, 8), 2, 0.031),
    ],
)
@pytest.mark.parametrize("name", ["rs-aaer", "n-aaer", "zero-grad", "dynamic-at", "elle", "llr"])
def test_what_processes_can_share_depends_on_no_shape(name: str, shape, classes: int, eps: float) -> None:
    assert whole_batch(bind(name, eps), shape, classes) == ("takes a batch as a whole" if "aaer" in name else "")


def test_what_a_method_will_remember_is_known_from_its_first_updates() -> None:
    """Also tensors used only in later epochs, which resuming needs."""
    found = {name: profile(bind(name, EPS), SHAPE, CLASSES).memory for name in ("atas", "pco", "fgsm-pgi", "rs-cs")}
    assert {name: sorted(memory.rows) for name, memory in found.items()} == {
        "atas": ["delta", "period", "v"], "pco": ["period", "prior"], "fgsm-pgi": ["momentum", "period", "prior"],
        "rs-cs": [],
    }  # fmt: skip
    assert found["rs-cs"].shared["start"].shape == (4,) and not found["rs-cs"].numbers
