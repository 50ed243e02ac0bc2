"""From records to rows: each accuracy with its interval, and what may be compared with the first row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from bsk.comparison.differences import baseline, detectables, difference, mismatches, mixtures, outcomes, races
from bsk.comparison.evidence import VALIDATION_ATTACK, Evaluation, Evidence, collect
from bsk.comparison.groups import Group, completed, gather, interruption, latest, names, short_name, validations
from bsk.comparison.published import Table
from bsk.comparison.significance import holm
from bsk.comparison.statistics import (
    accuracy_interval,
    audit_interval,
    audited_accuracy_interval,
    mean_sd,
    rough_accuracy_interval,
    sd_interval,
)
from bsk.evaluation.audit import Audit
from bsk.records.jsonl import BEST_ON_TEST
from bsk.records.located import Located
from bsk.records.words import counted, plain

ESTIMATED = (
    "robust is estimated from a sample of survivors, audited is the 95 % interval of AutoAttack's accuracy on these "
    "images; no difference and no test"
)
Value = str | int | float | None
Row = dict[str, Value]

PUBLISHED = "the paper's: "  # how a note begins on whose the numbers beside are, where not the paper's own
COLUMNS = (  # FIXED: scripts sort by position; new ones go at the end
    "name", "model", "eps", "natural", "robust", "robust_low", "robust_high", "robust_sd", "natural_low",
    "natural_high", "natural_sd", "seeds", "n", "attack", "train_seconds", "train_forward_passes",
    "train_backward_passes", "difference", "p", "dataset", "split", "selected", "note", "difference_low",
    "difference_high", "train_time_ratio", "robust_best", "adbd", "paper_natural", "paper_robust", "paper_minutes",
    "paper_time_ratio", "paper_robust_best", "paper_adbd", "title", "paper_robust_sd", "p_holm", "detectable",
    "difference_boot_low", "difference_boot_high", "difference_seeds_low", "difference_seeds_high", "pareto",
    "train_passes_ratio", "robust_sd_low", "robust_sd_high", "natural_difference", "natural_difference_low",
    "natural_difference_high", "audit_low", "audit_high", "corruption", "severity",
)  # fmt: skip


def compare(
    items: Iterable[Located], beside: Table | None = None, title: str | None = None, pareto: bool = False
) -> tuple[list[Row], list[str]]:
    """Return one row per method and attack, seeds pooled, in order of first appearance, and what must be said.

    Accuracies are fractions. `natural` and `robust` are means over seeds, `*_sd` their sample standard deviations,
    `*_low` and `*_high` 95 % intervals (`statistics.accuracy_interval`): of new images for one seed, of new
    images and new seeds for several.

    `difference` is `robust` less that of the first row under the same attack and of the same kind of checkpoint
    (`differences.baseline`), the best epoch, the last, or the average of either, over the seeds that both have,
    `difference_*` its 95 % interval (`statistics.difference_interval`), and `p` the exact McNemar test of the same
    pairs (`significance.paired_exact`). With several seeds the interval tells what new seeds would give; p is about
    these networks on new images, so it can be small where the interval holds 0.

    `p_holm` is p adjusted for all comparisons of the table (`significance.holm`). `detectable` is the true difference
    that as many seeds and images would tell from 0 four times in five, as far as the table knows how much seeds vary
    (`statistics.detectable`). Beside the interval over both, `difference_boot_*` is a paired bootstrap over images, for
    these networks, and `difference_seeds_*` a t interval over seeds, for these images. If asked for, `pareto` is 1
    where no row that can be compared has more robust accuracy for no more passes, or as much for fewer, and 0 where one
    has.

    Where a row has another eps, split, data, n or attack parameters than that first row, these stay empty,
    `note` says why, and so does a notice. With logs but no evaluations, the rows are what the trainings saw on
    their val split, with intervals where the log says how many images it has (`val_n`).

    `natural_difference` is the same of `natural`, and `robust_sd_*` the interval of the standard deviation over seeds
    (`statistics.sd_interval`).

    `train_time_ratio` and `train_passes_ratio` are the training's cost by that of the first row, `robust_best` the best
    of several seeds, `adbd` the mean boundary distance that RayS tells. `paper_*` are the numbers of the rows of
    `beside`, its accuracies as fractions too; `title` stands in every row.

    Of audits of AutoAttack `robust` is an estimate, `audit_*` the exact 95 % interval of its mean on these images
    (`statistics.audit_interval`), and `robust_*` covers the sample's error too; they have no difference, for who was
    not audited has no verdict, and no spread.

    Raises:
        InputError: a record is not what it should be.
    """
    evidence = collect(items)
    evaluations = completed(evidence) or validations(evidence.trainings)
    kept, repeated = latest(evaluations)
    groups = gather(kept)
    compared = [(group, baseline(group, groups)) for group in groups]
    rows = [_row(name, *both) for name, both in zip(names(groups), compared, strict=True)]
    for row, group in zip(rows, groups, strict=True):
        paper = _published(group, beside)
        row.update({"title": title, **paper, "note": _joined(row["note"], paper.get("note"))})
    _add_ratios(rows, groups)
    _add_tests(rows, compared)
    if pareto:
        _add_pareto(rows, groups)
    if not evidence.evaluations:
        for item in (each for each in evidence.trainings if not each.finished):
            own: Row = {"name": short_name(item.run), "seeds": 1, "note": interruption(item)}
            own |= {column: getattr(item.run, column) for column in ("model", "eps", "dataset")}
            rows.append({column: own.get(column) for column in COLUMNS})
    lost = beside is not None and not any(row["paper_robust"] or row["paper_robust_best"] for row in rows)
    missing = [f"no row fits table {beside.name} of the paper by method, flags and attack"] if beside and lost else []
    ignored = [f"{evidence.ignored} record(s) of other kinds ignored"] if evidence.ignored else []
    return rows, [*missing, *mixtures(groups), *repeated, *_log_notices(evidence), *ignored]


def _row(name: str, group: Group, reference: Group) -> Row:
    reasons = [] if group is reference else mismatches(group, reference)
    cells: Row = {
        "name": name,
        **facts(group),
        **_accuracy("natural", group.natural),
        **_accuracy("robust", group.robust),
        "robust_best": max((item.accuracy for item in group.robust), default=None) if len(group.robust) > 1 else None,
        "adbd": _mean([item.adbd for item in group.robust]),
    }
    if group.audits:
        cells.update(_estimate(group.audits))
    if group is not reference and group.robust and not reasons:
        found, reasons = ({}, []) if group.audits else difference(group.robust, reference.robust)
        cells.update(found)
        natural, _ = difference(group.natural, reference.natural) if group.natural and reference.natural else ({}, [])
        cells.update({f"natural_{name}": value for name, value in natural.items()})
    cells["note"] = "; ".join([*reasons, *_remarks(group)]) or None
    return {column: cells.get(column) for column in COLUMNS}


def facts(group: Group) -> Row:
    """Return what a group is of: network, data, attack, seeds and the mean cost of training."""
    first, run = group.first, group.first.run
    seeds = _members(group)
    return {
        "model": run.model,
        "eps": first.eps,
        "seeds": len(seeds),
        "n": first.n,
        "attack": first.attack if group.robust else None,
        "train_seconds": _mean([item.run.seconds for item in seeds]),
        "train_forward_passes": _mean([item.run.forward_passes for item in seeds]),
        "train_backward_passes": _mean([item.run.backward_passes for item in seeds]),
        "dataset": run.dataset,
        "split": first.split,
        "selected": run.selected,
        "corruption": first.corruption,
        "severity": first.severity,
    }


def _published(group: Group, beside: Table | None) -> Row:
    """Return the paper's numbers for a training like the group's; the best of several runs is told apart."""
    run, attack = group.first.run, group.first.attack
    found = beside.fitting(run.method, {**run.flags, "eps": run.eps}, run.dataset) if beside else []
    if not found:
        return {}
    best = next((each for each in found if each.aggregate.startswith("best")), None)
    mean = next((each for each in found if each is not best), None)
    any_row = mean or found[0]
    return {
        "paper_natural": any_row.fraction("natural"),
        "paper_robust": mean.robust(attack) if mean else None,
        "paper_robust_sd": mean.fraction("robust_std") if mean else None,
        "paper_minutes": any_row.numbers.get("minutes"),
        "paper_robust_best": best.robust(attack) if best else None,
        "paper_adbd": any_row.numbers.get("adbd") if attack == "rays" else None,
        "note": f"{PUBLISHED}{any_row.source}" if any_row.source else None,
    }


def _joined(*notes: Value) -> str | None:
    return "; ".join(str(note) for note in notes if note) or None


def _add_ratios(rows: Sequence[Row], groups: Sequence[Group]) -> None:
    """Give each row its cost by that of the first: minutes are a machine's, ratios less so.

    Times of different devices have no ratio, and the row says so.
    """
    costs: dict[str, Callable[[Row], Value]] = {
        "train_time_ratio": lambda row: row["train_seconds"],
        "train_passes_ratio": cost_in_passes,
        "paper_time_ratio": lambda row: row["paper_minutes"],
    }
    for ratio, cost in costs.items():
        for row in rows:
            mine, first = as_float(cost(row)), as_float(cost(rows[0]))
            if mine is not None and first:
                row[ratio] = mine / first if math.isfinite(mine / first) else None
    for row, group in zip(rows, groups, strict=True):
        devices = {each.run.device for each in [*_members(group), *_members(groups[0])]}
        if row["train_time_ratio"] is not None and len(devices) > 1:
            row["train_time_ratio"] = None
            names = " and ".join(sorted(map(plain, devices)))
            row["note"] = _joined(row["note"], f"trained on {names}: times are not compared")


def _members(group: Group) -> list[Evaluation]:
    return group.robust or group.natural


def _add_tests(rows: Sequence[Row], compared: Sequence[tuple[Group, Group]]) -> None:
    """Give each p its adjusted one, for many comparisons find something by chance, and what the test would show."""
    tested = [(row, p, both) for row, both in zip(rows, compared, strict=True) if (p := as_float(row["p"])) is not None]
    adjusted, shown = holm([p for _, p, _ in tested]), detectables([both for _, _, both in tested])
    for (row, _, _), p_holm, value in zip(tested, adjusted, shown, strict=True):
        row["p_holm"], row["detectable"] = p_holm, value


def _add_pareto(rows: Sequence[Row], groups: Sequence[Group]) -> None:
    """Say which rows no other one beats in both robust accuracy and passes, among those that can be compared."""
    for race in races(groups):
        both = [(rows[place], as_float(rows[place]["robust"]), cost_in_passes(rows[place])) for place in race]
        rivals = [(row, r, c) for row, r, c in both if r is not None and c is not None]
        for row, robust, passes in rivals:
            beaten = any(r >= robust and c <= passes and (r, c) != (robust, passes) for _, r, c in rivals)
            row["pareto"] = int(not beaten)


def cost_in_passes(row: Row) -> float | None:
    """Return what training cost in images passed forward and backward, which no machine's speed changes."""
    forward, backward = (as_float(row[f"train_{way}_passes"]) for way in ("forward", "backward"))
    return None if forward is None or backward is None else forward + backward


