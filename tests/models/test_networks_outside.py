"""User-defined networks: trained, loaded and evaluated, and imported only if the user names them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import bsk
from bsk.data.store import DataFile, Info, Part, open_data, write
from bsk.errors import InputError, UsageError
from bsk.models.registry import build
from bsk.plugins import load
from bsk.records import checkpoints
from bsk.records.checkpoints import MODEL

SOURCE = """
import torch
from torch import nn
class Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.relu()
    @staticmethod
    def backward(ctx, g): raise NotImplementedError("relu without backward")
class Backless(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 3)
    def forward(self, x): return Relu.apply(self.layer(x.flatten(1)))
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 3)
        self.second.weight = self.first.weight
        self.register_buffer("places", torch.arange(64.0).expand(2, 64))
    def forward(self, x): return self.last(self.second(self.first(x.flatten(1)).relu()).relu() + self.places[1] / 64)
class Turned(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.turn = nn.Linear(64, 3), torch.randn(64, 64)  # in no state dict
    def forward(self, x): return self.layer(x.flatten(1) @ self.turn)
class Told(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 3)
    def forward(self, x): return self.layer(x.flatten(1))
    def get_extra_state(self): return {"a": 1}
    def set_extra_state(self, state): pass
class Locked(Turned):
    def __init__(self):
        super().__init__()
        import threading
        self.lock = threading.Lock()
class Once(Relu):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g): return g
class Bent(Backless):
    def forward(self, x): return self.layer(Once.apply(x.flatten(1)))
