"""Several radii in one run: fallen images are not attacked again; other verdicts equal those of separate runs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_cache import bench, images_through, stopped_after

import bsk
from bsk.attacks.flags import AttackFlags
from bsk.attacks.registry import attacks_named
from bsk.data.store import open_data
from bsk.errors import UsageError
from bsk.evaluation import run
from bsk.evaluation.diagnostics import Diagnostics
from bsk.evaluation.run import evaluate, sweep
from bsk.evaluation.settings import Work
from bsk.evaluation.subjects import Subject
from bsk.records.bits import decode_correct

RADII = (0.05, 0.065, 0.08)
N = 90


def works(subject: Subject, toy: Path, names: list[str], radii: tuple[float, ...] = RADII, **flags) -> list[Work]:
    return [
        Work(subject, attacks_named(names, eps, AttackFlags(classes=3, **flags)), bench(toy, eps=eps), [])
        for eps in radii
    ]


def records(*runs: Work, out: Path | None = None) -> list[dict]:
    return list(sweep(runs, out, lambda *_: None))


def stands(record: dict) -> np.ndarray:
    return decode_correct(record["correct"], record["n"])


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("pgd-5", {}),
        pytest.param("screen", {}, marks=pytest.mark.slow),
        pytest.param("square", {"queries": 40}, marks=pytest.mark.slow),
        pytest.param("apgd-ce", {"norm": "l2"}, marks=pytest.mark.slow),
        pytest.param("fab-t", {"norm": "l1"}, marks=pytest.mark.slow),
    ],
)
def test_a_verdict_is_that_of_its_own_run_or_of_a_smaller_radius(
    subject: Subject, toy: Path, name: str, flags: dict
) -> None:
    some = RADII if name == "pgd-5" else RADII[::2]  # the others take seconds
    radii = tuple(eps * {"linf": 1, "l2": 8, "l1": 40}[flags.get("norm", "linf")] for eps in some)
    each = works(subject, toy, [name], radii, **flags)
    with images_through(subject) as images:
        found = records(*each)
    alone = [records(work)[0] for work in each]
    fallen = np.zeros(N, dtype=bool)
    for k, (one, other) in enumerate(zip(found, alone, strict=True)):
        assert one["eps"] == radii[k] and "carried" not in other
        if k:
            assert one["carried"] == fallen.sum() > 0 and one["carried_from"] == list(radii[:k])
        assert np.array_equal(~stands(one), ~stands(other) | fallen)
        fallen |= ~stands(one)
        assert one["accuracy"] == (N - fallen.sum()) / N and one["forward_passes"] <= other["forward_passes"]
    assert found[0] == {**alone[0], "seconds": found[0]["seconds"]}
    assert found[-1]["accuracy"] < found[0]["accuracy"]
    assert images() >= sum(record["forward_passes"] for record in found)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("pgd-40", {}),
        pytest.param("screen", {}, marks=pytest.mark.slow),
        pytest.param("apgd-ce", {"norm": "l2"}, marks=pytest.mark.slow),
    ],
)
def test_from_the_largest_on_what_stands_is_assumed_to_stand(
    subject: Subject, toy: Path, tmp_path: Path, name: str, flags: dict
) -> None:
    """What fell at a larger radius by an image of the smaller ball falls; the rest have the verdict of a single run."""
    some = RADII if name == "pgd-40" else RADII[::2]  # the others take seconds
    radii = tuple(eps * {"linf": 1, "l2": 8}[flags.get("norm", "linf")] for eps in some)
    each = works(subject, toy, [name], radii, **flags, **({"step": 0.002} if name == "pgd-40" else {}))[::-1]
    found = records(*each, out=tmp_path / "r.jsonl")
    alone = [records(work)[0] for work in each]
    assert [one["eps"] for one in found] == list(radii[::-1])
    assert found[0] == {**alone[0], "seconds": found[0]["seconds"]}
    for k, (one, other) in enumerate(zip(found[1:], alone[1:], strict=True), 1):
        far = load_file(tmp_path / "r.examples" / f"{found[k - 1]['key']}.safetensors")["distance"].numpy()
        larger = stands(found[k - 1])
        near = ~larger & (far <= one["eps"])
        assert larger.any() and (~larger & ~near).any() and (near.any() or name != "pgd-40")
        assert np.array_equal(stands(one), larger | (~near & stands(other)))
        assert one["carried"] == (larger | near).sum() and one["carried_from"] == list(radii[::-1][:k])
        assert one["forward_passes"] < other["forward_passes"]
        assert one["accuracy"] >= found[k - 1]["accuracy"]
        assert one["doubts"][-1].startswith(f"{larger.sum()} images were not attacked") and not other["doubts"]
    assert records(*each, out=tmp_path / "r.jsonl") == found
    ascending = records(*each[::-1])
    assert {one["key"] for one in found[1:]}.isdisjoint(one["key"] for one in ascending)


def test_passes_are_counted_only_for_images_that_stood_before(subject: Subject, toy: Path) -> None:
    """PGD without early stop: a standing example takes 6 passes and one more of the natural stage."""
    two = works(subject, toy, ["pgd-5"], RADII[:2], early_stop=False)
    first, second = records(*two)
    assert second["forward_passes"] <= 7 * int(stands(first).sum())
    assert second["forward_passes"] >= 7 * int(stands(second).sum()) + 2 * int((stands(first) & ~stands(second)).sum())


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("natural", {}),
        ("fgsm", {}),
        ("pgd-5", {"last_iterate": True}),
        ("rays", {"queries": 60}),
        ("autoattack", {"audit": 9}),
    ],
)
def test_all_images_are_attacked_where_carrying_would_be_unsound(
    subject: Subject, toy: Path, name: str, flags: dict
) -> None:
    each = works(subject, toy, [name], RADII[1:] if name == "autoattack" else RADII, **flags)
    if name == "autoattack":
        assert not any(attack.nests for work in each for attack in work.attacks)
        return
    for one, work in zip(records(*each), each, strict=True):
        (other,) = records(work)
        assert one == {**other, "seconds": one["seconds"]}


def test_an_interrupted_run_resumes_and_shares_its_blocks(subject: Subject, toy: Path, tmp_path: Path) -> None:
    each, out = works(subject, toy, ["natural", "pgd-5"]), tmp_path / "r.jsonl"
    whole = records(*each)
    with stopped_after(9):
        records(*each, out=out)
    assert 0 < len(out.read_text().splitlines()) < 6
    told = [{**record, "seconds": 0} for record in records(*each, out=out)]
    assert told == [{**record, "seconds": 0} for record in whole]
    assert [record["attack"] for record in told] == ["natural", "pgd-5"] * 3
    with images_through(subject) as images:
        again = records(*each, out=out)
        assert images() == 0, "all of it is there"
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert again == lines and len({line["key"] for line in lines}) == 6
        kept = [line for line in lines if line["eps"] != RADII[2]]
        out.write_text("".join(json.dumps(line) + "\n" for line in kept))
        assert [{**record, "seconds": 0} for record in records(*each, out=out)] == told
        assert images() == 0, "the verdicts at smaller radii come from their blocks"
    (alone,) = list(evaluate(subject, each[2].attacks[1:], each[2].settings, out, lambda *_: None))
    assert alone["key"] != told[5]["key"] and "carried" not in alone
    (fresh,) = records(Work(subject, each[2].attacks[1:], each[2].settings, []))
    assert np.array_equal(stands(alone), stands(fresh))


def test_the_file_of_verdicts_tells_of_the_image_at_the_smaller_radius(
    subject: Subject, toy: Path, tmp_path: Path
) -> None:
    first, second = records(*works(subject, toy, ["pgd-5"], RADII[:2]), out=tmp_path / "r.jsonl")
    one, two = (load_file(tmp_path / "r.examples" / f"{record['key']}.safetensors") for record in (first, second))
    fallen = one["broken_by"] >= 0
    assert fallen.any() and torch.equal(two["broken_by"][fallen], one["broken_by"][fallen])
    assert torch.equal(two["distance"][fallen], one["distance"][fallen]) and not two["forward"][fallen].any()


def test_the_model_is_examined_once_at_the_largest_radius(
    subject: Subject, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records at the other radii name the radius of the attacks that examined it, and so do their doubts."""
    seen, facts = [], {"random": False, "fooled": 0.5, "left_out": ["attacks"]}

    def look(model, examples, *, eps: float, **more) -> Diagnostics:
        seen.append(eps)
        return Diagnostics(facts, ("weak",))

    monkeypatch.setattr(run, "look_at", look)
    each = [replace(work, settings=replace(work.settings, checks=True)) for work in works(subject, toy, ["pgd-3"])]
    one, two, three = records(*each)
    assert seen == [RADII[2]]
    assert one["checks"] == two["checks"] == {**facts, "eps": RADII[2]}
    assert one["doubts"] == two["doubts"] == ["weak (at eps 0.08)"]
    assert three["checks"] == facts and three["doubts"] == ["weak"]
    records(each[0])
    assert seen == [RADII[2], RADII[0]], "a run at one radius examines it there"