def as_float(value: Value) -> float | None:
    """Return the number of a cell, None where it has none."""
    return float(value) if isinstance(value, (int, float)) else None


def _accuracy(kind: str, evaluations: Sequence[Evaluation]) -> Row:
    if not evaluations:
        return {}
    mean, sd = mean_sd([item.accuracy for item in evaluations])
    ends = {"": _interval(evaluations), "_sd": None if sd is None else sd_interval(sd, len(evaluations))}
    found: Row = {kind: mean, f"{kind}_sd": sd}
    for name, interval in ends.items():
        found[f"{kind}{name}_low"], found[f"{kind}{name}_high"] = interval or (None, None)
    return found


def _estimate(audits: Sequence[Audit]) -> Row:
    """Return the intervals of an estimate, and nothing that would take it for a measured accuracy."""
    columns = ("audit_low", "audit_high", "robust_low", "robust_high")
    ends = (*audit_interval(audits), *audited_accuracy_interval(audits))
    spread = ("robust_sd", "robust_sd_low", "robust_sd_high", "robust_best")
    return {**dict(zip(columns, ends, strict=True)), **dict.fromkeys(spread)}


def _interval(evaluations: Sequence[Evaluation]) -> tuple[float, float] | None:
    n, known = evaluations[0].n, outcomes(evaluations)
    if n is None:
        return None
    if known is not None:
        return accuracy_interval(known)
    return rough_accuracy_interval([item.accuracy for item in evaluations], n)