def net(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
def other(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
def wide(): return nn.Linear(3, 3)
def two(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
def number(): return 3
class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [other()]  # no ModuleList
    def forward(self, x): return self.layers[0](x)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynets.py").write_text(SOURCE)
    yield "mynets"
    sys.modules.pop("mynets", None)


def built(data: DataFile, name: str, seed: int = 1) -> torch.nn.Module:
    return build(name, classes=3, channels=1, size=8, mean=data.mean, std=data.std, seed=seed)


@pytest.fixture
def checkpoint(module: str, toy: Path, tmp_path: Path) -> Path:
    """What `bsk train --model mynets:net` writes."""
    data = open_data(toy)
    header = {"kind": MODEL, "model": "mynets:net", "code": load("mynets:net", "--model").sha256, "flags": {}}
    header |= {"classes": data.classes, "shape": [1, 8, 8], "dataset": "toy", "eps": 0.1, "method": "bs", "seed": 1}
    checkpoints.save(
        tmp_path / "m.safetensors",
        built(data, "mynets:net").state_dict(),
        header | {"mean": data.mean, "std": data.std},
    )
    sys.modules.pop("mynets")
    return tmp_path / "m.safetensors"


def test_its_weights_are_drawn_from_the_seed_and_images_are_normalised(module: str, toy: Path) -> None:
    data = open_data(toy)
    first, again, other = (built(data, "mynets:net", seed) for seed in (1, 1, 2))
    assert all(map(torch.equal, first.parameters(), again.parameters()))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    x, layer = torch.rand(2, 1, 8, 8).to(memory_format=torch.channels_last), first.network[1]
    expected = ((x - data.mean[0]) / data.std[0]).flatten(1) @ layer.weight.T + layer.bias
    torch.testing.assert_close(first(x), expected)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mynets:wide", r"expected logits \(2, 3\) for images \(2, 1, 8, 8\), found .*shapes"),
        ("mynets:two", r"expected logits \(2, 3\) for images \(2, 1, 8, 8\), found \(2, 2\)"),
        ("mynets:number", "expected a torch.nn.Module, found int"),
        ("mynets:nett", "mynets has no nett; did you mean net"),
    ],
)
def test_a_violated_contract_is_a_one_line_error(module: str, toy: Path, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"^--model {name}: {said}") as refused:
        built(open_data(toy), name)
    assert "\n" not in str(refused.value)


def test_a_file_imports_nothing(call, checkpoint: Path, toy: Path) -> None:
    words = ["evaluate", checkpoint, "--data", toy, "--attack", "natural", "--limit", 30]
    line = call(*words, check=2).line
    assert "m.safetensors: its network is your own code; add --model mynets:net" in line
    assert "mynets" not in sys.modules
    record = json.loads(call(*words, "--model", "mynets:net").stdout)
    assert record["model"] == "mynets:net" and len(record["code"]) == 64
    with pytest.raises(UsageError, match="add --model mynets:net"):
        bsk.load(checkpoint)
    ours = bsk.evaluate(bsk.load(checkpoint, model="mynets:net"), data=toy, attack="natural", limit=30)
    assert {**ours.record, "seconds": 0} == {**record, "seconds": 0}


def test_networks_of_both_kinds_are_evaluated_in_one_command(call, trained: Path, request, toy: Path) -> None:
    """--model is for the user's own networks only; without it nothing is evaluated."""
    ours = trained.rename(trained.with_name("ours.safetensors"))
    words = [
        "evaluate",
        ours,
        request.getfixturevalue("checkpoint"),
        "--data",
        toy,
        "--attack",
        "natural",
        "--limit",
        30,
    ]
    refused = call(*words, check=2)
    assert "add --model mynets:net" in refused.line and refused.stdout == ""
    models = [json.loads(line)["model"] for line in call(*words, "--model", "mynets:net").stdout.splitlines()]
    assert models == ["cnn-4", "mynets:net"]
    wrong = call(*words, "--model", "resnet18", check=2)
    assert "has your own mynets:net; name that" in wrong.line and wrong.stdout == ""
    tensors, header = checkpoints.load(words[2], MODEL)
    checkpoints.save(ours.with_name("other.safetensors"), tensors, {**header, "model": "mynets:wide"})
    mixed = call(*words, ours.with_name("other.safetensors"), "--model", "mynets:net", check=2)
    assert "networks of mynets:net, mynets:wide; evaluate each in its own command" in mixed.line
    assert mixed.stdout == ""
    alone = call("evaluate", ours, *words[3:], "--model", "mynets:net", check=2).line
    assert "has bsk's own cnn-4; leave --model out" in alone


def test_its_starts_are_measured_with_its_code_named(call, checkpoint: Path, toy: Path, tmp_path: Path) -> None:
    refused = call("starts", checkpoint, "--data", toy, "--limit", 2, check=2).line
    assert "--model mynets:net" in refused
    done = call("starts", checkpoint, "--data", toy, "--limit", 2, "--model", "mynets:net")
    assert len(done.stdout.splitlines()) == 4 and done.stderr == "", "two starts of two images"
    (tmp_path / "mynets.py").write_text(SOURCE + "# edited\n")
    sys.modules.pop("mynets")
    edited = call("starts", checkpoint, "--data", toy, "--limit", 2, "--model", "mynets:net")
    assert "the code of mynets:net has changed since training" in edited.stderr


def test_changed_code_is_reported_and_gives_another_evaluation(
    call, checkpoint: Path, toy: Path, tmp_path: Path
) -> None:
    words = ["evaluate", checkpoint, "--data", toy, "--attack", "natural", "--limit", 30, "--model", "mynets:net"]
    same = call(*words)
    assert "has changed since training" not in same.stderr
    sys.modules.pop("mynets")
    (tmp_path / "mynets.py").write_text(SOURCE + "# edited\n")
    edited = call(*words)
    assert "the code of mynets:net has changed since training" in edited.stderr
    assert json.loads(edited.stdout)["key"] != json.loads(same.stdout)["key"]


def test_a_network_of_bsk_needs_no_code(call, checkpoint: Path, toy: Path, tmp_path: Path) -> None:
    tensors, header = checkpoints.load(checkpoint, MODEL)
    own = built(open_data(toy), "cnn-4")
    checkpoints.save(tmp_path / "own.safetensors", own.state_dict(), {**header, "model": "cnn-4"})
    with pytest.raises(UsageError, match="own.safetensors has bsk's own cnn-4; leave --model out"):
        bsk.load(tmp_path / "own.safetensors", model="mynets:net")
    checkpoints.save(tmp_path / "odd.safetensors", own.state_dict(), header)
    with pytest.raises(InputError, match="header and tensors do not fit"):
        bsk.load(tmp_path / "odd.safetensors", model="mynets:net")


def test_the_command_trains_it(call, module: str, toy: Path, tmp_path: Path) -> None:
    words = ["--data", toy, "--model", "mynets:net", "--epochs", 2, "--batch-size", 60, "--threads", 1, "--quiet"]
    trained = json.loads(call("train", *words, "--method", "fast-at", "--out", "t.safetensors").stdout)
    assert trained["model"] == "mynets:net" and trained["code"] == load("mynets:net", "--model").sha256
    done = call("evaluate", "t.safetensors", "--data", toy, "--attack", "natural", "--model", "mynets:net")
    record = json.loads(done.stdout)
    assert record["accuracy"] > 0.4 and record["code"] == trained["code"] and "not what" not in done.stderr


def test_tied_weights_and_expanded_buffers_are_saved_averaged_and_resumed(
    call, module: str, toy: Path, tmp_path: Path
) -> None:
    words = ["--data", toy, "--model", "mynets:Tied", "--batch-size", 60, "--schedule", "constant", "--threads", 1]
    words += ["--method", "natural", "--ema", 0.9, "--precision", "fp32", "--quiet"]
    for name, runs in (("whole", [3]), ("twice", [1, 3])):
        for epochs in runs:
            call("train", *words, "--epochs", epochs, "--out", f"{name}.safetensors")
    for which in ("", ".last", ".ema"):
        kinds = ("model", "training-state")
        whole, twice = (
            checkpoints.load(tmp_path / f"{name}{which}.safetensors", kinds)[0] for name in ("whole", "twice")
        )
        assert whole.keys() == twice.keys() and all(torch.equal(whole[name], twice[name]) for name in whole)
        start = "model." * (which == ".last") + "network."
        assert torch.equal(whole[start + "first.weight"], whole[start + "second.weight"])
        assert torch.equal(whole[start + "places"], torch.arange(64.0).expand(2, 64))
    ema = bsk.load(tmp_path / "whole.ema.safetensors", model="mynets:Tied")
    assert bsk.evaluate(ema, data=toy, attack="natural", progress=False).accuracy > 0.5


def test_constants_that_a_network_draws_are_those_of_its_training(call, module: str, toy: Path, tmp_path: Path) -> None:
    words = ["--data", toy, "--model", "mynets:Turned", "--method", "natural", "--epochs", 1, "--seed", 5, "--quiet"]
    end = json.loads(call("train", *words, "--threads", 1, "--out", "t.safetensors").stdout)
    model = bsk.load(tmp_path / "t.safetensors", model="mynets:Turned")
    assert torch.equal(model.network.turn, built(open_data(toy), "mynets:Turned", seed=5).network.turn)
    found = bsk.evaluate(model, data=toy, split="val", attack="natural", progress=False, checks=False)
    assert found.accuracy == pytest.approx(end["val_natural"], abs=0.02)


@pytest.mark.parametrize(
    ("network", "more", "said"),
    [
        ("Told", [], "--model mynets:Told: its _extra_state is no dense tensor, which bsk could not save"),
        (
            "Locked",
            ["--ema", 0.9],
            "--ema: TypeError: cannot pickle '_thread.lock' object; the network cannot",
        ),
    ],
)
def test_a_network_that_cannot_be_saved_or_copied_is_not_trained(
    call, module: str, toy: Path, network: str, more: list, said: str
) -> None:
    words = ["--data", toy, "--model", f"mynets:{network}", "--method", "natural", "--epochs", 1, "--threads", 1]
    assert said in call("train", *words, *more, "--quiet", check=2).line


@pytest.mark.parametrize(
    ("network", "method", "error"),
    [
        ("Backless", "natural", "NotImplementedError: relu without backward"),
        ("Backless", "fast-at", "NotImplementedError: relu without backward"),
        ("Bent", "gradalign", "RuntimeError: trying to differentiate twice"),
    ],
)
def test_a_backward_pass_that_fails_is_a_one_line_error(
    call, module: str, toy: Path, network: str, method: str, error: str
) -> None:
    words = ["--data", toy, "--epochs", 1, "--batch-size", 60, "--threads", 1, "--quiet", "--out", "t.safetensors"]
    done = call("train", "--model", f"mynets:{network}", "--method", method, *words, check=3)
    assert done.line.startswith(f"bsk: the model's backward pass fails: {error}") and "check the model" in done.line


def test_attacks_without_gradients_evaluate_a_network_whose_backward_pass_fails(module: str, toy: Path) -> None:
    model = built(open_data(toy), "mynets:Backless")
    more = {"data": toy, "limit": 30, "eps": 0.1, "progress": False}
    with pytest.raises(InputError, match="the model's backward pass fails: NotImplementedError: relu without"):
        bsk.evaluate(model, attack="pgd-3", **more)
    found = bsk.evaluate(model, attack="square", queries=20, **more)
    assert found.record["checks"]["no_gradients"] and any("has no gradient" in doubt for doubt in found.doubts)


def test_a_network_without_parameters_is_not_trained(call, module: str, toy: Path) -> None:
    line = call("train", "--data", toy, "--model", "mynets:Hidden", "--quiet", check=2).line
    assert line.startswith("bsk: --model mynets:Hidden: has no parameters to train")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])  # with and without batch norm
