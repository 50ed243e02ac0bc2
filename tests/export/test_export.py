"""Networks exported to the formats of other tools, and read back by those tools."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import bsk
from bsk.export import network as module
from bsk.records.fields import convert
from bsk.records.jsonl import sha256
from bsk.records.schema import ExportRecord


def printed(text: str) -> dict[str, object]:
    record: dict[str, object] = json.loads(text)
    convert(record, ExportRecord)
    return record


NAMES = {
    "resnet18-2": {"conv1.weight", "bn1.running_var", "layer2.0.shortcut.1.bias", "layer4.1.bn2.weight", "linear.bias"},
    "preact-resnet18-2": {
        "conv1.weight",
        "layer2.0.shortcut.0.weight",
        "layer4.1.bn2.weight",
        "bn.bias",
        "linear.bias",
    },
    "wrn-10-1": {
        "conv1.weight",
        "block3.layer.0.convShortcut.weight",
        "block2.layer.0.bn2.bias",
        "bn1.bias",
        "fc.bias",
    },
    "wrn-10-1-silu": {"init_conv.weight", "layer.2.block.0.conv_1.weight", "batchnorm.bias", "logits.bias", "mean"},
    "cnn-2": {"0.weight", "1.running_mean", "10.bias"},
    "exported_nets:net": {"linear.weight", "linear.bias"},
}


@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_is_readable_by_other_tools(call, saved, toy: Path, name: str) -> None:
    """It is a plain state dict, and bsk reads it like foreign weights, with the same verdicts."""
    model = ["--model", name] if ":" in name else []
    done = call("export", saved(name), "--to", "torch", "--out", "w.pt", *model)
    record = printed(done.stdout)
    assert record["difference"] == 0.0 and record["sha256"] == sha256(Path("w.pt"))
    told = "w.pt: expects normalised images; in bsk pass --mean 0.3 --std 0.2"
    assert record["normalised"] is ("mean" in NAMES[name]) is (told not in done.stderr)
    found = torch.load("w.pt", weights_only=True)
    assert NAMES[name] <= found.keys() and all(type(each) is Tensor for each in found.values())
    words = ["evaluate", "--data", toy, "--attack", "fgsm", "--no-checks", "--batch-size", 64]
    own = json.loads(call(*words, "m.safetensors", "--eps", 0.02, *model).stdout)
    flags = ["--model", name, "--weights", "w.pt", "--eps", 0.02]
    flags += [] if record["normalised"] else ["--mean", "0.3", "--std", "0.2"]
    assert json.loads(call(*words, *flags).stdout)["correct"] == own["correct"]


def test_torchscript_takes_any_number_of_images_in_0_to_1(call, saved) -> None:
    for name in ("preact-resnet18-2", "wrn-10-1-silu"):
        path = saved(name)
        record = printed(call("export", path, "--to", "torchscript", "--out", "m.pt", "--force").stdout)
        assert record["normalised"] is True and record["n"] == 8
        x = torch.rand(5, 1, 8, 8)
        torch.testing.assert_close(torch.jit.load("m.pt")(x), bsk.load(path)(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "preact-resnet18-2",
        pytest.param("wrn-10-1-silu", marks=pytest.mark.slow),
        pytest.param("cnn-2", marks=pytest.mark.slow),
        "exported_nets:net",
    ],
)
def test_onnx_takes_any_number_of_images_in_0_to_1(call, saved, name: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path, model = saved(name), name if ":" in name else None
    words = ["--model", model] if model else []
    record = printed(call("export", path, "--to", "onnx", "--out", "m.onnx", *words).stdout)
    assert record["difference"] < 1e-5 and [each.name for each in Path().glob("*m.onnx*")] == ["m.onnx"]
    session, x = runtime.InferenceSession("m.onnx"), torch.rand(5, 1, 8, 8)
    (logits,) = session.run(["logits"], {"images": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), bsk.load(path, model=model)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "to"), [("counts", "torchscript"), ("noisy", "torch"), ("noisy", "torchscript")])
def test_a_network_with_other_logits_is_not_exported(call, saved, name: str, to: str) -> None:
    spec = f"exported_nets:{name}"
    line = call("export", saved(spec), "--to", to, "--out", "m.pt", "--model", spec, check=3).line
    assert line.startswith(f"bsk: m.pt: the logits of the {to} file differ by ") and line.endswith("another format")
    assert not list(Path().glob("*m.pt*"))


def test_the_check_reads_the_exported_file(call, saved, monkeypatch: pytest.MonkeyPatch) -> None:
    """The logits compared come from the file, not from the exported network."""
    write = torch.save
    monkeypatch.setattr(torch, "save", lambda found, path: write({k: v * 0.5 for k, v in found.items()}, path))
    line = call("export", saved("cnn-2"), "--to", "torch", "--out", "w.pt", check=3).line
    assert "file differ by" in line and not Path("w.pt").exists()
    monkeypatch.setattr(torch, "save", lambda found, path: write(dict(list(found.items())[1:]), path))
    line = call("export", saved("cnn-2"), "--to", "torch", "--out", "w.pt", check=3).line
    assert "1 missing (0.weight)" in line and not Path("w.pt").exists()


def test_nan_logits_fail_the_check(saved) -> None:
    from bsk.evaluation.subjects import load_subject

    subject = load_subject(saved("cnn-2"), torch.device("cpu"))
    assert module._furthest(subject, subject.model) == 0.0
    assert module._furthest(subject, lambda x: subject.model(x) * torch.nan) == float("inf")
    assert module._furthest(subject, lambda x: subject.model(x)[:1]) == float("inf")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--to onx --out m.onnx", 2, "--to onx: no such format; did you mean onnx?"),
        ("--to onnx --out m.pt", 2, "--out m.pt: must end in .onnx"),
        ("--to torch", 2, "export: no --out; name the file to write, or the folder for tensorboard"),
        ("--to torch --out taken.pt", 3, "taken.pt: exists; choose another --out, or pass --force"),
        ("--to torch --out m.pt --model mynets:net", 2, "--model mynets:net: m.safetensors has bsk's own cnn-2"),
        ("--to card --out m.md --model mynets:net", 2, "--model mynets:net: --to card needs no network"),
        ("--to card --out m.txt", 2, "--out m.txt: must end in .md"),
    ],
)
def test_invalid_exports_are_one_line_errors(call, saved, words: str, code: int, said: str) -> None:
    saved("cnn-2")
    Path("taken.pt").write_text("mine")
    line = call("export", "m.safetensors", *words.split(), check=code).line
    assert line.startswith(f"bsk: {said}")
    assert Path("taken.pt").read_text() == "mine" and not list(Path().glob("m.[!s]*"))


def test_a_missing_package_is_named(call, saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bsk.export.conditions.find_spec", lambda name: None)
    line = call("export", saved("cnn-2"), "--to", "onnx", "--out", "m.onnx", check=2).line
    assert line == "bsk: --to onnx: onnx is not installed; pip install onnx onnxscript onnxruntime"
    line = call("export", "m.jsonl", "--to", "tensorboard", "--out", "board", check=2).line
    assert line == "bsk: --to tensorboard: tensorboard is not installed; pip install tensorboard"
