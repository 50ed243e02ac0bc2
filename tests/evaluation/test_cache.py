"""Resuming evaluations: after an interruption anywhere, the result is the same and nothing is computed twice."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bsk.attacks.flags import AttackFlags
from bsk.attacks.registry import Attack, attack_named
from bsk.data.batches import Share
from bsk.data.store import open_data
from bsk.errors import InputError
from bsk.evaluation import reports
from bsk.evaluation.cache import Cache, key_of
from bsk.evaluation.ledger import NOWHERE, STANDING, Block, Ledger
from bsk.evaluation.reports import keys_of, rays_summary
from bsk.evaluation.run import evaluate
from bsk.evaluation.settings import EvaluationSettings
from bsk.evaluation.subjects import Subject

CPU = torch.device("cpu")
EPS = 0.06


def bench(toy: Path, **more) -> EvaluationSettings:
    arguments = {
        "split": "test",
        "limit": None,
        "eps": EPS,
        "seed": 0,
        "batch_size": 24,
        "device": CPU,
        "checks": False,
        **more,
    }
    return EvaluationSettings(open_data(toy), **arguments)


ATTACK = attack_named("screen", EPS, AttackFlags(classes=3))


def told(record: dict) -> dict:
    return {name: value for name, value in record.items() if name != "seconds"}


def stage_of(path: Path) -> int:
    return json.loads(path.read_text().splitlines()[0])["stage"]


@contextlib.contextmanager
def images_through(subject: Subject) -> Iterator[Callable[[], int]]:
    """How many images have gone through the model within the block."""
    images = 0

    def count(module, inputs, output) -> None:
        nonlocal images
        images += len(inputs[0])

    hook = subject.model.register_forward_hook(count)
    yield lambda: images
    hook.remove()


@contextlib.contextmanager
def stopped_after(blocks: int | None) -> Iterator[None]:
    """Interrupt an evaluation in the `with` block once it has written a given number of blocks."""
    written, grow = 0, Cache.grow

    def count(cache: Cache, block: Block) -> None:
        nonlocal written
        grow(cache, block)
        written += 1
        if written == blocks:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Cache, "grow", count)
        yield


def test_blocks_by_hand() -> None:
    ledger = Ledger(4)
    both = torch.tensor([1, 1])
    ledger.add(
        Block(0, torch.tensor([0, 2]), torch.tensor([True, False]), torch.tensor([0.0, NOWHERE]), both, both, 1.5)
    )
    assert ledger.due(0).tolist() == [1, 3] and ledger.due(1).tolist() == [1, 2, 3]
    again = Block(0, torch.tensor([2, 3]), torch.tensor([True, True]), torch.tensor([0.3, 0.2]), both, both, 0.5)
    ledger.add(again)  # 2 is known already: what was entered first stays
    assert ledger.broken_by.tolist() == [0, STANDING, STANDING, 0]
    assert ledger.forward.tolist() == [1, 0, 1, 1] and ledger.seconds == 1.75, "half of the second block was known"
    assert ledger.distance.tolist() == [0.0, NOWHERE, NOWHERE, pytest.approx(0.2)]
    ledger.add(Block(1, torch.tensor([1, 2]), torch.tensor([True, True]), torch.tensor([0.1, 0.1]), both, both, 2.0))
    assert ledger.broken_by.tolist() == [0, STANDING, 1, 0], "1 has not met stage 0, so stage 1 says nothing of it"
    assert ledger.due(0).tolist() == [1] and ledger.seconds == 2.75


@pytest.fixture(scope="module")
def uninterrupted(subject: Subject, toy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """The record of an evaluation, and the verdict on each example."""
    out = tmp_path_factory.mktemp("uninterrupted") / "whole.jsonl"
    (record,) = evaluate(subject, [ATTACK], bench(toy), out, lambda *_: None)
    (verdicts,) = out.with_suffix(".examples").glob("*.safetensors")
    return record, verdicts


@pytest.mark.parametrize("stop_after", [pytest.param(n, marks=pytest.mark.slow) if n != 6 else n for n in (1, 4, 6, 9)])
def test_an_evaluation_stopped_after_any_block_resumes_with_the_same_result(
    subject: Subject, toy: Path, uninterrupted, tmp_path, stop_after
) -> None:
    whole, verdicts = uninterrupted
    assert 0.1 < whole["accuracy"] < whole["after"]["natural"]
    out = tmp_path / "parts.jsonl"
    with stopped_after(stop_after):
        list(evaluate(subject, [ATTACK], bench(toy), out, lambda *_: None))
    files = sorted((tmp_path / "parts.examples").glob("*.jsonl"), key=stage_of)
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert len(lines) == stop_after
    before = sum(sum(line["forward"]) for line in lines)
    with files[-1].open("ab") as file:
        file.write(b'{"stage": 0, "rows": [1')  # the line that a power cut tore
    with images_through(subject) as images:
        (parts,) = evaluate(subject, [ATTACK], bench(toy, batch_size=17), out, lambda *_: None)
    left = whole["forward_passes"] - before
    assert left <= images() <= left * 16 / 7, "only what was left was run; batches of 9 or fewer are filled up to 16"
    assert told(parts) == told(whole)
    assert next((tmp_path / "parts.examples").glob("*.safetensors")).read_bytes() == verdicts.read_bytes()


def short(name: str) -> Attack:
    """The attack with few steps and queries."""
    attack = attack_named(name, EPS, AttackFlags(classes=3))
    few = {"steps": 8, "queries": 30}
    parameters = [{**each.parameters, **{k: few[k] for k in few if k in each.parameters}} for each in attack.stages]
    stages = zip(attack.stages, parameters, strict=True)
    return replace(attack, stages=tuple(replace(stage, parameters=changed) for stage, changed in stages))


@pytest.mark.parametrize(
    ("first", "second", "stop_after"),
    [
        ("screen", "autoattack", None),
        ("screen", "autoattack", 7),
        ("autoattack", "screen", 7),
        ("apgd-ce", "screen", None),
        ("natural", "pgd-3", None),
    ],
)
def test_stages_that_an_earlier_evaluation_made_are_not_made_again(
    subject: Subject, toy: Path, tmp_path: Path, first: str, second: str, stop_after: int | None
) -> None:
    """Whether it was complete or not; apart from seconds, the record equals that of the second evaluation alone."""

    def run(name: str, out: str, blocks: int | None = None) -> tuple[dict, int]:
        record: dict = {}
        with images_through(subject) as images, stopped_after(blocks):
            (record,) = evaluate(subject, [short(name)], bench(toy), tmp_path / out, lambda *_: None)
        return record, images()

    alone, all_images = run(second, "alone.jsonl")
    earlier, before = run(first, "r.jsonl", stop_after)
    blocks = [path.read_bytes() for path in sorted((tmp_path / "r.examples").glob("*.jsonl"))]
    record, after = run(second, "r.jsonl")
    assert before > 0 and before + after == all_images, "each image of each stage went through the model once"
    assert json.dumps(told(record)) == json.dumps(told(alone))
    verdicts = [tmp_path / f"{name}.examples" / f"{record['key']}.safetensors" for name in ("alone", "r")]
    assert verdicts[0].read_bytes() == verdicts[1].read_bytes()
    if stop_after is None:
        assert record["seconds"] > earlier["seconds"], "of what was taken up too"
        now = [path.read_bytes() for path in sorted((tmp_path / "r.examples").glob("*.jsonl"))]
        assert set(blocks) <= set(now)


def test_blocks_are_shared_only_between_equal_settings(subject: Subject, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    list(evaluate(subject, [ATTACK], bench(toy), out, lambda *_: None))
    with images_through(subject) as images:
        list(evaluate(subject, [attack_named("natural", EPS)], bench(toy, seed=1), out, lambda *_: None))
        assert images() >= 90
    with images_through(subject) as images:
        list(evaluate(subject, [attack_named("natural", EPS)], bench(toy, checks=True), out, lambda *_: None))
        looked_at = 24 + 24 + 16 + 40  # two calls and one with an image alone, then the rest of 64: no verdict's
        assert images() == looked_at, "the checks decide no verdict"


def test_a_stage_known_before_is_told_with_its_own_survivors(subject: Subject, toy: Path, tmp_path: Path) -> None:
    def told_of(out: str, *names: str) -> list[tuple[str, int]]:
        last: list[tuple[str, int]] = []
        for name in names:
            last.clear()
            watch = lambda _, at: last.append((at.stage, at.standing)) if at.ended else None  # noqa: E731
            list(evaluate(subject, [short(name)], bench(toy), tmp_path / out, watch))
        return last

    fresh = told_of("fresh.jsonl", "screen")
    assert told_of("reused.jsonl", "apgd-ce", "screen") == fresh
    assert [stage for stage, _ in fresh] == ["natural", "apgd-ce", "apgd-t"] and fresh[0][1] > fresh[-1][1]


def test_an_evaluation_stopped_when_all_stages_had_one_file_goes_on(
    subject: Subject, toy: Path, uninterrupted, tmp_path: Path
) -> None:
    whole, verdicts = uninterrupted
    files = sorted(verdicts.parent.glob("*.jsonl"), key=stage_of)
    (tmp_path / "old.examples").mkdir()
    blocks = tmp_path / "old.examples" / f"{whole['key']}.jsonl"
    blocks.write_text("".join(path.read_text() for path in files[:2]))
    with images_through(subject) as images:
        (record,) = evaluate(subject, [ATTACK], bench(toy), tmp_path / "old.jsonl", lambda *_: None)
    assert 0 < images() < 0.9 * whole["forward_passes"]
    assert told(record) == told(whole) and not blocks.exists()


def test_a_complete_evaluation_answers_without_the_model(subject: Subject, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    attacks = [attack_named(name, EPS) for name in ("pgd-3", "natural")]
    first = list(evaluate(subject, attacks, bench(toy), out, lambda *_: None))
    before = out.read_bytes()
    broken = Subject(torch.nn.Identity(), subject.path, subject.sha256, subject.header)  # type: ignore[arg-type]
    again = list(evaluate(broken, attacks, bench(toy), out, lambda *_: None))
    assert again == first and out.read_bytes() == before


def plain(subject: Subject, toy: Path) -> dict:
    """The settings that the cases below change one by one."""
    return {"subject": subject, "data": open_data(toy), "attack": "square", "flags": {"classes": 3}, "bench": {}}


def keys(case: dict) -> tuple[str, str]:
    """The key of the record, and that of the blocks of the last stage."""
    told = {"split": "test", "limit": None, "eps": EPS, "seed": 0, "batch_size": 24, "device": CPU, **case["bench"]}
    named = attack_named(case["attack"], told["eps"], AttackFlags(**case["flags"]))
    here = EvaluationSettings(case["data"], **told)
    whole, stages = keys_of(case["subject"], named, here, len(here.data.stream(here.split, here.limit).labels))
    return whole, stages[-1][1]


def headed(case: dict, **header: object) -> dict:
    subject = case["subject"]
    return {**case, "subject": replace(subject, header={**subject.header, **header})}


def flagged(case: dict, attack: str | None = None, **flags: object) -> dict:
    return {**case, "attack": attack or case["attack"], "flags": {**case["flags"], **flags}}


def benched(case: dict, **bench: object) -> dict:
    return {**case, "bench": {**case["bench"], **bench}}


def other_data(case: dict, folder: Path) -> dict:
    path = folder / "other.safetensors"
    path.write_bytes(case["data"].path.read_bytes()[:-1] + b"\x07")  # one pixel
    return {**case, "data": open_data(path)}


@pytest.mark.parametrize(
    ("attack", "change"),
    [
        ("square", lambda c, _: {**c, "subject": replace(c["subject"], sha256="1" * 64)}),
        ("square", lambda c, _: headed(c, model="cnn-8")),
        ("square", lambda c, _: headed(c, mean=[0.26])),
        ("square", lambda c, _: headed(c, std=[0.21])),
        ("square", lambda c, _: headed(c, code="2" * 64)),
        ("square", other_data),
        ("square", lambda c, _: benched(c, split="val")),
        ("square", lambda c, _: benched(c, limit=30)),
        ("square", lambda c, _: benched(c, eps=0.05)),
        ("square", lambda c, _: benched(c, seed=1)),
        ("square", lambda c, _: flagged(c, norm="l2")),
        ("square", lambda c, _: flagged(c, queries=400)),
        ("square", lambda c, _: flagged(c, engine="reference")),
        ("square", lambda c, _: flagged(c, "apgd-t")),
        ("apgd-t", lambda c, _: flagged(c, classes=10)),
        ("apgd-ce", lambda c, _: flagged(c, "apgd-dlr")),
        ("rays", lambda c, _: flagged(c, queries=400)),
        ("rays", lambda c, _: flagged(c, stop_at_eps=True)),
        ("pgd-2", lambda c, _: flagged(c, last_iterate=True)),
        ("pgd-2", lambda c, _: flagged(c, step=0.01)),
        ("pgd-2", lambda c, _: flagged(c, start="uniform")),
        ("pgd-2", lambda c, _: flagged(c, "pgd-2x2")),
        ("pgd-2", lambda c, _: flagged(c, "pgd-3")),
        ("pgd-2", lambda c, _: flagged(c, "cw-2")),
    ],
)
def test_everything_that_affects_a_verdict_is_in_the_keys(
    subject: Subject, toy: Path, tmp_path: Path, attack, change
) -> None:
    if "reference" in change.__code__.co_consts:
        pytest.importorskip("pyautoattack")
    case = flagged(plain(subject, toy), attack)
    assert all(a != b for a, b in zip(keys(case), keys(change(case, tmp_path)), strict=True))


def test_settings_that_affect_no_verdict_are_not_in_the_keys(subject: Subject, toy: Path) -> None:
    case = plain(subject, toy)
    assert keys(benched(case, batch_size=20)) == keys(benched(case, share=Share(1, 2))) == keys(case)
    few = keys(benched(case, batch_size=7))  # below 16 rows, the last bits are of that many
    assert all(a != b for a, b in zip(keys(case), few, strict=True))
    assert keys(headed(case, method="bs", flags={"gamma": 1})) == keys(case)
    assert keys(flagged(case, step=0.01, last_iterate=True)) == keys(case), "Square has none of these"
    checked = keys(benched(case, checks=False))
    assert checked[0] != keys(case)[0] and checked[1] == keys(case)[1], "checks are in the record, and no verdict"


def test_blocks_are_of_one_kind_of_device_and_a_record_answers_on_any(subject: Subject, toy: Path) -> None:
    case = plain(subject, toy)
    first, second = (keys(benched(case, device=torch.device("cuda", i))) for i in (0, 1))
    assert first == second and first[0] == keys(case)[0] and first[1] != keys(case)[1]


def test_the_reference_has_the_batch_in_its_keys(subject: Subject, toy: Path) -> None:
    pytest.importorskip("pyautoattack")
    case = flagged(plain(subject, toy), "apgd-ce", engine="reference", classes=10)
    assert all(a != b for a, b in zip(keys(case), keys(benched(case, batch_size=7)), strict=True))


def test_attacks_whose_verdicts_have_changed_have_other_keys(
    subject: Subject, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(plain(subject, toy))
    monkeypatch.setattr(reports, "ENGINE", reports.ENGINE + 1)
    assert all(a != b for a, b in zip(before, keys(plain(subject, toy)), strict=True))


def test_each_key_has_one_record(subject: Subject, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    natural = attack_named("natural", EPS)
    found = [
        next(iter(evaluate(subject, [natural], bench(toy, **more), out, lambda *_: None)))["key"]
        for more in ({}, {"limit": 30}, {"batch_size": 20}, {"seed": 1}, {})
    ]
    assert found[0] == found[2] == found[4] and len(set(found)) == 3 == len(out.read_text().splitlines())


def test_the_verdict_on_each_example_is_saved_with_the_record(uninterrupted) -> None:
    record, verdicts = uninterrupted
    found, n = load_file(verdicts), record["n"]
    assert verdicts.stem == record["key"]
    assert {name: len(tensor) for name, tensor in found.items()} == dict.fromkeys(
        ("labels", "index", "broken_by", "distance", "forward", "backward"), n
    )
    assert int((found["broken_by"] == STANDING).sum()) == round(record["accuracy"] * n)
    assert found["forward"].sum() == record["forward_passes"] and found["backward"].sum() == record["backward_passes"]
    natural, broken = found["broken_by"] == 0, found["broken_by"] > 0
    assert (found["distance"][natural] == 0).all() and (found["distance"][broken] <= EPS + 1e-6).all()
    assert found["distance"][found["broken_by"] == STANDING].isinf().all()
    for k, name in enumerate(("natural", "apgd-ce", "apgd-t")):
        standing = (found["broken_by"] == STANDING) | (found["broken_by"] > k)
        assert record["after"][name] == pytest.approx(float(standing.float().mean()))


def test_blocks_that_outlived_their_record_are_cleaned_by_the_next_run(subject: Subject, toy: Path, tmp_path) -> None:
    """As a kill between the record and their removal leaves them; those of the stages are for others, and stay."""
    out, natural = tmp_path / "r.jsonl", attack_named("natural", EPS)
    (record,) = evaluate(subject, [natural], bench(toy), out, lambda *_: None)
    (stage,) = (tmp_path / "r.examples").glob("natural-*.jsonl")
    left = tmp_path / "r.examples" / f"{record['key']}.jsonl"
    left.write_bytes(stage.read_bytes())
    assert list(evaluate(subject, [natural], bench(toy), out, lambda *_: None)) == [record]
    assert not left.exists() and stage.exists()


GOOD = {"stage": 0, "rows": [0], "fooled": [0], "distance": [None], "forward": [1], "backward": [0], "seconds": 1}


@pytest.mark.parametrize(
    "wrong",
    [{"stage": 9}, {"rows": [90]}, {"rows": [-1]}, {"rows": [0, 1]}, {"rows": "0"}, {"forward": [1, 2]}, {"rows": []}]
    + [{"seconds": each} for each in ("nan", "1", -5, 1e20, None)]
    + [{"stage": 0.5}, {"stage": True}, {"distance": [-1.0]}, {"forward": [-1]}, {"backward": [1 << 62]}],
)
def test_invalid_blocks_are_refused(tmp_path: Path, wrong: dict) -> None:
    growing = Cache(tmp_path / "r.jsonl", "k", [("natural", "a"), ("apgd-ce", "b"), ("apgd-t", "c")])
    (tmp_path / "r.examples").mkdir()
    path = tmp_path / "r.examples" / "apgd-ce-b.jsonl"
    path.write_text(json.dumps(GOOD) + "\n")
    assert len(growing.blocks(90)) == 1
    path.write_text(json.dumps({**GOOD, **wrong}) + "\n")
    with pytest.raises(InputError, match=r"apgd-ce-b.jsonl"):
        growing.blocks(90)


def test_a_search_that_stops_at_the_radius_measures_no_distance(subject: Subject, toy: Path) -> None:
    for stop in (False, True):
        attack = attack_named("rays", EPS, AttackFlags(queries=30, stop_at_eps=stop))
        (record,) = evaluate(subject, [attack], bench(toy), None, lambda *_: None)
        assert ("adbd" in record, "adbd_correct" in record) == (not stop, not stop) and record["never_fooled"] >= 0


def test_a_distance_that_an_old_record_has_nevertheless_is_not_told_again(
    subject: Subject, toy: Path, tmp_path: Path
) -> None:
    attack, out = attack_named("rays", EPS, AttackFlags(queries=30, stop_at_eps=True)), tmp_path / "r.jsonl"
    (record,) = evaluate(subject, [attack], bench(toy), out, lambda *_: None)
    out.write_text(json.dumps({**record, "adbd": 0.2, "adbd_correct": 0.2}) + "\n")
    assert list(evaluate(subject, [attack], bench(toy), out, lambda *_: None)) == [record]


def test_adbd_takes_the_white_image_for_examples_never_fooled(subject: Subject, toy: Path) -> None:
    """As published: 0 for an image that is wrong as it is, the distance of the white image where nothing was found."""
    examples = open_data(toy).stream("test", 4)
    attack = attack_named("rays", EPS, AttackFlags(classes=3))
    ledger, one = Ledger(4), torch.ones(4, dtype=torch.int64)
    wrong = torch.tensor([True, False, False, False])
    nowhere = torch.full((4,), NOWHERE)
    ledger.add(Block(0, torch.arange(4), wrong, torch.where(wrong, 0.0, nowhere), one, 0 * one, 0.0))
    asked = torch.tensor([10, 30, 20])
    fooled = torch.tensor([True, False, False])
    ledger.add(Block(1, torch.tensor([1, 2, 3]), fooled, torch.tensor([0.01, 0.25, NOWHERE]), asked, 0 * asked, 0.0))
    found = rays_summary(ledger, attack, examples)
    white = 1 - float(examples.take(torch.tensor([3])).min()) / 255
    assert found["never_fooled"] == 1 and found["adbd"] == pytest.approx((0.01 + 0.25 + white) / 4)
    assert found["adbd_correct"] == pytest.approx((0.01 + 0.25 + white) / 3)
    assert found["queries_mean"] == 20 and found["queries_median"] == 20


def test_a_key_is_a_hash_of_the_facts() -> None:
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1}) != key_of({"a": 1, "b": [3]})


def test_a_stream_takes_the_same_rows_as_the_split(toy: Path) -> None:
    data = open_data(toy)
    split, stream = data.split("test", 50), data.stream("test", 50)
    rows = torch.tensor([3, 49, 0, 7, 7])
    assert torch.equal(stream.take(rows), split.take(rows)) and stream.shape == split.shape == (1, 8, 8)
    assert torch.equal(stream.labels, split.labels) and torch.equal(stream.index, split.index)
