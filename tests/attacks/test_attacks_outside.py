"""User-defined attacks on the command line and in Python; bsk checks their results and their contract."""

import json
import sys
from pathlib import Path

import pytest
import torch

import bsk
from bsk.attacks.flags import AttackFlags
from bsk.attacks.registry import attack_named, attacks_named
from bsk.data.store import open_data
from bsk.errors import InputError, UsageError
from bsk.perturb.draws import example_draws

EPS = 0.1
SOURCE = '''
import torch
from bsk.attacks.outcome import Outcome

def signs(model, x, y, *, eps, draws, steps=3, scale=1.0, loud=False, way=None):
    """PGD of step eps / 4 as anybody would write it."""
    assert isinstance(model, torch.nn.Module) and not model.training
    if loud:
        print("talking")
    at = x
    for _ in range(steps):
        at = at.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(at), y, reduction="sum"), at)
        at = (at + scale * eps / 4 * gradient.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    return at

def random(model, x, y, eps, draws): return (x + eps * draws.uniform(x)).clamp(0, 1)
def nothing(model, x, y, *, eps, draws): return x
def boasts(model, x, y, *, eps, draws):
    true, zero = torch.ones_like(y).bool(), torch.zeros_like(y)
    return Outcome(x, true, zero, zero)
def length(model, x, y, *, eps, draws, norm):
    d = draws.gaussian(x)
    assert norm == "l2"
    return (x + eps * d / d.flatten(1).norm(dim=1)[:, None, None, None]).clamp(0, 1)

def no_eps(model, x, y, *, draws): return x
def no_draws(model, x, y, *, eps): return x
def no_default(model, x, y, *, eps, draws, alpha): return x
def other_shape(model, x, y, *, eps, draws): return x[:, :, 1:]
def no_tensor(model, x, y, *, eps, draws): return x.numpy()
def nan(model, x, y, *, eps, draws): return x / 0 * 0
def sparse(model, x, y, *, eps, draws): return x.to_sparse()
def empty(model, x, y, *, eps, draws): return x.to("meta")
def whole(model, x, y, *, eps, draws): return x.round().long()
def unwritable(model, x, y, *, eps, draws, worst=float("nan"), steps=3): return x
def far(model, x, y, *, eps, draws): return (x + 2 * eps).clamp(0, 1)
def dark(model, x, y, *, eps, draws): return x - eps
def inside(model, x, y, *, eps, draws): return x.fill_(0.5)
def fails(model, x, y, *, eps, draws): return x[100]
def leaves(model, x, y, *, eps, draws): raise SystemExit
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "myattacks.py").write_text(SOURCE)
    yield "myattacks"
    sys.modules.pop("myattacks", None)


def linear(x: torch.Tensor) -> torch.Tensor:
    """Three classes, each the brightness of a quadrant of 8 x 8 images."""
    quadrants = (x[..., :4, :4], x[..., :4, 4:], x[..., 4:, :4])
    return torch.stack([part.mean(dim=(1, 2, 3)) for part in quadrants], dim=1)


def judged(toy: Path, name: str, **more) -> bsk.Evaluation:
    split = open_data(toy).split("test", 30)
    return bsk.evaluate(linear, split.images, split.labels, attack=name, checks=False, eps=EPS, **more)


def test_verdicts_come_from_the_images_that_it_returns(module: str, toy: Path) -> None:
    split = open_data(toy).split("test", 30)
    x, y = split.images / 255, split.labels
    natural = linear(x).argmax(dim=1) == y
    for name in ("nothing", "boasts"):
        assert torch.equal(judged(toy, f"{module}:{name}").correct, natural)
    at = x.clone()
    for _ in range(3):  # the margin of a linear model falls fastest along the sign of its gradient
        leaf = at.clone().requires_grad_()
        torch.nn.functional.cross_entropy(linear(leaf), y, reduction="sum").backward()
        at = (at + EPS / 4 * leaf.grad.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    found = judged(toy, f"{module}:signs")
    assert torch.equal(found.correct, natural & (linear(at).argmax(dim=1) == y))
    assert found.accuracy < natural.float().mean()
    standing = int(natural.sum())
    assert found.record["forward_passes"] == 30 + 4 * standing and found.record["backward_passes"] == 3 * standing
    adversarial = bsk.attack(linear, x, y, attack=f"{module}:signs", eps=EPS)
    torch.testing.assert_close(adversarial[natural], at[natural])


def test_its_arguments_are_set_and_recorded(call, module: str, toy: Path) -> None:
    record = judged(toy, f"{module}:signs", settings={"steps": 5}).record
    parameters = record["attack_parameters"]
    code = parameters.pop("code")
    assert parameters == {"norm": "linf", "steps": 5, "scale": 1.0, "loud": False, "way": None, "seed": 0}
    assert len(code) == 64 and record["key"] != judged(toy, f"{module}:signs").record["key"]
    flags = AttackFlags(settings={"steps": "4", "scale": "1/2", "loud": "true", "way": "left"})
    (attack,) = attacks_named([f"{module}:signs"], EPS, flags)
    mine = {"steps": 4, "scale": 0.5, "loud": True, "way": "left"}
    assert attack.parameters == {"norm": "linf", **mine, "code": code}


def test_an_edit_of_its_code_is_another_evaluation(module: str, toy: Path, tmp_path: Path) -> None:
    before = attack_named(f"{module}:random", EPS).parameters["code"]
    sys.modules.pop(module)
    (tmp_path / "myattacks.py").write_text(SOURCE + "# edited\n")
    assert attack_named(f"{module}:random", EPS).parameters["code"] != before


def test_it_gets_the_draws_of_each_example_and_the_norm(module: str, toy: Path) -> None:
    split = open_data(toy).split("test", 6)
    x, y = split.images / 255, split.labels
    stage = attack_named(f"{module}:random", EPS).stages[-1]
    found = stage(linear, x, y, example_draws(0, stage.name, list(range(6))), EPS)
    expected = (x + EPS * example_draws(0, stage.name, list(range(6))).uniform(x)).clamp(0, 1)
    assert torch.equal(found.x_adv, expected)
    assert judged(toy, f"{module}:length", norm="l2").record["attack_parameters"]["norm"] == "l2"


def test_it_is_one_of_several_at_the_command_line(call, trained: Path, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "myattacks.py").write_text(SOURCE)
    words = ["evaluate", trained, "--data", toy, "--limit", 30, "--no-checks", "--eps", EPS, "--out", "r.jsonl"]
    more = ["--set", "steps=4", "--set", "loud=true", "--attack", "natural,myattacks:signs,pgd-3"]
    natural, mine, _ = (json.loads(line) for line in call(*words, *more).stdout.splitlines())
    assert mine["accuracy"] <= natural["accuracy"] and mine["attack"] == "myattacks:signs"
    assert mine["attack_parameters"]["steps"] == 4
    settings = {"steps": 4, "loud": True}
    ours = bsk.evaluate(trained, data=toy, limit=30, checks=False, eps=EPS, attack="myattacks:signs", settings=settings)
    assert {**ours.record, "seconds": 0} == {**mine, "seconds": 0}
    call("attack", trained, "--data", toy, "--attack", "myattacks:signs", "--eps", EPS, "--out", "a.safetensors")
    sys.modules.pop("myattacks")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("myattacks:no_eps", 2, "it has no argument eps; expected def my_attack(model, x, y, *, eps, draws)"),
        ("myattacks:no_draws", 2, "it has no argument draws"),
        ("myattacks:no_default", 2, "its argument alpha has no default"),
        ("myattacks:sings", 2, "myattacks has no sings; did you mean signs?"),
        ("mynowhere:signs", 2, "no module mynowhere here"),
        ("myattacks:signs --set step=4", 2, "--set step: no such argument; did you mean steps?"),
        ("myattacks:signs --set steps=x", 2, "--set steps=x: expected a whole number, like its default 3"),
        ("myattacks:signs --set steps", 2, "--set steps: expected NAME=VALUE"),
        ("pgd-3 --set steps=3", 2, "--set steps: no attack here takes it; it is for module:function"),
        ("myattacks:other_shape", 3, "expected images (30, 1, 8, 8), found (30, 1, 7, 8); check other_shape in myatt"),
        ("myattacks:no_tensor", 3, "expected images (30, 1, 8, 8), found a ndarray; check no_tensor in myattacks.py"),
        ("myattacks:nan", 3, "expected images in [0, 1], found NaN or infinity; check nan in myattacks.py"),
        ("myattacks:sparse", 3, "expected dense images of a float type, found sparse_coo float32"),
        ("myattacks:empty", 3, "expected dense images of a float type, found meta"),
        ("myattacks:whole", 3, "expected dense images of a float type, found strided int64"),
        ("myattacks:far", 3, "expected images within eps 0.1 of x (linf), found one 0.2"),
        ("myattacks:dark", 3, "expected images in [0, 1], found values from -0.1"),
        ("myattacks:inside", 3, "expected images within eps 0.1 of x (linf), found one 0.5"),
        ("myattacks:fails", 3, "IndexError: index 100 is out of bounds"),
        ("myattacks:leaves", 3, "SystemExit: no message; check leaves in myattacks.py"),
    ],
)
def test_a_violated_contract_is_a_one_line_error(module: str, toy: Path, words: str, code: int, said: str) -> None:
    name, *more = words.split()
    settings = None
    with pytest.raises((UsageError, InputError)) as refused:
        from bsk.signature import pairs

        settings = pairs(more[1:])
        judged(toy, name, settings=settings)
    assert said in str(refused.value) and "\n" not in str(refused.value) and refused.value.exit_code == code


def test_an_argument_that_no_record_can_hold_is_refused_only_where_one_is_written(module: str, toy: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written to a record .*; make it a finite number, text or None"):
        judged(toy, f"{module}:unwritable")
    assert judged(toy, f"{module}:unwritable", settings={"worst": 2.0}).record["attack_parameters"]["worst"] == 2.0
    split = open_data(toy).split("test", 3)
    x = split.images / 255
    assert torch.equal(bsk.attack(linear, x, split.labels, attack=f"{module}:unwritable", eps=EPS), x)
