"""Audits of AutoAttack in a table are intervals and never mixed with AutoAttack's results."""

import json
from typing import Any

import pytest

from bsk.comparison.compare import compare
from bsk.comparison.evidence import collect
from bsk.comparison.requirements import failures, parse
from bsk.comparison.statistics import audited_accuracy_interval, mean_sd, rough_accuracy_interval
from bsk.comparison.tables import render
from bsk.errors import InputError
from bsk.evaluation.audit import Audit, fallen_interval

Make = Any
N, BITS = 1000, "1" * 500 + "0" * 500


def an_audit(make: Make, method: str = "bs", seed: int = 1, audited: int = 200, fallen: int = 0, **more: Any) -> Any:
    """500 of 1,000 images stand after the screen."""
    found = Audit(N, more.pop("survivors", 500), audited, fallen, more.pop("looks", 0))
    low, high = found.interval()
    fields = {"survivors": found.survivors, "audited": audited, "fallen": fallen, "looks": found.looks}
    more = {"attack_parameters": {"audit": audited}, "accuracy": found.accuracy, **more}
    record = make(method, seed, "autoattack-audit", correct=BITS, **more)
    return {**record, "correct": None, "audit": {**fields, "low": low, "high": high}}


def test_a_row_has_the_interval_of_these_images_and_that_of_new_ones(make: Make, place: Make) -> None:
    rows, notices = compare(place([an_audit(make, fallen=2)]))
    (row,) = rows
    low, high = fallen_interval(500, 200, 2)
    assert row["robust"] == pytest.approx(0.495) and notices == []
    assert (row["audit_low"], row["audit_high"]) == pytest.approx(((500 - high) / N, (500 - low) / N))
    ends = Audit(N, 500, 200, 2).interval_of_new_images()
    assert (row["robust_low"], row["robust_high"]) == pytest.approx(ends)
    assert row["robust_low"] < row["audit_low"] < row["robust"] < row["audit_high"] < row["robust_high"]
    assert "estimated from a sample" in row["note"] and row["attack"] == "autoattack-audit"
    table = render(rows, "table")
    assert f"{100 - high / 10 - 50:.2f} to {50 - low / 10:.2f}" in table and "audited" in table
    assert "robust is estimated from a sample" in " ".join(table.split())


def test_audits_and_autoattack_are_never_one_row(make: Make, place: Make) -> None:
    whole = [make("bs", seed, "autoattack", correct=BITS) for seed in (1, 2)]
    parts = [an_audit(make, seed=seed) for seed in (1, 2)]
    rows, _ = compare(
        place([*whole, *parts, an_audit(make, seed=3, audited=100), make("fast-at", 1, "autoattack", correct=BITS)])
    )
    assert [(row["attack"], row["seeds"]) for row in rows] == [
        ("autoattack", 2),
        ("autoattack-audit", 3),  # an audit of any size estimates the same accuracy
        ("autoattack", 1),
    ]
    assert [row["p"] for row in rows] == [None, None, 1.0] and rows[0]["audit_low"] is None
    assert [row["difference"] for row in rows] == [None, None, 0.0]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_of_the_audits_of_a_network_the_largest_counts(make: Make, place: Make, order: tuple[int, ...]) -> None:
    """A file has them all, if an audit was enlarged; the largest includes the others."""
    records = [
        an_audit(make, audited=100, fallen=1),
        an_audit(make, audited=200, fallen=3),
        an_audit(make, audited=400, fallen=4, attack_parameters={"within": 0.01}),
    ]
    rows, notices = compare(place([records[i] for i in order]))
    assert [(row["audit_low"], row["audit_high"]) for row in rows] == [Audit(N, 500, 400, 4).interval()]
    assert notices == []
    other = an_audit(make, audited=400, fallen=5, attack_parameters={"within": 0.01})
    rows, (notice,) = compare(place([records[2], other]))
    assert rows[0]["robust"] == pytest.approx(Audit(N, 500, 400, 5).accuracy) and "another result" in notice


def test_audits_have_no_test_no_standard_deviation_and_no_pareto(make: Make, place: Make) -> None:
    records = [an_audit(make, method, seed) for method in ("bs", "fast-at") for seed in (1, 2)]
    records += [make(method, seed, "natural", correct=BITS) for method in ("bs", "fast-at") for seed in (1, 2)]
    rows, _ = compare(place(records), pareto=True)
    for row in rows:
        missing = ("difference", "p", "p_holm", "detectable", "robust_sd", "robust_sd_low", "robust_best", "pareto")
        assert [row[column] for column in missing] == [None] * len(missing)
    assert rows[1]["natural_difference"] == 0


