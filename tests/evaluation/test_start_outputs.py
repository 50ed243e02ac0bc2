"""`bsk starts`: where starts land, against a naive reference, independent of the batch."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import bsk
from bsk.cli import options
from bsk.data.store import open_data
from bsk.evaluation.settings import EvaluationSettings
from bsk.evaluation.start_outputs import landings
from bsk.evaluation.subjects import load_subject
from bsk.perturb.draws import example_draws
from bsk.perturb.passes import PassCounter, counting
from bsk.perturb.starts import STARTS
from bsk.training.costs import landings_work

EPS = 0.1


def softmax_kl(p: Tensor, q: Tensor) -> Tensor:
    p, q = p.exp() / p.exp().sum(1, keepdim=True), q.exp() / q.exp().sum(1, keepdim=True)
    return (p * (p.log() - q.log())).sum(1)


def starts(call, trained: Path, toy: Path, *words: object) -> list[dict]:
    done = call("starts", trained, "--data", toy, *words)
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_names_offered_are_those_there_are() -> None:
    assert STARTS == options.STARTS


def test_records_tell_where_each_start_lands(call, trained: Path, toy: Path) -> None:
    records = starts(call, trained, toy, "--limit", 20, "--gamma", 2, "--seed", 5)
    assert [(r["start"], r["kind"]) for r in records] == [("uniform", "landing"), ("backward", "landing")] * 20
    first = records[0]
    assert (first["method"], first["n"], first["eps"], first["split"]) == ("bs", 20, EPS, "test")
    assert first["start_parameters"] == {"gamma": 2.0, "step": EPS, "seed": 5} and first["target"] is None
    uniform, backward = records[::2], records[1::2]
    data, model = load_file(toy), bsk.load(trained).double()
    x, index = data["test_images"][:20].double() / 255, [r["index"] for r in uniform]
    assert (
        index == data["test_index"][:20].tolist() and [r["label"] for r in uniform] == data["test_labels"][:20].tolist()
    )
    z = model(x).detach()

    def column(rows: list[dict], name: str) -> Tensor:
        return torch.tensor([row[name] for row in rows], dtype=torch.float64)

    near = {"rtol": 1e-4, "atol": 1e-5}
    random = example_draws(5, "start uniform", index).uniform(x.float()).double()
    torch.testing.assert_close(column(uniform, "landed"), model(x + EPS * random).detach(), **near)
    psi = example_draws(5, "start backward", index).uniform(z.float()).double()
    torch.testing.assert_close(column(backward, "target"), z + 2 * psi, **near)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(softmax_kl(z + 2 * psi, model(leaf)).sum(), leaf)
    landed = model((x - EPS * gradient.sign()).clamp(0, 1)).detach()
    torch.testing.assert_close(column(backward, "landed"), landed, **near)
    for rows in (uniform, backward):
        torch.testing.assert_close(column(rows, "logits"), z, **near)
        found = softmax_kl(column(rows, "logits"), column(rows, "landed"))
        torch.testing.assert_close(column(rows, "kl"), found, rtol=1e-4, atol=1e-7)
    before, after = softmax_kl(z + 2 * psi, z), softmax_kl(z + 2 * psi, landed)
    assert after.mean() < before.mean(), "the backward start goes towards its target"


@pytest.mark.parametrize("names", [["uniform"], ["backward"], ["zero", "backward"]])
def test_its_cost_is_known_beforehand(names: list[str], trained: Path, toy: Path, monkeypatch) -> None:
    made, cpu = PassCounter(), torch.device("cpu")
    monkeypatch.setattr("bsk.evaluation.start_outputs.steady", lambda model: counting(model, made))
    bench = EvaluationSettings(open_data(toy), "test", 12, EPS, 0, 8, cpu)
    assert len(list(landings(load_subject(trained, cpu), names, bench, 1.0, lambda *_: None))) == 12 * len(names)
    work = landings_work(names, 12, batch=8)
    assert (work.images.forward, work.images.to_input + work.images.full) == (made.forward, made.backward)
    assert work.batches.forward == 2 * work.images.forward / 12


def test_outputs_do_not_depend_on_the_batch(call, trained: Path, toy: Path) -> None:
    whole = starts(call, trained, toy, "--start", "backward,gaussian,zero", "--limit", 30)
    parts = starts(call, trained, toy, "--start", "backward,gaussian,zero", "--limit", 13, "--batch-size", 5)
    assert [{**r, "n": 30} for r in parts] == whole[: 3 * 13]
    assert all(r["kl"] == 0 and r["landed"] == r["logits"] for r in whole if r["start"] == "zero")


def test_gamma_and_eps_are_the_model_s_unless_given(call, toy: Path, tmp_path: Path) -> None:
    words = ["--model", "cnn-4", "--epochs", 1, "--threads", 1, "--gamma", 3, "--eps", "0.05", "--quiet"]
    call("train", "--data", toy, *words, "--out", "m.safetensors")
    (record,) = starts(call, tmp_path / "m.safetensors", toy, "--limit", 1, "--start", "backward")
    assert record["start_parameters"]["gamma"] == 3.0 and record["eps"] == record["train_eps"] == 0.05
    (record,) = starts(call, tmp_path / "m.safetensors", toy, "--limit", 1, "--start", "backward", "--eps", "8/255")
    assert record["eps"] == record["start_parameters"]["step"] == 8 / 255 and record["train_eps"] == 0.05


@pytest.mark.slow
def test_starts_are_drawn_through_a_pipe(bsk, trained: Path, toy: Path, tmp_path: Path) -> None:
    records = bsk("starts", trained, "--data", toy, "--limit", 20).stdout
    done = bsk("plot landings --title Landings --out a.svg --out a.png", input=records)
    text = (tmp_path / "a.svg").read_text()
    assert (done.stdout, done.stderr) == ("", "") and "20 images" in text and "<!-- Landings -->" in text


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("m.safetensors --start bakward", 2, "--start bakward: no such start; did you mean backward?"),
        ("m.safetensors --split tset", 2, "did you mean test?"),
        ("m.safetensors --gamma -1", 2, "--gamma -1: must be finite and at least 0"),
        ("m.safetensors --eps 2", 2, "--eps 2"),
        ("missing.safetensors", 3, "missing.safetensors: no such file"),
        ("", 2, "CKPT"),
    ],
)
def test_a_usage_error_is_one_line(call, trained: Path, toy: Path, words: str, code: int, said: str) -> None:
    done = call("starts", *words.split(), "--data", toy, check=code)
    assert said in done.line and done.stdout == ""


def test_logits_that_are_not_finite_are_named(call, trained: Path, toy: Path) -> None:
    from bsk.records import checkpoints

    tensors, header = checkpoints.load(trained, "model")
    next(iter(tensors.values())).fill_(float("nan"))
    checkpoints.save(trained, tensors, header)
    line = call("starts", trained, "--data", toy, check=3).line
    assert "m.safetensors: the model returns NaN or infinity" in line