def test_in_python_several_radii_are_a_list(subject: Subject, toy: Path) -> None:
    data = open_data(toy)
    more = {"data": data, "attack": "pgd-3", "checks": False, "progress": False}
    model = subject.model
    one, two = bsk.evaluate(model, eps=[0.03, 0.06], **more)
    assert [one.record["eps"], two.record["eps"]] == [0.03, 0.06] and two.record["carried"] == int((~one.correct).sum())
    assert [each.n for each in bsk.evaluate(model, eps=np.array([0.03]), **more)] == [N]
    assert bsk.evaluate(model, eps=np.float32(0.03), **more).n == N
    both = bsk.evaluate(model, eps=(0.03, 0.06), **{**more, "attack": ["natural", "pgd-3"]})
    assert [(each.record["attack"], each.record["eps"]) for each in both] == [
        ("natural", 0.03),
        ("pgd-3", 0.03),
        ("natural", 0.06),
        ("pgd-3", 0.06),
    ]
    two, one = bsk.evaluate(model, eps=[0.03, 0.06], largest_first=True, **more)
    assert [two.record["eps"], one.record["eps"]] == [0.06, 0.03] and one.record["carried_from"] == [0.06]
    assert one.record["repeats"]["stopped"] == 0, "what was carried took no steps, and three steps repeat none"
    assert one.record["repeats"]["standing"] < round(N * one.record["accuracy"])
    with pytest.raises(UsageError, match="--largest-first: needs several radii"):
        bsk.evaluate(model, eps=0.03, largest_first=True, **more)
    for eps, said in (([0.06, 0.03], "radii must be in ascending order"), ([0.03, 0.03], "ascend"), ([], "no radius")):
        with pytest.raises(UsageError, match=said):
            bsk.evaluate(model, eps=eps, **more)
    with pytest.raises(UsageError, match=r"--eps 0.03,0.06: expected one radius"):
        bsk.attack(model, data.split("test").images, data.split("test").labels, eps=[0.03, 0.06])