def test_outcomes_in_an_audit_record_are_ignored(make: Make, place: Make) -> None:
    record = {**an_audit(make), "correct": make("bs", 1, correct=BITS)["correct"], "accuracy": 0.5}
    (found,) = collect(place([record])).evaluations
    assert found.packed is None and found.accuracy == 0.5


def test_intervals_of_several_seeds_hold_simultaneously(make: Make, place: Make) -> None:
    audits = [Audit(N, 500, 200, 0), Audit(N, 450, 200, 3)]
    records = [an_audit(make, seed=seed, survivors=a.survivors, fallen=a.fallen) for seed, a in enumerate(audits, 1)]
    ((row,), _) = compare(place(records))
    ends = [fallen_interval(a.survivors, 200, a.fallen, 0.0125) for a in audits]
    low, high = ((950 - sum(end[side] for end in ends)) / 2 / N for side in (1, 0))
    assert (row["audit_low"], row["audit_high"]) == pytest.approx((low, high))
    assert row["robust"] == pytest.approx(mean_sd([a.accuracy for a in audits])[0])
    quarter = [[a.interval(0.25)[side] for a in audits] for side in (0, 1)]
    lows, highs = (rough_accuracy_interval(each, N, 0.975) for each in quarter)
    assert (row["robust_low"], row["robust_high"]) == pytest.approx((lows[0], highs[1]))
    one = audits[:1]
    assert audited_accuracy_interval(one) == pytest.approx(one[0].interval_of_new_images())


def test_a_condition_holds_only_in_the_whole_interval(make: Make, place: Make) -> None:
    """`bs` is audited: 500 stand, none of 200 falls, so 0.489 to 0.5; `fast-at` has 0.494 and 0.4 to the point."""
    rows, _ = compare(place([an_audit(make), make("fast-at", 1, correct="1" * 494 + "0" * 506)]))
    (low, high), estimate = (rows[0]["audit_low"], rows[0]["audit_high"]), rows[0]["robust"]
    assert low == 0.5 - fallen_interval(500, 200, 0)[1] / N < 0.494 < estimate == high == 0.5
    said = f"{low:.4g} to 0.5"

    def unmet(text: str) -> list[str]:
        return failures(parse(text), rows)

    assert unmet("bs.robust >= 0.48") == unmet("bs.robust < 0.51") == unmet("0.48 < bs.robust") == []
    assert unmet("bs.robust > 0.494") == [f"--require 'bs.robust > 0.494': {said} > 0.494 does not hold"]
    assert unmet("0.495 >= bs.robust") == [f"--require '0.495 >= bs.robust': 0.495 >= {said} does not hold"]
    assert unmet("bs.robust - fast-at.robust > 0") and unmet("fast-at.robust - bs.robust > 0")
    assert unmet("bs.robust - fast-at.robust > -0.02") == unmet("fast-at.robust - bs.robust < 0.02") == []
    assert unmet("robust > 0.494") and not unmet("robust > 0.48")
    assert unmet("bs.robust_low > 0.48") and not unmet("bs.audit_low > 0.48")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attack": "autoattack"}, "attack: expected autoattack-audit where there is an `audit`, and only there"),
        ({"audit": {"survivors": 500, "audited": 600, "fallen": 0, "looks": 0}}, "audit: expected fallen, audited"),
        ({"audit": {"survivors": 2000, "audited": 600, "fallen": 0, "looks": 0}}, "audit: expected fallen, audited"),
        ({"audit": {"survivors": 500, "audited": 100, "fallen": 200, "looks": 0}}, "audit: expected fallen, audited"),
        ({"audit": {"survivors": 500, "audited": 10, "fallen": 0, "looks": 10**12}}, "audit.looks: expected a whole"),
        ({"audit": {"survivors": -1, "audited": 0, "fallen": 0, "looks": 0}}, "audit.survivors: expected a whole"),
        ({"audit": {"survivors": 1}}, "audit.audited: expected a value"),
        ({"audit": None}, "audit: expected an object"),
    ],
)
def test_an_impossible_audit_record_is_refused(make: Make, place: Make, change: dict[str, Any], said: str) -> None:
    if change.get("audit") and len(change["audit"]) > 1:
        change = {"audit": {"low": 0.1, "high": 0.2, **change["audit"]}}
    with pytest.raises(InputError) as error:
        collect(place([{**an_audit(make), **change}]))
    assert said in str(error.value) and "\n" not in str(error.value)
    bare = json.loads(json.dumps(an_audit(make)))
    del bare["audit"]
    with pytest.raises(InputError, match="where there is an `audit`"):
        collect(place([bare]))
