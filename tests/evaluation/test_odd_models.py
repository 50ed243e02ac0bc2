"""Unusual networks around one plain network: the same result, another one with a doubt, or a refusal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import bsk
from bsk.attacks.pgd import pgd
from bsk.data.store import open_data
from bsk.errors import InputError
from bsk.models.small import cnn
from bsk.perturb.draws import example_draws

ODD = """
import sys
import torch
from torch import nn


def plain():
    return nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))


class Around(nn.Module):
    def __init__(self, before=lambda x: x, after=lambda z: z):
        super().__init__()
        self.net, self.before, self.after = plain(), before, after

    def load_state_dict(self, state, *args, **kwargs):
        return self.net.load_state_dict(state, *args, **kwargs)

    def state_dict(self, *args, **kwargs):
        return self.net.state_dict(*args, **kwargs)

    def forward(self, x):
        return self.after(self.net(self.before(x)))


class Half(Around):
    def forward(self, x):
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return self.net(x).float()


def said(text, x):
    print(text)
    return x


def fail(error):
    def raised(x):
        if len(x) > 2:
            raise error
        return x

    return Around(before=raised)


def no_gradient(): return Around(after=lambda z: z.detach())
def no_graph(): return Around(after=lambda z: z.detach().clone().requires_grad_())
def nan_gradient(): return Around(after=lambda z: z + (0 * z).abs().sqrt())
def nan_pixel(): return Around(before=lambda x: x + torch.nn.functional.pad((0 * x[..., :1, :1]).sqrt(), (0, 7, 0, 7)))
def talks(): return Around(before=lambda x: said("forward", x))
def doubles_rows(): return Around(after=lambda z: z if len(z) < 3 else z.repeat(2, 1))
def one_column(): return Around(after=lambda z: z if len(z) < 3 else z.sum(1))
def a_tuple(): return Around(after=lambda z: z if len(z) < 3 else (z, z))
def raises_later(): return fail(KeyError("lookup"))
def leaves(): return fail(SystemExit(0))
def out_of_memory(): return fail(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
def leans_on_the_batch(): return Around(before=lambda x: x - 0.5 * x.mean(0, keepdim=True))
def squeezes(): return Around(after=lambda z: z.squeeze())
def scripted(): return torch.jit.script(plain())
def traced(): return torch.jit.trace(plain(), torch.zeros(2, 1, 8, 8))
def compiled(): return torch.compile(plain())
def half_inside(): return Half()
def half_weights(): return plain().half()
def lazy(): return nn.Sequential(nn.LazyConv2d(4, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))


def double_by_default():
    torch.set_default_dtype(torch.float64)
    return plain()


def on_another_device_by_default():
    net = plain()
    torch.set_default_device("meta")
    return net


def without_gradients():
    torch.set_grad_enabled(False)
    return plain()


def counts_rows():
    def count(x):
        counts_rows.most = max(counts_rows.most, len(x))
        return x

    return Around(before=count)


counts_rows.most = 0


def self_loading():
    net = plain()
    net.load_state_dict(torch.load(__file__.replace("odd_networks.py", "plain.pt")))
    return net
"""
GRADIENTS = (
    "pgd-10",
    "apgd-ce",
    "fab-t",
    "apgd-ce --norm l2 --eps 1",
    "fab-t --norm l2 --eps 1",
)


@pytest.fixture
def odd(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The module `odd_networks` in this folder, and trained weights of its plain network for the toy data."""
    import sys

    (tmp_path / "odd_networks.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)
    import odd_networks  # type: ignore[import-not-found]

    torch.manual_seed(0)
    net, data = odd_networks.plain(), open_data(toy).split("train")
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(30):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(data.images / 255), data.labels).backward()
        optimiser.step()
    torch.save(net.state_dict(), tmp_path / "plain.pt")
    yield tmp_path / "plain.pt"
    sys.modules.pop("odd_networks", None)


@pytest.fixture
def measured(call, odd: Path, toy: Path) -> Callable[..., list[dict[str, Any]]]:
    """Evaluate a network of `odd_networks` on 24 of the toy's images, by the command line."""

    def run(name: str, attack: str, check: int = 0, *more: str) -> Any:
        words = ["--model", f"odd_networks:{name}", "--weights", odd, "--data", toy, "--limit", "24"]
        eps = () if "--eps" in attack else ("--eps", "0.08")
        said = call("evaluate", *words, *eps, "--attack", *attack.split(), *more, "--quiet", check=check)
        return said if check else [json.loads(line) for line in said.stdout.splitlines()]

    return run


@pytest.mark.parametrize(
    "name",
    [
        "talks",
        "squeezes",
        "scripted",
        "traced",
        "compiled",
        "half_weights",
        "lazy",
        "double_by_default",
        "on_another_device_by_default",
        "without_gradients",
    ],
)
def test_a_wrapped_network_gives_the_plain_networks_result(measured, name: str) -> None:
    dtype = torch.get_default_dtype()
    expected = measured("plain", "natural,pgd-10")
    found = measured(name, "natural,pgd-10")
    assert [each["correct"] for each in found] == [each["correct"] for each in expected]
    assert [each["doubts"] for each in found] == [[], []] and expected[1]["accuracy"] > 0
    assert torch.get_default_dtype() == dtype and torch.is_grad_enabled()
    assert torch.get_default_device() == torch.device("cpu")


@pytest.mark.parametrize(
    "name, said",
    [
        ("doubles_rows", "expected logits (24, classes) for 24 images, found (48, 3)"),
        ("one_column", "found (24,)"),
        ("a_tuple", "found a tuple"),
        ("raises_later", "KeyError: 'lookup'"),
        ("leaves", "SystemExit: 0"),
    ],
)
@pytest.mark.parametrize("attack", ["natural", "pgd-10"])
def test_a_later_failure_of_a_network_is_one_line_that_names_it(measured, name: str, said: str, attack: str) -> None:
    line = measured(name, attack, 3).line
    assert f"--model odd_networks:{name}: " in line and said in line


def test_running_out_of_memory_names_the_next_step(measured) -> None:
    assert "out of memory; lower --batch-size" in measured("out_of_memory", "natural", 3).line


@pytest.mark.parametrize("name", ["no_gradient", "no_graph"])
def test_a_black_box_is_attacked_by_queries_alone(measured, name: str) -> None:
    (plain,) = measured("plain", "square --queries 50")
    (found,) = measured(name, "square --queries 50")
    assert found["correct"] == plain["correct"] and ["no gradient" in each for each in found["doubts"]] == [True]
    (rays,) = measured(name, "rays --queries 50")
    assert 0 < rays["adbd"] < 1 and len(rays["doubts"]) == 1
    for attack in GRADIENTS:
        assert "square or rays" in measured(name, attack, 3).line


@pytest.mark.parametrize("attack", GRADIENTS)
def test_a_gradient_that_is_nan_is_a_doubt_and_stops_no_other_pixel(measured, attack: str) -> None:
    (blind,) = measured("nan_gradient", attack)
    assert any("NaN for 100%" in doubt for doubt in blind["doubts"])
    (plain,) = measured("plain", attack)
    (one,) = measured("nan_pixel", attack)
    assert one["accuracy"] < blind["accuracy"] and abs(one["accuracy"] - plain["accuracy"]) < 2 / 24
    assert any("NaN" in doubt for doubt in one["doubts"])


@pytest.mark.parametrize("attack", ["natural", "pgd-10"])
def test_a_network_that_depends_on_the_batch_is_doubted_under_every_attack(measured, attack: str) -> None:
    assert any("depends on the rest" in doubt for doubt in measured("leans_on_the_batch", attack)[0]["doubts"])


def test_half_precision_inside_is_a_doubt(measured) -> None:
    assert any("half precision" in doubt for doubt in measured("half_inside", "pgd-10")[0]["doubts"])


@pytest.mark.parametrize(
    ("size", "attack"),
    [
        pytest.param(1, "fgsm", marks=pytest.mark.slow),
        *((size, attack) for size in (5, 64) for attack in ("fgsm", "apgd-t", "square --queries 20")),
    ],
)
def test_no_call_has_more_rows_than_the_batch_size(measured, odd: Path, size: int, attack: str) -> None:
    import odd_networks

    odd_networks.counts_rows.most = 0
    measured("counts_rows", attack, 0, "--batch-size", str(size))
    assert 0 < odd_networks.counts_rows.most <= size


def test_a_network_that_loads_its_own_weights_needs_none(call, measured, odd: Path, toy: Path) -> None:
    words = ["--data", toy, "--limit", "24", "--eps", "0.08", "--attack", "pgd-10", "--quiet"]
    found = json.loads(call("evaluate", "--model", "odd_networks:self_loading", *words).stdout)
    assert found["correct"] == measured("plain", "pgd-10")[0]["correct"]
    torch.save({name: 0 * each for name, each in torch.load(odd).items()}, odd)
    other = json.loads(call("evaluate", "--model", "odd_networks:self_loading", *words).stdout)
    assert other["key"] != found["key"]


def test_mean_and_std_are_of_pixels_in_0_1(measured) -> None:
    assert "divide by 255" in measured("plain", "natural", 2, "--mean", "123.7", "--std", "58.4").line
    assert "divide by 255" in measured("plain", "natural", 2, "--mean", "0.4", "--std", "58.4").line


def test_images_in_0_255_are_refused_from_python(trained: Path, toy: Path) -> None:
    x, y = open_data(toy).split("test").images[:4].float(), torch.zeros(4, dtype=torch.int64)
    draws = example_draws(0, "test", range(4), x.device)
    for attempt in (lambda: bsk.load(trained)(x), lambda: pgd(cnn(3, 1, 8), x, y, draws, eps=8, step=2, steps=1)):
        with contextlib.ExitStack() as stack:
            error = stack.enter_context(pytest.raises(InputError))
            attempt()
        assert "expected [0, 1]" in str(error.value)


def test_the_last_epoch_is_left_out_beside_the_best(call, trained: Path, toy: Path) -> None:
    both, words = sorted(trained.parent.glob("*.safetensors")), ["--data", toy, "--attack", "natural"]
    assert [path.name for path in both] == ["m.last.safetensors", "m.safetensors"]
    said = call("evaluate", *both, *words)
    assert [json.loads(line)["checkpoint"] for line in said.stdout.splitlines()] == [str(trained)]
    assert "m.last.safetensors: skipped" in said.stderr
    assert len(call("evaluate", *both, *words, "--last").stdout.splitlines()) == 2
    assert len(call("evaluate", both[0], *words).stdout.splitlines()) == 1