def test_networks_of_torchvision_are_trained_evaluated_and_loaded(call, name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    random, spec = np.random.default_rng(0), f"torchvision.models:{name}"
    parts = {}
    for split, n in {"train": 24, "val": 6, "test": 9}.items():
        labels = np.arange(n, dtype=np.int64) % 3
        parts[split] = Part(random.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), labels)
    write(tmp_path / "d.safetensors", parts, Info("toy", ["a", "b", "c"], 0.1, [0.5] * 3, [0.25] * 3))
    words = ["--data", "d.safetensors", "--model", spec, "--threads", 1]
    flags = ["--method", "fast-at", "--epochs", 1, "--batch-size", 12, "--lr", 0.01, "--out", "t.safetensors"]
    trained = json.loads(call("train", *words, *flags, "--quiet").stdout)
    assert trained["model"] == spec and trained["code"] == load(spec, "--model").sha256
    own = bsk.load("t.safetensors", model=spec)
    x = torch.rand(2, 3, 32, 32)
    import torchvision  # takes three seconds, so not while tests are collected

    theirs = getattr(torchvision.models, name)(num_classes=3).eval()
    theirs.load_state_dict(own.network.state_dict())
    torch.testing.assert_close(own(x), theirs((x - 0.5) / 0.25))
    record = json.loads(call("evaluate", "t.safetensors", *words, "--attack", "fgsm").stdout)
    assert (record["n"], record["code"]) == (9, trained["code"])
    torch.save(theirs.state_dict(), "w.pt")
    numbers = ["--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]
    foreign = json.loads(call("evaluate", *words, "--weights", "w.pt", *numbers, "--attack", "fgsm").stdout)
    assert foreign["normalisation"] == "flags" and foreign["correct"] == record["correct"]
