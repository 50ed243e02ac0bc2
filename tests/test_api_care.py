"""What the Python door must not get wrong: changed networks, networks that write to their input, the caller's modes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bsk
from bsk.attacks.outside import distance, is_outside
from bsk.data.store import open_data
from bsk.errors import InputError, UsageError
from bsk.evaluation.rounding import levels_of
from bsk.perturb.ball import L1


@pytest.mark.parametrize("how", ["layer", "hook", "function"])
def test_a_changed_network_is_not_its_checkpoint(trained: Path, toy: Path, how: str) -> None:
    model, data = bsk.load(trained), open_data(toy)
    split = data.split("test")
    own = bsk.evaluate(model, data=data, attack="natural", progress=False).record
    assert own["checkpoint"].endswith("m.safetensors")
    name, layer = next((name, each) for name, each in model.named_modules() if isinstance(each, nn.ReLU))
    if how == "layer":
        model.get_submodule(name.rpartition(".")[0])._modules[name.rpartition(".")[2]] = nn.Identity()
    elif how == "hook":
        layer.register_forward_hook(lambda module, inputs, output: 0 * output)
    else:
        layer.forward = lambda x: 0 * x  # type: ignore[method-assign]
    x = split.images.float() / 255
    changed = bsk.evaluate(model, x, split.labels, attack="natural", eps=0.1, progress=False).record
    assert not changed["checkpoint"].endswith("m.safetensors") and changed["method"] is None


class InPlace(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.change = nn.Linear(64, 3), change

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.change(x).flatten(1))


@pytest.mark.parametrize("change", [lambda x: x.sub_(0.5), lambda x: x.clamp_(min=0.3), lambda x: x.round_()])
def test_a_network_that_changes_its_input_is_refused(change: Callable[[Tensor], Tensor]) -> None:
    x, y = torch.rand(8, 1, 8, 8), torch.arange(8) % 3
    with pytest.raises(InputError, match=r"changes its input in place, as x.sub_\(mean\) does; write x = x - mean"):
        bsk.evaluate(InPlace(change), x, y, attack="square", eps=0.1, progress=False)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_caller_without_gradients_gets_the_same_attack(mode: Any) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    x, y = torch.rand(8, 1, 8, 8), torch.arange(8) % 3
    expected = bsk.attack(model, x, y, attack="pgd-5", eps=0.1, progress=False)
    with mode():
        found = bsk.attack(model, x, y, attack="pgd-5", eps=0.1, progress=False)
        record = bsk.evaluate(model, x, y, attack="square", eps=0.1, progress=False).record
        assert not torch.is_grad_enabled()
    assert torch.equal(found, expected) and not any("no gradient" in said for said in record["doubts"])


def test_one_attack_makes_one_set_of_images_and_a_start_needs_a_taker() -> None:
    model, x, y = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), torch.rand(4, 1, 8, 8), torch.arange(4) % 3
    with pytest.raises(UsageError, match="give the name of one attack"):
        bsk.attack(model, x, y, attack=["pgd-5", "square"], eps=0.1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--start: no attack here takes it; it is for fgsm, pgd, cw"):
        bsk.evaluate(model, x, y, attack="apgd-ce", eps=0.1, start="uniform")


def test_without_data_a_checkpoint_is_evaluated_on_what_it_was_trained_on(
    trained: Path, toy: Path, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = bsk.evaluate(trained, attack="natural", progress=False).record
    assert found["data_sha256"] == open_data(toy).sha256 and found["doubts"] == []
    said = call("starts", trained, "--start", "zero", "--limit", "8")
    assert open_data(toy).sha256 in said.stdout


@pytest.mark.parametrize(("norm", "eps"), [("l2", 1.0), ("l2", 2.0), ("l1", 12.0)])
def test_rounded_images_stay_in_the_ball_and_are_accepted(norm: str, eps: float) -> None:
    random = torch.Generator().manual_seed(0)
    clean = torch.randint(60, 200, (200, 1, 28, 28), generator=random, dtype=torch.uint8)
    x = clean.double() / 255
    away = torch.randn(x.shape, generator=random, dtype=torch.float64)
    size = away.flatten(1).abs().sum(1) if norm == "l1" else away.flatten(1).norm(dim=1)
    levels, _ = levels_of((x + eps * away / size[:, None, None, None]).float(), clean, eps, norm)
    order = 1 if norm == "l1" else 2
    sums = (levels.double() - clean.double()).abs().pow(order).flatten(1).sum(1)
    assert bool((sums <= (eps * 255) ** order * (1 + 1e-9)).all())  # whole levels
    assert not is_outside(distance(levels.float() / 255, clean.float() / 255, norm), eps, norm)


def test_images_on_the_edge_of_an_l1_ball_in_fp32_are_within_it() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.rand(64, 3, 32, 32, generator=random)
    for eps in (2.0, 12.0, 60.0):
        found = L1(x, eps).project(x + torch.randn(x.shape, generator=random))
        assert not is_outside(distance(found, x, "l1"), eps, "l1")
        assert is_outside(distance(found, x, "l1") + 1 / 255, eps, "l1")
