"""bsk as a library: the same verdicts and records as the command line, for any model and any images."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import bsk
from bsk import api
from bsk.data.store import open_data
from bsk.errors import DivergedError, InputError, UsageError
from bsk.models.registry import build
from bsk.models.small import cnn
from bsk.records import checkpoints
from bsk.records.checkpoints import MODEL
from bsk.values import exact

EPS = 0.1


def told(record: dict) -> dict:
    """Return a record without the fields that differ between runs."""
    return {name: value for name, value in record.items() if name != "seconds"}


@pytest.fixture(scope="module")
def trained(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a network that is accurate on most of the toy images and robust on some."""
    data = open_data(toy)
    split, model = data.split("train"), build("cnn-4", classes=3, channels=1, size=8, mean=data.mean, std=data.std)
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(20):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(split.images / 255), split.labels).backward()
        optimiser.step()
    header = {"kind": MODEL, "model": "cnn-4", "classes": data.classes, "shape": [1, 8, 8], "dataset": "toy"}
    header |= {"method": "bs", "seed": 1, "selected": "best", "flags": {"gamma": 1.0}, "eps": data.eps}
    path = tmp_path_factory.mktemp("runs") / "m.safetensors"
    checkpoints.save(path, model.state_dict(), header | {"mean": data.mean, "std": data.std})
    return path


def test_an_audit_equals_the_commands_and_has_no_verdict_per_image(call, trained: Path, toy: Path) -> None:
    words = ["--data", toy, "--attack", "autoattack", "--limit", 12, "--eps", "0.05", "--quiet"]
    theirs = json.loads(call("evaluate", trained, *words, "--audit", 3).stdout)
    ours = bsk.evaluate(trained, data=toy, attack="autoattack", limit=12, eps=0.05, audit=3)
    assert told(ours.record) == told(theirs) and ours.accuracy == theirs["accuracy"]
    assert "AutoAttack estimated" in repr(ours) and "survivors audited" in repr(ours)
    with pytest.raises(UsageError, match="an audit has verdicts on a sample only"):
        ours.correct  # noqa: B018 - to ask for it is the test
    (row,) = bsk.compare(ours)
    assert row["attack"] == "autoattack-audit" and row["audit_low"] == ours.record["audit"]["low"]
    x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    for how in ({"audit": 3}, {"within": 1}):
        with pytest.raises(UsageError, match="use it with bsk evaluate"):
            bsk.attack(trained, x, y, attack="autoattack", eps=0.05, **how)


def test_import_loads_no_torch_and_offers_its_names() -> None:
    words = "import sys, bsk; assert 'torch' not in sys.modules and 'numpy' not in sys.modules; print(*dir(bsk))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) >= {"load", "train", "evaluate", "attack", "compare", "prepare"}
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        bsk.evalute  # noqa: B018 - to look it up is the test


def test_a_checkpoint_is_evaluated_as_by_the_command(call, trained: Path, toy: Path) -> None:
    words = ["--data", toy, "--attack", "natural,pgd-5,square", "--limit", 30, "--queries", 40, "--eps", EPS]
    theirs = [json.loads(line) for line in call("evaluate", trained, *words, "--quiet").stdout.splitlines()]
    attacks = ["natural", "pgd-5", "square"]
    ours = bsk.evaluate(bsk.load(trained), data=toy, attack=attacks, limit=30, queries=40, eps=EPS)
    assert [told(each.record) for each in ours] == [told(record) for record in theirs]
    for model in (trained, str(trained)):
        again = bsk.evaluate(model, data=toy, attack="pgd-5", limit=30, eps=EPS, checks=False)
        assert again.record["correct"] == theirs[1]["correct"]
    assert ours[1].accuracy == theirs[1]["accuracy"] and ours[1].low < ours[1].accuracy < ours[1].high
    assert ours[1].correct.dtype == torch.bool and int(ours[1].correct.sum()) == round(30 * ours[1].accuracy)
    assert repr(ours[1]).startswith(f"pgd-5 at eps 0.1: {100 * ours[1].accuracy:.1f} % [") and ours[1].n == 30