def _remarks(group: Group) -> list[str]:
    """Return what a reader of this row alone should know."""
    run, eps = group.first.run, group.first.eps
    found = [run.interrupted] if run.interrupted else []
    if group.audits:
        found.append(ESTIMATED)
    if group.robust and group.first.carried:
        found.append("counts as fallen what fell at smaller radii of the same run")
    if group.robust and run.eps is not None and eps is not None and run.eps != eps:
        found.append(f"trained at eps {plain(run.eps)}")
    if group.robust and group.natural and len(group.natural) != len(group.robust):
        found.append(f"natural over {counted(len(group.natural), 'seed')}")
    return found


def _log_notices(evidence: Evidence) -> list[str]:
    found = [
        f"{item.run.checkpoint}: {interruption(item)}; not averaged; run its bsk train again to go on"
        for item in evidence.trainings
        if not item.finished
    ]
    finished = [item for item in evidence.trainings if item.finished]
    evaluated = {item.run.sha256 for item in evidence.evaluations}
    missing = [item.run.checkpoint for item in finished if item.run.sha256 not in evaluated]
    if any(item.run.selected != BEST_ON_TEST for item in finished) and not evaluated:
        found.append(f"{VALIDATION_ATTACK} is what the checkpoints were selected by, so too high; run bsk evaluate")
    elif missing:
        found.append(f"{len(missing)} finished training(s) without evaluation; run bsk evaluate {missing[0]}")
    return found


def _mean(values: Sequence[float | None]) -> int | float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = mean_sd(known)[0]
    return int(mean) if mean.is_integer() and all(type(value) is int for value in known) else mean
