"""Audits of AutoAttack: the interval against enumeration, its coverage, and a sample that grows without loss."""

import json
import math
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_cache import bench, stopped_after

from benchmarks.audit import WHOLE, part_of
from bsk.attacks.apgd import apgd
from bsk.attacks.flags import AUDIT, AttackFlags
from bsk.attacks.outcome import Outcome
from bsk.attacks.registry import Attack, attack_named
from bsk.errors import UsageError
from bsk.evaluation.audit import FIRST, TAIL, Audit, at_most, fallen_interval
from bsk.evaluation.intervals import wilson
from bsk.evaluation.ledger import Block, Ledger, StageResult
from bsk.evaluation.reports import audit_fields, keys_of
from bsk.evaluation.rounds import random_order
from bsk.evaluation.run import evaluate
from bsk.evaluation.verdicts import _Reporter
from bsk.records.bits import decode_correct

EPS = 0.1


def chance(population: int, marked: int, drawn: int, seen: int) -> Fraction:
    """P(X = seen), counted."""
    ways = math.comb(marked, seen) * math.comb(population - marked, drawn - seen)
    return Fraction(ways, math.comb(population, drawn))


def enumerated(survivors: int, audited: int, fallen: int, tail: Fraction) -> tuple[int, int]:
    """The total numbers of fallen images that neither one-sided test at `tail` rejects, in exact integers."""
    kept = []
    for marked in range(fallen, survivors - audited + fallen + 1):
        below = sum(chance(survivors, marked, audited, k) for k in range(fallen + 1))
        above = sum(chance(survivors, marked, audited, k) for k in range(fallen, audited + 1))
        if below >= tail and above >= tail:
            kept.append(marked)
    assert kept == list(range(kept[0], kept[-1] + 1)), "without a gap"
    return kept[0], kept[-1]


def test_the_interval_by_hand() -> None:
    """10 stand, 5 are audited, none falls: P(none) is C(10 - K, 5) / 252, 21 / 252 for K = 3 and 6 / 252 for K = 4."""
    assert 6 / 252 < 0.025 < 21 / 252
    assert fallen_interval(10, 5, 0) == (0, 3)
    assert fallen_interval(10, 5, 5) == (7, 10), "the same of those that stand"
    assert fallen_interval(10, 10, 4) == (4, 4), "all are audited"
    assert fallen_interval(10, 0, 0) == (0, 10), "none is"
    assert fallen_interval(0, 0, 0) == (0, 0)
    assert fallen_interval(10, 3, 0) == (0, 6), "P(none) is 4 / 120 for K = 6 and 1 / 120 for K = 7"


@pytest.mark.parametrize("tail", [Fraction(1, 40), Fraction(1, 50), Fraction(1, 400), Fraction(1, 5)])
def test_the_interval_is_that_of_an_enumeration(tail: Fraction) -> None:
    for survivors in range(13):
        for audited in range(survivors + 1):
            for fallen in range(audited + 1):
                found = fallen_interval(survivors, audited, fallen, float(tail))
                assert found == enumerated(survivors, audited, fallen, tail), (survivors, audited, fallen)


def test_a_tie_stays_in_the_interval() -> None:
    """Of 16 standing images, 2 are audited and fall: for K = 3 the probability is 3 / 120 = 1 / 40."""
    assert chance(16, 3, 2, 2) == Fraction(1, 40)
    assert fallen_interval(16, 2, 2) == (3, 16) and fallen_interval(16, 2, 2, 0.0251) == (4, 16)


@pytest.mark.parametrize(
    ("marked", "drawn", "seen"), [(28, 600, 0), (60, 600, 3), (4000, 700, 571), (2500, 2500, 1250)]
)
def test_chances_are_exact_in_large_populations(marked: int, drawn: int, seen: int) -> None:
    whole = float(sum(chance(5000, marked, drawn, k) for k in range(seen + 1)))
    assert at_most(5000, marked, drawn, seen) == pytest.approx(whole, rel=1e-9)


