"""`--compile` in evaluations: attacks search with compiled passes, and the network itself verifies their claims."""

import functools
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bsk.attacks.flags import AttackFlags
from bsk.attacks.registry import attack_named
from bsk.data.store import open_data
from bsk.evaluation import run as module
from bsk.evaluation.calls import steady
from bsk.evaluation.run import evaluate
from bsk.evaluation.settings import EvaluationSettings
from bsk.evaluation.subjects import Subject
from bsk.models.compiled import Compiled
from bsk.models.registry import build

CPU = torch.device("cpu")
EPS = 0.06


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile without a C++ compiler: it traces, and runs what it traced."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


def records(subject, toy: Path, names: list[str], out: Path | None = None, **more) -> list[dict]:
    arguments = {"eps": EPS, "seed": 0, "batch_size": 24, "device": CPU, "checks": False, **more}
    bench = EvaluationSettings(open_data(toy), "test", None, **arguments)
    attacks = [attack_named(name, EPS, AttackFlags(classes=3, queries=50)) for name in names]
    return list(evaluate(subject, attacks, bench, out, lambda *_: None))


@pytest.mark.slow
def test_the_verdicts_are_the_same_and_the_record_says_how(subject, toy: Path, quick: None) -> None:
    names = ["natural", "pgd-10x2", "cw-10", "apgd-ce", "apgd-t", "fab-t", "square"]
    plain, compiled = (records(subject, toy, names, compile=way, eps=0.12) for way in ("off", "on"))
    for a, b in zip(plain, compiled, strict=True):
        assert a["accuracy"] == pytest.approx(b["accuracy"], abs=1 / 90), a["attack"]
        assert a["key"] == b["key"] and "compiled" not in a
        assert ("compiled" in b) is (a["attack"] != "natural")
    assert 0.1 < plain[3]["accuracy"] < 0.9
    assert sum(record.get("compile_seconds", 0.0) for record in compiled) > 0


def of(name: str, toy: Path) -> Subject:
    """An untrained network of a kind, of which some examples stand."""
    data = open_data(toy)
    model = build(name, classes=3, channels=1, size=8, mean=data.mean, std=data.std, seed=1).eval()
    header = {"classes": data.classes, "shape": [1, 8, 8], "dataset": "toy", "eps": 0.1, "mean": data.mean}
    return Subject(model, Path("m.safetensors"), "0" * 64, header)


@pytest.mark.parametrize("name", ["cnn-2", pytest.param("resnet18-2", marks=pytest.mark.slow)])
def test_every_kind_of_network_is_compiled_though_its_layers_are_replaced_for_exact_passes(
    name: str, toy: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(Compiled, "_give_up", lambda self, error: told.append(str(error)))
    (plain,), (found,) = (records(of(name, toy), toy, ["pgd-2"], compile=how) for how in ("off", "on"))
    assert not told and found["compiled"] and found["compile_seconds"] > 0
    assert found["accuracy"] == pytest.approx(plain["accuracy"], abs=2 / 90)


@pytest.mark.slow
def test_the_cpu_s_own_compiler_takes_linear_layers_too(toy: Path) -> None:
    (found,) = records(of("cnn-2", toy), toy, ["pgd-2"], compile="on")
    assert found["compiled"] and found["compile_seconds"] > 0


def test_the_time_of_a_compilation_that_fails_is_not_the_attack_s(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiles_for_long(form: object, **options: object) -> object:
        def call(x: Tensor) -> Tensor:
            time.sleep(0.5)
            raise RuntimeError("not supported here")

        return call

    monkeypatch.setattr(torch, "compile", compiles_for_long)
    (found,) = records(of("cnn-2", toy), toy, ["fgsm"], compile="on")
    assert "compiled" not in found and found["compile_seconds"] >= 0.5 > found["seconds"]


def test_a_wrong_compiled_pass_changes_no_verdict(subject, toy: Path, monkeypatch) -> None:
    """It claims that every image is misclassified; the network refutes that, so at radius 0 the accuracy is natural."""

    def lying(form: object, **options: object) -> object:
        return lambda x: torch.nn.functional.one_hot(torch.zeros(len(x), dtype=torch.long), 3).float() + 0 * x.sum()

    monkeypatch.setattr(torch, "compile", lying)
    natural, attacked = records(subject, toy, ["natural", "apgd-ce"], compile="on", eps=0.0)
    assert attacked["compiled"] and attacked["accuracy"] == natural["accuracy"] > 0.5


def test_auto_leaves_small_work_and_other_people_s_networks_alone(subject, toy: Path, monkeypatch, quick) -> None:
    assert "compiled" not in records(subject, toy, ["pgd-10"], compile="auto")[0]
    monkeypatch.setattr(module, "compiles", lambda choice, *_: choice != "off")
    assert not compiled(subject, toy, CPU)
    assert compiled(subject, toy, torch.device("cuda"))
    for change in ({"kind": "live"}, {"model": "mine:network"}):
        assert not compiled(replace(subject, header={**subject.header, **change}), toy, torch.device("cuda"))


def compiled(subject, toy: Path, device: torch.device) -> bool:
    """Return whether PGD uses compiled passes where they would pay off; the network stays on the CPU."""
    bench = EvaluationSettings(open_data(toy), "test", None, EPS, 0, 24, device, checks=False, compile="auto")
    work = module._Evaluation(subject, bench, lambda *_: None)
    return work._compiled(attack_named("pgd-10", EPS)) is not None


def test_what_is_known_without_compiling_is_taken_up_with_it(subject, toy: Path, tmp_path: Path, quick: None) -> None:
    out = tmp_path / "f.jsonl"
    first = records(subject, toy, ["screen"], out, compile="off")[0]
    assert records(subject, toy, ["screen"], out, compile="on")[0] == first


@pytest.mark.parametrize(("most", "sizes"), [(24, 2), (128, 2), (512, 2), (128, 8)])
def test_calls_have_few_numbers_of_rows(most: int, sizes: int) -> None:
    seen: set[int] = set()

    def model(x: Tensor) -> Tensor:
        seen.add(len(x))
        return x.flatten(1)

    run = steady(model, most, sizes)
    for rows in range(1, most + 9):
        x = torch.rand(rows, 1, 2, 2)
        assert torch.equal(run(x), x.flatten(1))
    assert max(seen) == most and len(seen) <= sizes + 1 and min(seen) >= 16