def test_images_and_labels_are_judged_in_their_order(trained: Path, toy: Path) -> None:
    model, split = bsk.load(trained), open_data(toy).split("test")
    whole = bsk.evaluate(model, data=toy, attack="pgd-5", checks=False)
    x, y = split.images / 255, split.labels
    for images, labels in (
        (x, y),
        (split.images, y),
        (split.images.numpy().transpose(0, 2, 3, 1), y.numpy()),
        (x.numpy(), y.tolist()),
    ):
        found = bsk.evaluate(model, images, labels, attack="natural")
        assert torch.equal(found.correct, model(x).argmax(dim=1) == y)
    found = bsk.evaluate(model, x.flip(0), y.flip(0), attack="pgd-5", checks=False)
    assert torch.equal(found.correct.flip(0), whole.correct)
    assert found.record["eps"] == whole.record["eps"] and found.record["dataset"] == "toy"
    assert found.doubts == whole.doubts, "that arrays are not the training data's file is no doubt"
    first = bsk.evaluate(model, x, y, attack="pgd-5", limit=7, checks=False)
    assert torch.equal(first.correct, whole.correct[:7])


class Bare(nn.Module):
    """A network without buffers that counts its calls in each mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.contiguous())


def test_any_model_is_evaluated_and_left_as_it_was(toy: Path) -> None:
    torch.manual_seed(0)
    bare, split = Bare(), open_data(toy).split("test")
    x, y = split.images / 255, split.labels
    of_module = bsk.evaluate(bare, x, y, attack="pgd-5", eps=EPS)
    assert bare.training and all(p.requires_grad and p.grad is None for p in bare.parameters())
    weights = bare.layers[2]

    def plain(images: Tensor) -> Tensor:
        return nn.functional.linear(images.flatten(1), weights.weight, weights.bias)

    of_function = bsk.evaluate(plain, x, y, attack="pgd-5", eps=EPS)
    assert torch.equal(of_function.correct, of_module.correct) and of_function.record["model"] == "plain"
    of_data = bsk.evaluate(bare, data=toy, attack="pgd-5")
    assert torch.equal(of_data.correct, of_module.correct) and of_data.record["eps"] == EPS
    loop = x.clone()
    for _ in range(5):
        loop.requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(plain(loop), y, reduction="sum"), loop)
        loop = (loop.detach() + 2 / 8 * EPS * gradient.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
        stands = plain(loop).argmax(dim=1) == y
    assert not bool((of_module.correct & ~stands).any())  # what falls at the last iterate falls at some


def test_a_model_with_batch_norm_keeps_its_statistics(toy: Path) -> None:
    model = cnn(3, 1, 8, 4).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    bsk.evaluate(model, data=toy, attack="natural", limit=9)
    assert model.training and all(torch.equal(before[name], each) for name, each in model.state_dict().items())


def test_adversarial_images_are_tensors(call, trained: Path, toy: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    split = open_data(toy).split("test")
    x, y, model = split.images / 255, split.labels, bsk.load(trained)
    x_adv = bsk.attack(model, x, y, attack="pgd-5", eps=EPS)
    call("attack", trained, "--data", toy, "--attack", "pgd-5", "--eps", EPS, "--out", "a.safetensors", "--no-checks")
    assert torch.equal(x_adv, load_file(tmp_path / "a.safetensors")["images"])
    assert float((x_adv - x).abs().max()) <= EPS + 1e-6
    stands = bsk.evaluate(model, x, y, attack="pgd-5", eps=EPS, checks=False).correct
    assert torch.equal(model(x_adv).argmax(dim=1) == y, stands)


def test_files_are_written_only_where_asked_for(trained: Path, toy: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    before, model = sorted(tmp_path.rglob("*")), bsk.load(trained)
    split = open_data(toy).split("test", 12)
    bsk.evaluate(model, split.images, split.labels, attack="pgd-2", checks=False)
    bsk.attack(model, split.images, split.labels, attack="pgd-2")
    assert bsk.prepare("digits").counts["train"] > 0
    assert sorted(tmp_path.rglob("*")) == before
    first = bsk.evaluate(model, data=toy, attack="pgd-2", limit=12, out="r.jsonl", checks=False)
    again = bsk.evaluate(model, data=toy, attack="pgd-2", limit=12, out="r.jsonl", checks=False)
    assert again.record == first.record and len((tmp_path / "r.jsonl").read_text().splitlines()) == 1


def test_a_model_that_changed_is_not_the_file_that_it_came_from(trained: Path, toy: Path, tmp_path: Path) -> None:
    model, out = bsk.load(trained), tmp_path / "r.jsonl"
    first = bsk.evaluate(model, data=toy, attack="natural", out=out)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    second, third = (bsk.evaluate(model, data=toy, attack="natural", out=out) for _ in range(2))
    assert second.accuracy < first.accuracy and second.record["checkpoint_sha256"] != first.record["checkpoint_sha256"]
    assert len(out.read_text().splitlines()) == 3 and told(third.record) == told(second.record)


def test_records_are_compared_as_by_the_command(call, trained: Path, toy: Path, tmp_path: Path) -> None:
    found = bsk.evaluate(trained, data=toy, attack=["natural", "pgd-3"], checks=False, out=tmp_path / "r.jsonl")
    lines = call("compare", "r.jsonl", "--format", "jsonl").stdout.splitlines()
    for given in (found, [each.record for each in found], tmp_path / "r.jsonl", [str(tmp_path / "r.jsonl")]):
        rows = bsk.compare(given)
        assert rows == [json.loads(line) for line in lines]
    assert repr(rows) == call("compare", "r.jsonl", "--format", "table").stdout
    with pytest.raises(InputError, match="no evaluation or log records among 0"):
        bsk.compare([])


def test_prepare_replaces_nothing_unasked_and_ignores_no_argument(tmp_path: Path) -> None:
    x, y = np.zeros((40, 1, 4, 4), np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None, None] * 6, np.arange(40) % 2
    pairs, other = (
        {"train": (x[:30], y[:30]), "test": (x[30:], y[30:])},
        {"train": (x[10:], y[10:]), "test": (x[:10], y[:10])},
    )
    out, theirs = tmp_path / "d.safetensors", tmp_path / "theirs.safetensors"
    first = bsk.prepare(pairs, out=out).sha256
    assert bsk.prepare(pairs, out=out).sha256 == first
    with pytest.raises(InputError, match="d.safetensors: has other data .*; choose another --out, or pass --force"):
        bsk.prepare(other, out=out)
    assert bsk.prepare(other, out=out, force=True).sha256 != first
    save_file({"weight": torch.zeros(2)}, theirs)
    with pytest.raises(InputError, match="theirs.safetensors: exists and is no data file"):
        bsk.prepare(pairs, out=theirs)
    with pytest.raises(UsageError, match="must end in .safetensors"):
        bsk.prepare(pairs, out=tmp_path / "d.npz")
    for name, value in {"train_limit": 5, "test_limit": 5, "size": 8, "test_split": "none", "source": "x"}.items():
        with pytest.raises(UsageError, match=f"prepare: {name}: for sources, not for arrays"):
            bsk.prepare(pairs, **{name: value})


def test_a_loaded_network_refuses_images_as_bytes(trained: Path) -> None:
    model = bsk.load(trained)
    with pytest.raises(InputError, match=r"images: uint8, expected floats in \[0, 1\]; divide by 255"):
        model(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))


def test_prepared_data_are_the_same_in_memory(call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    limits = {"val": 20, "train_limit": 50, "test_limit": 30}
    memory = bsk.prepare("digits", **limits)
    file = bsk.prepare("digits", out="d.safetensors", **limits)
    words = ["--val", 20, "--train-limit", 50, "--test-limit", 30]
    record = json.loads(call("prepare-data", "digits", *words).stdout)
    assert memory.sha256 == file.sha256 == record["sha256"] and memory.counts == file.counts
    said = "(digits: 50 train, 20 val, 30 test, 10 classes, eps 0.2)"
    assert (repr(memory), repr(file)) == (f"ArrayData{said}", f"DataFile{said}")
    pairs = {name: (file.split(name).images, file.split(name).labels) for name in ("train", "val", "test")}
    mine = bsk.prepare(pairs, out="mine.safetensors")
    assert mine.name == "mine" and torch.equal(mine.split("test").images, file.split("test").images)
    floats = bsk.prepare({"test": (torch.rand(6, 1, 8, 8), torch.arange(6))}).split("test")
    assert floats.images.dtype == torch.float32


def test_a_device_named_without_its_number_is_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    second, module = torch.device("cuda", 1), torch.nn.Linear(2, 2)
    monkeypatch.setattr(api, "device_of", lambda model: second)
    monkeypatch.setattr(api, "chosen_device", torch.device)
    assert api._device(module, None, "cuda") == api._device(module, None, "cuda:1") == second
    for other in ("cuda:0", "cpu"):
        with pytest.raises(UsageError, match=f"device {other}: the model is on cuda:1; move it there first"):
            api._device(module, None, other)


def test_train_makes_its_network_itself(toy: Path) -> None:
    with pytest.raises(UsageError, match="model: a Linear, expected a name or module:function"):
        bsk.train(toy, "bs", model=torch.nn.Linear(2, 2))  # type: ignore[arg-type]


def test_what_is_neither_a_name_nor_data_is_refused_with_what_is(toy: Path) -> None:
    pair: Any = (torch.rand(4, 1, 8, 8), torch.arange(4))
    for call, said in (
        (lambda: bsk.train(pair, "bs"), "data: a tuple, expected prepared data; bsk.from_arrays makes it of arrays"),
        (lambda: bsk.train(toy, test_train_makes_its_network_itself), "method: a function, expected a name or module"),
        (lambda: bsk.prepare(lambda: {}), "prepare: a function, expected the name of a source, module:function or a"),
    ):
        with pytest.raises(UsageError, match=said):
            call()


@pytest.mark.parametrize(("name", "value"), [("epochs", 1.5), ("seed", "1"), ("eps", "8/255"), ("save_every", None)])
def test_numbers_of_another_kind_are_refused(name: str, value: object, toy: Path) -> None:
    """1.5 epochs would be two."""
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} .*: expected a "):
        bsk.train(toy, "natural", **{"model": "cnn-4", name: value})


@pytest.mark.parametrize(("size", "said"), [(8, 8), (16, None), (64, None)])
def test_a_record_has_the_batch_size_where_verdicts_may_depend_on_it(toy: Path, size: int, said: int | None) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    given = {"data": open_data(toy), "attack": "fgsm", "limit": 20, "checks": False, "progress": False}
    assert bsk.evaluate(model, batch_size=size, **given).record.get("batch_size") == said


def test_numbers_of_numpy_are_those_of_python(toy: Path) -> None:
    given: dict[str, Any] = {"epochs": 1, "batch_size": 16, "seed": 2, "limit": 32, "eps": 8 / 255}
    given |= {"beta": 6.0, "gamma": 0.3, "lr": 0.1}
    numbers = {name: (np.int32 if type(value) is int else np.float32)(value) for name, value in given.items()}
    one, two = (bsk.train(toy, "bs", model="cnn-4", **each, progress=False) for each in (given, numbers))
    assert one.log[0]["flags"] == two.log[0]["flags"] and one.log[1]["loss"] == two.log[1]["loss"]
    a, b = (
        bsk.evaluate(one.model, data=toy, attack="pgd-2", progress=False, **each).record
        for each in (
            {"eps": 8 / 255, "limit": 8, "seed": 3},
            {"eps": np.float32(8 / 255), "limit": np.int64(8), "seed": np.int8(3)},
        )
    )
    assert a["key"] == b["key"] and a["correct"] == b["correct"]


def test_a_network_trained_here_is_known_as_bsk_s_own_until_its_weights_change(toy: Path, tmp_path: Path) -> None:
    for out in (None, tmp_path / "m.safetensors"):
        run = bsk.train(toy, "bs", model="cnn-4", epochs=1, schedule="cyclic", out=out, progress=False)
        given = {"data": open_data(toy), "attack": "fgsm", "checks": False, "progress": False}
        record = bsk.evaluate(run.model, **given).record
        assert record["method"] == "bs" and record["train_forward_passes"] == run.record["train_forward_passes"]
        assert record["checkpoint"] == str(out or "run.safetensors") and record["doubts"] == []
        with torch.no_grad():
            next(run.model.parameters()).add_(1)
        assert bsk.evaluate(run.model, **given).record["method"] is None


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({}, UsageError, "no images; pass x and y, or data"),
        ({"x": 1}, UsageError, "give either both x and y, or data"),
        ({"x": 1, "y": 2}, UsageError, "eps: the model has no default radius"),
        ({"x": 1, "y": 2, "attack": "natural", "scale": 255}, InputError, r"x: values from 0 to .*\[0, 1\]"),
        ({"data": 1, "attack": "pdg-10"}, UsageError, "did you mean pgd-1"),
        ({"data": 1, "attack": "pgd-10", "target": "random"}, UsageError, "gives no accuracy to compare"),
        ({"data": 1, "attack": "natural,pgd-10"}, UsageError, "pass several attacks as a list"),
        ({"data": 1, "attack": 5}, UsageError, "attack 5: expected the name of an attack"),
        ({"data": 1, "attack": []}, UsageError, r"attack \[\]: expected the name of an attack"),
        ({"data": 1, "steps": 3}, UsageError, "evaluate: unexpected keyword argument 'steps'; did you mean step?"),
        ({"data": 1, "devise": "cpu"}, UsageError, "unexpected keyword argument 'devise'; did you mean device?"),
        ({"data": 1, "eps": 8}, UsageError, "--eps 8: must be between 0 and 1"),
        (
            {"data": 1, "eps": "8/255"},
            UsageError,
            "--eps '8/255': expected a number, as 8/255 without quotes, or a list",
        ),
        ({"data": 1, "limit": 1.5}, UsageError, "--limit 1.5: expected a whole number"),
        ({"data": 1, "attack": "pgd-10", "step": "2/255"}, UsageError, "--step '2/255': expected a number, as 8/255"),
        ({"data": 1, "compile": True}, UsageError, "--compile True: no such compile"),
        ({"data": 1, "split": "trian"}, UsageError, "did you mean train"),
        (
            {"data": 1, "last_iterate": "no", "attack": "pgd-2"},
            UsageError,
            "--last-iterate 'no': expected True or False",
        ),
        ({"data": 1, "checks": "no"}, UsageError, "--checks 'no': expected True or False"),
        (
            {"data": 1, "largest_first": "no", "eps": [0.1, 0.2]},
            UsageError,
            "--largest-first 'no': expected True or False",
        ),
        ({"data": 1, "batch_size": 2**70}, UsageError, "--batch-size .*: expected a number of at most 63 bits"),
        ({"data": 1, "classes": 3}, UsageError, "unexpected keyword argument 'classes'"),
        ({"data": 1, "settings": "tries=5"}, UsageError, "settings: a str, expected a dict of arguments by name"),
        ({"data": 1, "limit": 0}, UsageError, "--limit 0: must be at least 1"),
        ({"data": 1, "device": "cudda"}, UsageError, "--device cudda: not available"),
        ({"data": "nowhere.safetensors"}, InputError, "nowhere.safetensors: no such file"),
        ({"data": "nowhere"}, UsageError, "no data/nowhere.safetensors"),
    ],
)
def test_invalid_calls_are_one_line_errors(given: dict, kind: type, said: str, toy: Path) -> None:
    split = open_data(toy).split("test", 12)
    values = {"x": split.images / 255 * given.pop("scale", 1), "y": split.labels, "data": toy}
    given = {name: values.get(name, value) if value in (1, 2) else value for name, value in given.items()}
    with pytest.raises(kind, match=said) as refused:
        bsk.evaluate(Bare(), **given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda toy, net: bsk.evaluate(None, data=toy),
            "model: a NoneType, expected a module, a callable, or",
        ),
        (lambda toy, net: bsk.evaluate(SimpleNamespace(model=net), data=toy), "expected .*; pass its .model"),
        (
            lambda toy, net: bsk.evaluate(net, data=toy, attack=torch.zeros(3, 3)),
            "attack tensor.*: expected the name",
        ),
        (
            lambda toy, net: bsk.attack(net, [0], [0], eps=0.1, target=torch.zeros(3)),
            "--target: a Tensor, expected",
        ),
        (lambda toy, net: bsk.load(None), "load: a NoneType, expected the path of a checkpoint"),
        (lambda toy, net: bsk.compare(None), "compare: a NoneType, expected evaluations, trainings, records, paths"),
        (lambda toy, net: bsk.compare([3]), "compare: an int, expected evaluations"),
        (lambda toy, net: bsk.train(toy, init=net), "init: a Bare, expected the path of a file"),
        (lambda toy, net: bsk.train(toy, extra=open_data(toy)), "extra: a DataFile, expected the path of a file"),
        (lambda toy, net: bsk.train(toy, out=3), "out: an int, expected the path of a file"),
        (lambda toy, net: bsk.attack(net, [0], [0], attack=torch.zeros(3, 3)), "attack tensor.*: give the name of one"),
        (lambda toy, net: open_data(toy).split(["test"]), "split .'test'.: no such split"),
        (lambda toy, net: bsk.train(toy, hyper={"gamma": 1}), "--hyper: bs has no hyper; it has start"),
        (lambda toy, net: bsk.train(toy, epoch=1), "--epoch: bs has no epoch; it has .*; did you mean epochs"),
        (lambda toy, net: bsk.train(toy, threads=0), "--threads 0: expected a whole number above 0"),
        (lambda toy, net: bsk.train(toy, threads=1.5), "--threads 1.5: expected a whole number above 0"),
        (lambda toy, net: bsk.train(toy, seed=2**70), "--seed .*: expected a number of at most 63 bits"),
        (lambda toy, net: bsk.train(toy, log_divergence="no"), "--log-divergence 'no': expected True or False"),
        (lambda toy, net: bsk.train(toy, out="m.pt"), "must end in .safetensors"),
        (lambda toy, net: open_data(toy).split("tset"), "split 'tset': no such split; did you mean test"),
        (lambda toy, net: open_data(toy).split("test", 5.5), "limit 5.5: expected a whole number"),
        (lambda toy, net: bsk.prepare("digits", val=5.5), "--val 5.5: expected a whole number above 0"),
        (lambda toy, net: bsk.prepare("digits", train_limit=5.5), "--train-limit 5.5: expected a whole number above 0"),
    ],
)
def test_arguments_of_another_kind_are_one_line_errors(call, said: str, toy: Path) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        call(toy, Bare())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("number", [-1, 0, 5.5])
def test_a_number_of_val_images_is_whole_and_above_0(number: float) -> None:
    pair = (np.zeros((60, 1, 4, 4), np.uint8), np.arange(60) % 3)
    with pytest.raises(UsageError, match=f"arrays: images to hold out: {number}: expected a whole number above 0"):
        bsk.from_arrays(pair, val_images=number)  # type: ignore[arg-type]


@pytest.mark.parametrize("eps", [np.float32(8 / 255), np.array(8 / 255), torch.tensor(8 / 255), 8 / 255])
def test_the_radius_of_arrays_may_be_of_numpy_or_torch(eps: Any) -> None:
    pair = (np.zeros((60, 1, 4, 4), np.uint8), np.arange(60) % 3)
    found = bsk.from_arrays(test=pair, eps=eps).eps
    assert found == 8 / 255 and type(found) is float


@hypothesis.given(st.one_of(st.integers(0, 255).map(lambda k: k / 255), st.integers(0, 9999).map(lambda k: k / 10**6)))
def test_a_float32_of_a_radius_is_that_radius(eps: float) -> None:
    assert exact(np.float32(eps)) == exact(torch.tensor(eps).item()) == exact(eps) == eps


@hypothesis.given(st.floats(-3e38, 3e38))
def test_other_numbers_stay_as_they_are(value: float) -> None:
    assert np.float32(exact(value)) == np.float32(value)
    assert exact(value) == value or np.float32(value) == value
    assert exact(math.inf) == math.inf and math.isnan(exact(math.nan)) and exact("8/255") == "8/255"


def test_trainings_are_compared_without_files(toy: Path) -> None:
    runs = [
        bsk.train(toy, method, model="cnn-4", epochs=1, schedule="cyclic", progress=False) for method in ("at", "bs")
    ]
    assert [row["name"] for row in bsk.compare(*runs)] == ["at", "bs"] == [row["name"] for row in bsk.compare([runs])]
    (row,) = bsk.compare(bsk.evaluate(runs[0].model, data=toy, attack="fgsm", checks=False, progress=False), runs)
    assert row["train_seconds"] == runs[0].record["train_seconds"]


def test_models_in_memory_that_compute_different_functions_are_told_apart(toy: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale = scale  # which is in no tensor

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3] ** self.scale

    def sha256(model: Any) -> str:
        return str(bsk.evaluate(model, data=toy, attack="natural", progress=False).record["checkpoint_sha256"])

    one, other = Bare(), Bare()
    assert sha256(lambda x: one(x)) == sha256(lambda x: one(x)) != sha256(lambda x: other(x) + x.flatten(1)[:, :3])
    assert sha256(Scaled(1.0)) == sha256(Scaled(1.0)) != sha256(Scaled(2.0))


@pytest.mark.parametrize("batch_size", [1, None])
def test_an_exported_program_is_evaluated_like_its_network(toy: Path, batch_size: int | None) -> None:
    """Some take any number of images, some only one at a time."""
    one, other = (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)) for _ in range(2))
    shapes = None if batch_size else ({0: torch.export.Dim("n")},)
    found = []
    for net in (one, other):
        program = torch.export.export(net, (torch.zeros(batch_size or 8, 1, 8, 8),), dynamic_shapes=shapes).module()
        for model in (program, net):
            how = {"attack": "fgsm", "checks": False, "progress": False, "batch_size": batch_size, "limit": 20}
            found.append(bsk.evaluate(model, data=toy, **how))
    assert torch.equal(found[0].correct, found[1].correct) and torch.equal(found[2].correct, found[3].correct)
    assert len({each.record["checkpoint_sha256"] for each in found}) == 4


def test_a_model_s_parts_keep_their_modes(toy: Path) -> None:
    """Frozen batch norms stay so, and a model that cannot say its mode is told."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).train()
    model[2].eval()
    bsk.evaluate(model, data=toy, attack="natural", progress=False)
    assert [each.training for each in model] == [True, True, False, True]


def test_a_model_with_random_numbers_of_its_own_is_one_model(toy: Path) -> None:
    random, net = torch.Generator().manual_seed(0), Bare()

    def noisy(x: Tensor) -> Tensor:
        return net(x) + 0.1 * torch.randn(len(x), 3, generator=random)

    one, other = (bsk.evaluate(noisy, data=toy, attack="natural", progress=False).record for _ in range(2))
    assert one["checkpoint_sha256"] == other["checkpoint_sha256"]


def test_a_failed_training_without_a_file_names_none(toy: Path) -> None:
    with pytest.raises(DivergedError) as told:
        bsk.train(toy, "natural", model="cnn-4", lr=1e30, epochs=1, schedule="constant", progress=False)
    assert str(told.value).startswith("run.safetensors: ") and "--force" not in str(told.value)
