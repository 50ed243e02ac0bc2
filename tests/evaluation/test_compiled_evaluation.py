"""`--compile` in evaluations: attacks search through compiled passes, and the network itself judges what they claim."""

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bsk.attacks.flags import AttackFlags
from bsk.attacks.registry import attack_named
from bsk.data.store import open_data
from bsk.evaluation.calls import steady
from bsk.evaluation.run import evaluate
from bsk.evaluation.settings import EvaluationSettings
from bsk.models import compiled as module

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


def test_the_verdicts_are_the_same_and_the_record_says_how(subject, toy: Path, quick: None) -> None:
    names = ["natural", "pgd-10x2", "cw-10", "apgd-ce", "apgd-t", "fab-t", "square"]
    plain, compiled = (records(subject, toy, names, compile=way, eps=0.12) for way in ("off", "on"))
    for a, b in zip(plain, compiled, strict=True):
        assert a["accuracy"] == pytest.approx(b["accuracy"], abs=1 / 90), a["attack"]
        assert a["key"] == b["key"] and "compiled" not in a
        assert ("compiled" in b) is (a["attack"] != "natural")
    assert 0.1 < plain[3]["accuracy"] < 0.9
    assert sum(record.get("compile_seconds", 0.0) for record in compiled) > 0


def test_a_compiled_pass_that_lies_breaks_nothing_that_stands(subject, toy: Path, monkeypatch) -> None:
    """Every image is misclassified, it says; the network judges that, and its natural accuracy stands at radius 0."""

    def lying(form: object, **options: object) -> object:
        return lambda x: torch.nn.functional.one_hot(torch.zeros(len(x), dtype=torch.long), 3).float() + 0 * x.sum()

    monkeypatch.setattr(torch, "compile", lying)
    natural, attacked = records(subject, toy, ["natural", "apgd-ce"], compile="on", eps=0.0)
    assert attacked["compiled"] and attacked["accuracy"] == natural["accuracy"] > 0.5


def test_auto_leaves_small_work_and_other_people_s_networks_alone(subject, toy: Path, monkeypatch, quick) -> None:
    assert "compiled" not in records(subject, toy, ["pgd-10"], compile="auto")[0]
    monkeypatch.setattr(module, "HOUR", 0.0)
    assert "compiled" in records(subject, toy, ["pgd-10"], compile="auto")[0]
    for change in ({"kind": "live"}, {"model": "mine:network"}):
        other = replace(subject, header={**subject.header, **change})
        assert "compiled" not in records(other, toy, ["pgd-10"], compile="auto")[0]


def test_what_is_known_without_compiling_is_taken_up_with_it(subject, toy: Path, tmp_path: Path, quick: None) -> None:
    out = tmp_path / "f.jsonl"
    first = records(subject, toy, ["screen"], out, compile="off")[0]
    assert records(subject, toy, ["screen"], out, compile="on")[0] == first


@pytest.mark.parametrize("most", [24, 128, 512])
def test_calls_have_few_numbers_of_rows(most: int) -> None:
    seen: set[int] = set()

    def model(x: Tensor) -> Tensor:
        seen.add(len(x))
        return x.flatten(1)

    run = steady(model, most, 8)
    for rows in range(1, most + 9):
        x = torch.rand(rows, 1, 2, 2)
        assert torch.equal(run(x), x.flatten(1))
    assert max(seen) == most and len(seen) <= 9 and min(seen) >= 16