def test_a_larger_sample_tells_more() -> None:
    widths = [high - low for low, high in (fallen_interval(300, m, 0) for m in range(301))]
    assert widths == sorted(widths, reverse=True) and widths[0] == 300
    assert widths[291:294] == [1, 1, 0], "one of the 300 that is not among 293 has a chance of 7 / 300"
    for m in range(2, 301):
        low, high = fallen_interval(300, m, m // 3)
        assert m // 3 <= low <= high <= 300 - (m - m // 3)


def test_the_interval_for_ten_thousand_images() -> None:
    """10,000 images, 5,000 stand, 600 are audited and stand: 28 of 5,000 may fall, about a quarter of a point."""
    audit = Audit(10_000, 5000, 600)
    assert audit.accuracy == 0.5 and audit.interval() == (0.4972, 0.5)
    assert replace(audit, fallen=3).accuracy == pytest.approx((5000 - 25) / 10_000)
    assert Audit(100, 0, 0).accuracy == 0.0 and Audit(100, 0, 0).interval() == (0.0, 0.0)


def test_the_interval_for_new_images_covers_both_errors() -> None:
    audit = Audit(1000, 500, 100, 2)
    low, high = fallen_interval(500, 100, 2, 0.0125)
    ends = wilson(500 - high, 1000, 0.975)[0], wilson(500 - low, 1000, 0.975)[1]
    assert audit.interval_of_new_images() == pytest.approx(ends)
    assert ends[0] < audit.interval()[0] < audit.accuracy < audit.interval()[1] < ends[1]
    assert Audit(1000, 500, 500, 7).interval_of_new_images() == pytest.approx(wilson(493, 1000)), "all are audited"


@pytest.mark.parametrize(
    ("survivors", "audited", "falling"), [(5000, 600, 0), (5000, 600, 25), (400, 60, 100), (40, 9, 8)]
)
def test_coverage_of_an_audit(survivors: int, audited: int, falling: int) -> None:
    seen = np.random.default_rng(0).hypergeometric(falling, survivors - falling, audited, 2000)
    ends = {int(k): fallen_interval(survivors, audited, int(k)) for k in np.unique(seen)}
    covered = np.mean([ends[int(k)][0] <= falling <= ends[int(k)][1] for k in seen])
    assert 0.95 <= covered <= 1


@cache
def next_look(audit: Audit, points: float) -> Audit | None:
    return None if audit.is_within(points) else audit.enlarged(points)


def within(survivors: int, falling: int, n: int, points: float, random: np.random.Generator) -> Audit:
    """The audit that an evaluation would make, of a population with a given number that would fall."""
    audit, seen = Audit(n, survivors, 0), 0
    while (look := next_look(audit, points)) is not None:
        left = falling - look.fallen
        more = random.hypergeometric(left, survivors - seen - left, look.audited - seen)
        audit, seen = replace(look, fallen=look.fallen + int(more)), look.audited
    return audit


@pytest.mark.parametrize(
    ("survivors", "falling", "n", "points"), [(900, 12, 2000, 0.5), (60, 6, 100, 8), (60, 30, 100, 20)]
)
def test_coverage_where_the_sample_grows_by_what_it_shows(survivors: int, falling: int, n: int, points: float) -> None:
    random = np.random.default_rng(0)
    found = [within(survivors, falling, n, points, random) for _ in range(2000)]
    assert all(audit.is_within(points) for audit in found)
    assert {audit.looks for audit in found} > {1, 2}, "they stop when they like what they see"
    covered = [low <= falling <= high for low, high in (fallen_interval(*sizes(audit)) for audit in found)]
    assert 0.95 <= np.mean(covered) <= 1


def sizes(audit: Audit) -> tuple[int, int, int, float]:
    return audit.survivors, audit.audited, audit.fallen, audit.tail


def test_the_error_is_divided_among_the_interim_analyses() -> None:
    tails = [Audit(9, 9, 9, looks=look).tail for look in range(1, 60)]
    assert tails[:3] == pytest.approx([0.02, 0.0025, 0.00125]) and sum(tails) == pytest.approx(TAIL)
    assert Audit(9, 9, 9).tail == TAIL and tails[0] == FIRST * TAIL


def test_the_first_look_is_the_smallest_that_can_be_enough() -> None:
    audit = Audit(10_000, 5000, 0).enlarged(0.5)
    assert (audit.audited, audit.looks) == (368, 1) and audit.is_within(0.5)
    assert not replace(audit, audited=367).is_within(0.5)
    more = replace(audit, fallen=2)
    assert not more.is_within(0.5)
    more = more.enlarged(0.5)
    assert more.audited > 700 and more.looks == 2
    assert Audit(100, 1, 0).enlarged(0.1).audited == 1 and Audit(100, 0, 0).enlarged(0.1).audited == 0
    assert Audit(100, 50, 0).enlarged(90).audited == 1, "one at least, though nothing need be known"


def test_half_a_point_of_ten_thousand_images_costs_at_most_a_third() -> None:
    """By the stages: 1, 200, 1,800, 2,700 and 5,000 passes of a survivor; 368 of 5,000 survivors meet the last two."""
    audit, part = part_of(WHOLE, 10_000, 0.5)
    assert audit.audited == 368 and part == pytest.approx(1 - (1 - 368 / 5000) * 7700 / 9701)
    assert part_of(WHOLE, 10_000, 0.25)[1] < 0.35 and part_of(WHOLE, 2000, 0.5)[1] < 0.45


def test_the_order_is_random_and_the_same_for_any_set_of_examples() -> None:
    index = torch.arange(2000) * 7
    order = random_order(index, 0)
    assert order.sort().values.tolist() == list(range(2000)) and order.tolist() != random_order(index, 1).tolist()
    part = random_order(index[:500], 0)
    assert part.tolist() == [place for place in order.tolist() if place < 500]
    assert 450 < int((order[:1000] < 1000).sum()) < 550


def timid(*given, eps: float, **parameters) -> Outcome:
    """APGD with 4/5 of the radius, so that it leaves images for later stages."""
    return apgd(*given, eps=0.8 * eps, **parameters)


def audited(**how) -> Attack:
    """AutoAttack with few steps and with first stages so weak that later ones find images."""
    attack = attack_named("autoattack", EPS, AttackFlags(classes=3, **how))
    few = {"apgd-ce": {"steps": 4}, "apgd-t": {"steps": 4}, "fab-t": {"steps": 5}, "square": {"queries": 200}}
    stages = [replace(each, parameters={**each.parameters, **few.get(each.name, {})}) for each in attack.stages]
    return replace(attack, stages=tuple(replace(each, run=timid) if each.run is apgd else each for each in stages))


def run(subject, toy: Path, out: Path | None, *attacks: Attack, **how) -> list[dict]:
    return list(evaluate(subject, attacks, bench(toy, eps=EPS, **how), out, lambda *_: None))


def told(record: dict) -> dict:
    return {name: value for name, value in record.items() if name != "seconds"}


def rows_of(out: Path, stage: str) -> list[int]:
    """The examples that a stage was run on, by the lines of its file."""
    (path,) = out.with_suffix(".examples").glob(f"{stage}-*.jsonl")
    return [row for line in path.read_text().splitlines() for row in json.loads(line)["rows"]]


def test_a_sample_grows_until_it_is_the_whole_to_the_bit(subject, toy: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "grown.jsonl", tmp_path / "whole.jsonl"
    eight, sixteen, grown = run(subject, toy, out, audited(audit=8), audited(audit=16), audited())
    (whole,) = run(subject, toy, other, audited())
    assert told(grown) == told(whole)
    verdicts = [path.with_suffix(".examples") / f"{whole['key']}.safetensors" for path in (out, other)]
    assert verdicts[0].read_bytes() == verdicts[1].read_bytes()
    assert len({each["key"] for each in (eight, sixteen, whole)}) == 3
    for stage in ("natural", "apgd-ce", "apgd-t", "fab-t", "square"):
        rows = rows_of(out, stage)
        assert len(rows) == len(set(rows)) and sorted(rows) == sorted(rows_of(other, stage)), "nothing twice"
    assert rows_of(out, "fab-t") != rows_of(other, "fab-t"), "those of the samples came first"


def test_the_interval_of_an_audit_contains_the_result_of_the_whole(subject, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    (whole,) = run(subject, toy, out, audited())
    broken_by = load_file(out.with_suffix(".examples") / f"{whole['key']}.safetensors")["broken_by"]
    survivors = (broken_by < 0) | (broken_by > 2)
    order = random_order(torch.arange(90), 0)
    first = [place for place in order.tolist() if survivors[place]][:12]
    calls = []
    hook = subject.model.register_forward_hook(lambda *_: calls.append(1))
    (record,) = run(subject, toy, out, audited(audit=12))
    hook.remove()
    assert not calls, "after a whole evaluation an audit costs nothing"
    fallen = int((broken_by[first] > 2).sum())
    audit = record["audit"]
    assert (audit["survivors"], audit["audited"], audit["fallen"], audit["looks"]) == (
        int(survivors.sum()),
        12,
        fallen,
        0,
    )
    assert fallen > 0 and int(survivors.sum()) > 30
    assert record["attack"] == AUDIT and record["attack_parameters"]["audit"] == 12
    assert (
        list(record["after"]) == ["natural", "apgd-ce", "apgd-t"] and record["after"].items() <= whole["after"].items()
    )
    assert record["accuracy"] == pytest.approx(int(survivors.sum()) * (1 - fallen / 12) / 90)
    assert audit["low"] <= whole["accuracy"] <= audit["high"] <= record["after"]["apgd-t"]
    assert record["low"] < audit["low"] and record["high"] > audit["high"] and record["correct"] is None
    kept = load_file(out.with_suffix(".examples") / f"{record['key']}.safetensors")
    assert kept["sample"].nonzero().squeeze(1).tolist() == sorted(first) and "sample" not in whole
    assert torch.equal(kept["broken_by"][kept["sample"]], broken_by[first][torch.argsort(torch.tensor(first))])
    assert record["forward_passes"] < whole["forward_passes"]


def test_an_audit_of_all_is_the_whole_but_for_its_name(subject, toy: Path) -> None:
    record, whole = run(subject, toy, None, audited(audit=1000), audited())
    for name in ("accuracy", "low", "high", "forward_passes", "backward_passes"):
        assert record[name] == pytest.approx(whole[name]), name
    assert record["doubts"] == whole["doubts"] != [], "Square finds much here"
    assert record["audit"]["low"] == record["audit"]["high"] == pytest.approx(whole["accuracy"])
    assert record["key"] != whole["key"]
    assert decode_correct(whole["correct"], 90).sum() == record["audit"]["survivors"] - record["audit"]["fallen"]


@pytest.mark.parametrize(
    "stop_after", [pytest.param(n, marks=pytest.mark.slow) if n != 6 else n for n in (1, 6, 9, 11)]
)
def test_an_interrupted_audit_resumes(subject, toy: Path, tmp_path: Path, stop_after: int) -> None:
    attack = audited(within=20)
    (whole,) = run(subject, toy, tmp_path / "whole.jsonl", attack, batch_size=16)
    assert whole["audit"]["looks"] > 1 and whole["audit"]["audited"] < whole["audit"]["survivors"]
    width = whole["audit"]["high"] - whole["audit"]["low"]
    assert width <= 0.2 and whole["attack_parameters"]["within"] == 20
    out = tmp_path / "parts.jsonl"
    with stopped_after(stop_after):
        run(subject, toy, out, attack, batch_size=16)
    (record,) = run(subject, toy, out, attack, batch_size=16)
    assert told(record) == told(whole)
    rows = rows_of(out, "fab-t")
    assert len(rows) == len(set(rows)) == whole["audit"]["audited"]
    assert run(subject, toy, out, attack) == [record], "complete, it answers at once"


def test_the_key_tells_samples_apart_and_blocks_are_common(subject, toy: Path) -> None:
    attacks = [audited(), audited(audit=5), audited(audit=6), audited(within=5), audited(within=5.5)]
    keys = [keys_of(subject, attack, bench(toy), 90) for attack in attacks]
    assert len({key for key, _ in keys}) == 5 and all(stages == keys[0][1] for _, stages in keys)
    assert keys_of(subject, audited(within=5.0), bench(toy), 90) == keys[3], "5 and 5.0 are the same"


def test_progress_counts_what_is_left_of_a_sample() -> None:
    """Of 20 images 4 are wrong as they are; then screen leaves 10, of which 6 are audited, and one of them falls."""
    attack = attack_named("autoattack", 0.1, AttackFlags(classes=10, audit=6))
    cost = [stage.passes for stage in attack.stages]
    ledger, rows, none = Ledger(20, attack.whole), torch.arange(20), torch.zeros(20, dtype=torch.int64)
    seen = []

    def enter(stage: int, places: torch.Tensor, fooled: torch.Tensor) -> None:
        n = len(places)
        ledger.add(Block(stage, places, fooled, torch.zeros(n), none[:n], none[:n], 0.0))

    def left(stage: int, found: StageResult | None = None) -> int:
        _Reporter(ledger, found or StageResult(20), attack, stage, 1, seen.append)()
        return seen[-1].total - seen[-1].done

    assert left(0) == 20 * sum(cost[:3]) + 6 * sum(cost[3:])
    enter(0, rows, rows < 4)
    enter(1, rows[4:], torch.zeros(16, dtype=torch.bool))
    enter(2, rows[4:], rows[4:] < 10)
    enter(3, rows[10:12], rows[10:12] < 30)
    assert int(ledger.standing.sum()) == 10, "what is known of those that no sample holds is left out"
    ledger.sample[[10, 12, 13, 14, 15, 16]] = True
    assert ledger.due(3).tolist() == [10, 12, 13, 14, 15, 16]
    assert left(3) == 6 * cost[3] + 6 * cost[4]
    found = StageResult(20)
    found.add(Block(3, rows[12:14], torch.tensor([True, False]), torch.zeros(2), none[:2], none[:2], 0.0))
    assert left(3, found) == 4 * cost[3] + 5 * cost[4]
    assert seen[-1].standing == 9 and seen[-1].sample == 6
    assert audit_fields(ledger) == {}


@pytest.mark.parametrize(
    ("names", "how", "said"),
    [
        (["screen"], {"audit": 5}, "--audit: no attack here takes it; it is for autoattack"),
        (["autoattack-rand"], {"within": 1}, "--within: no attack here takes it; it is for autoattack"),
        (["autoattack"], {"audit": 5, "engine": "reference"}, "--audit: no attack here takes it"),
        (["autoattack"], {"audit": 5, "within": 1}, "not both"),
        (["autoattack"], {"audit": 0}, "--audit 0: must be at least 1"),
        (["autoattack"], {"audit": 2.5}, "--audit 2.5: expected a whole number"),
        (["autoattack"], {"audit": True}, "--audit True: expected a whole number"),
        (["autoattack"], {"within": 0}, "--within 0: must be finite and above 0"),
        (["autoattack"], {"within": math.nan}, "--within nan: must be finite and above 0"),
    ],
)
def test_invalid_audit_flags_are_refused(names: list[str], how: dict, said: str) -> None:
    with pytest.raises(UsageError) as error:
        AttackFlags(**how).check(names)
    assert said in str(error.value)
    AttackFlags(audit=1).check(["pgd-20", "autoattack"])
