"""The rows of a comparison: accuracies with intervals, and differences from the first row where they are valid."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from bsk.comparison.differences import (
    baseline,
    comparable,
    detectables,
    difference,
    mismatches,
    mixtures,
    natural_difference,
    outcomes,
)
from bsk.comparison.evidence import VALIDATION_ATTACK, Evaluation, Evidence, TrainingLog, collect
from bsk.comparison.groups import (
    NATURAL,
    Group,
    completed,
    gather,
    interruption,
    latest,
    names,
    short_name,
    validations,
)
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
from bsk.evaluation.intervals import Interval
from bsk.records.jsonl import BEST_ON_TEST
from bsk.records.located import Located
from bsk.records.words import counted, plain, searched

CARRIED = {
    "smaller": "images that fell at smaller radii of the same run count as fallen",
    "larger": "images that stood at larger radii of the same run are assumed to stand",
}
ESTIMATED = (
    "robust is estimated from a sample of survivors, without differences and tests, and audited is the 95 % interval "
    "of AutoAttack's accuracy on these images"
)
ASSUMED = "leave out --largest-first"  # ends the doubt about what CARRIED tells
Value = str | int | float | None
Row = dict[str, Value]

BETWEEN = "; "  # between the remarks of a note
PUBLISHED = "the paper's: "  # begins the note with the source of published numbers that are not the paper's own
COLUMNS = (  # FIXED: scripts sort by position, so new columns go at the end
    "name", "model", "eps", "natural", "robust", "robust_low", "robust_high", "robust_sd", "natural_low",
    "natural_high", "natural_sd", "seeds", "n", "attack", "train_seconds", "train_forward_passes",
    "train_backward_passes", "difference", "p", "dataset", "split", "selected", "note", "difference_low",
    "difference_high", "train_time_ratio", "robust_best", "adbd", "paper_natural", "paper_robust", "paper_minutes",
    "paper_time_ratio", "paper_robust_best", "paper_adbd", "title", "paper_robust_sd", "p_holm", "detectable",
    "difference_boot_low", "difference_boot_high", "difference_seeds_low", "difference_seeds_high", "pareto",
    "train_passes_ratio", "robust_sd_low", "robust_sd_high", "natural_difference", "natural_difference_low",
    "natural_difference_high", "audit_low", "audit_high", "corruption", "severity", "baseline",
)  # fmt: skip


def compare(
    items: Iterable[Located], beside: Table | None = None, title: str | None = None, pareto: bool = False
) -> tuple[list[Row], list[str]]:
    """Return one row per method and attack, with seeds pooled, in order of first appearance, and the notices.

    The columns, with accuracies as fractions:

    - `natural`, `robust`: means over seeds; `*_sd`: their sample standard deviations; `robust_sd_*`: its interval
      (`statistics.sd_interval`).
    - `*_low`, `*_high`: 95 % intervals (`statistics.accuracy_interval`). With one seed they cover new images, with
      several seeds new images and new seeds.
    - `difference`: `robust` minus that of the baseline, over the seeds that both have. The baseline is the first row
      under the same attack with the same kind of checkpoint (`differences.baseline`): best epoch, last epoch, or the
      average of either. `difference_*` is its 95 % interval (`statistics.difference_interval`), `natural_difference`
      the same for `natural`.
    - `p`: the exact McNemar test of the same pairs (`significance.paired_exact`). It is about these networks on new
      images, whereas the interval covers new seeds; so p can be small although the interval contains 0.
    - `p_holm`: p adjusted for all comparisons of the table (`significance.holm`).
    - `detectable`: the true difference whose interval, from as many seeds and images, excludes 0 in four of five
      cases (`statistics.detectable`); none does if it is 1 or more.
    - `difference_boot_*`: a paired bootstrap over images, for these networks; `difference_seeds_*`: a t interval over
      seeds, for these images.
    - `pareto`, if asked for: 0 if a comparable row of the same model has at least this robust accuracy for at most
      these passes, and is better in one of the two; 1 if none has; None without passes or for an estimate.
    - `baseline`: 1 if the row is its own baseline, so that it has no difference, else 0.
    - `train_time_ratio`, `train_passes_ratio`: the cost of training relative to the first row.
    - `robust_best`: the best of several seeds; `adbd`: the mean distance to the decision boundary that RayS measures.
    - `paper_*`: the numbers of the rows of `beside`, accuracies as fractions too; `title`: the same in every row.

    If a row differs from its baseline in eps, split, data, n or attack parameters, the columns of differences stay
    empty, and `note` and a notice give the reason. If there are logs but no evaluations, the rows have the accuracies
    on the val split during training, with intervals if the log has the number of images (`val_n`).

    For audits of AutoAttack `robust` is an estimate, `audit_*` is the exact 95 % interval of its mean on these images
    (`statistics.audit_interval`), and `robust_*` covers the sampling error too. Audits have no difference, since the
    images that were not audited have no verdict, and no standard deviation.

    Raises:
        InputError: a record is invalid.
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
        rows += [_interrupted_row(item) for item in evidence.trainings if not item.finished]
    lost = beside is not None and not any(row["paper_robust"] or row["paper_robust_best"] for row in rows)
    missing = (
        [f"no row matches table {beside.name} of the paper in method, flags and attack"] if beside and lost else []
    )
    ignored = [f"{evidence.ignored} record(s) of other kinds ignored"] if evidence.ignored else []
    unjudged = sum(row["pareto"] is None for row in rows) if pareto else 0
    if unjudged:
        ignored.append(
            f"--pareto: {counted(unjudged, 'row')} without an attack or passes, or with an estimate, not judged"
        )
    return rows, [*missing, *mixtures(groups), *repeated, *_log_notices(evidence), *ignored]


def _interrupted_row(training: TrainingLog) -> Row:
    """Return the row of an unfinished training, which has no accuracies but a note."""
    found: Row = {"name": short_name(training.run), "seeds": 1, "note": interruption(training)}
    found |= {column: getattr(training.run, column) for column in ("model", "eps", "dataset")}
    return {column: found.get(column) for column in COLUMNS}


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
        if group.natural and reference.natural:
            natural, said = natural_difference(group, reference)
            cells.update({f"natural_{name}": value for name, value in natural.items()})
            reasons = [*reasons, *(each for each in said if each.removeprefix("natural: ") not in reasons)]
    cells["baseline"] = int(group is reference)
    cells["note"] = BETWEEN.join([*reasons, *remarks(group)]) or None
    return {column: cells.get(column) for column in COLUMNS}


def facts(group: Group) -> Row:
    """Return the facts of a group: network, data, attack, seeds and mean cost of training."""
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
    """Return the paper's numbers for a training like the group's, the best of several runs in a column of its own."""
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
    return BETWEEN.join(str(note) for note in notes if note) or None


def _add_ratios(rows: Sequence[Row], groups: Sequence[Group]) -> None:
    """Set each row's cost relative to the first row: ratios depend less on the machine than minutes do.

    Times on different devices get no ratio but a note.
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
    """Set `p_holm` and `detectable` in the rows that have a p."""
    tested = [(row, p, both) for row, both in zip(rows, compared, strict=True) if (p := as_float(row["p"])) is not None]
    adjusted, shown = holm([p for _, p, _ in tested]), detectables([both for _, _, both in tested])
    for (row, _, _), p_holm, value in zip(tested, adjusted, shown, strict=True):
        row["p_holm"], row["detectable"] = p_holm, value


def _add_pareto(rows: Sequence[Row], groups: Sequence[Group]) -> None:
    """Mark the rows that no comparable row of the same model beats in accuracy or passes and equals in the other."""
    rivals: list[tuple[Row, float, float]]
    for indices in comparable(groups):
        for model in {rows[index]["model"] for index in indices}:
            both = ((rows[i], as_float(rows[i]["robust"]), cost_in_passes(rows[i])) for i in indices)
            rivals = [(row, r, c) for row, r, c in both if row["model"] == model and r is not None and c is not None]
            for row, robust, passes in rivals:
                beaten = any(r >= robust and c <= passes and (r, c) != (robust, passes) for _, r, c in rivals)
                row["pareto"] = int(not beaten)


def cost_in_passes(row: Row) -> float | None:
    """Return the cost of training in images passed forward and backward, which does not depend on the machine."""
    forward, backward = (as_float(row[f"train_{way}_passes"]) for way in ("forward", "backward"))
    return None if forward is None or backward is None else forward + backward


def as_float(value: Value) -> float | None:
    """Return the number in a cell, or None."""
    return float(value) if isinstance(value, (int, float)) else None


def _accuracy(kind: str, evaluations: Sequence[Evaluation]) -> Row:
    if not evaluations:
        return {}
    mean, sd = mean_sd([item.accuracy for item in evaluations])
    ends = {"": pooled_interval(evaluations), "_sd": sd_interval(sd, len(evaluations)) if sd else None}
    found: Row = {kind: mean, f"{kind}_sd": sd}
    for name, interval in ends.items():
        found[f"{kind}{name}_low"], found[f"{kind}{name}_high"] = interval or (None, None)
    return found


def _estimate(audits: Sequence[Audit]) -> Row:
    """Return the intervals of an estimate, with the columns empty that only measured accuracies have."""
    columns = ("audit_low", "audit_high", "robust_low", "robust_high")
    ends = (*audit_interval(audits), *audited_accuracy_interval(audits))
    spread = ("robust_sd", "robust_sd_low", "robust_sd_high", "robust_best")
    return {**dict(zip(columns, ends, strict=True)), **dict.fromkeys(spread)}


def pooled_interval(evaluations: Sequence[Evaluation]) -> Interval | None:
    """Return the 95 % interval of the mean accuracy of one evaluation per seed, None if n is not known."""
    n, known = evaluations[0].n, outcomes(evaluations)
    if n is None:
        return None
    if known is not None:
        return accuracy_interval(known)
    return rough_accuracy_interval([item.accuracy for item in evaluations], n)


def remarks(group: Group) -> list[str]:
    """Return the remarks that a reader of this row alone needs."""
    run, eps = group.first.run, group.first.eps
    found = [run.interrupted] if run.interrupted else []
    found += _doubtful(_members(group))
    if group.audits:
        found.append(ESTIMATED)
    if group.robust and (said := searched(group.first.parameters)):
        found.append(said)
    if group.robust and group.first.carried:
        found.append(CARRIED[group.first.carried])
    attacked = group.robust and group.first.attack != NATURAL
    if attacked and run.eps is not None and eps is not None and run.eps != eps:
        found.append(f"trained at eps {plain(run.eps)}")
    natural, robust = ({item.run.identity for item in items} for items in (group.natural, group.robust))
    if natural and robust and natural != robust:
        others = "other seeds" if len(natural) == len(robust) else counted(len(natural), "seed")
        found.append(f"natural over {others}")
    selected = run.selected or ""
    judge = "test" if selected.startswith(BEST_ON_TEST) else "val" if selected.startswith("best") else None
    if group.first.split == judge and run.train_data_sha256 in (None, run.data_sha256):
        found.append("these images selected the epoch, so accuracies on them are too high")
    return found


def _doubtful(members: Sequence[Evaluation]) -> list[str]:
    """Return each kind of doubt once, in the words of the first seed that has it; they may differ in a number."""
    known: dict[str, list[str]] = {}
    for item in members:
        said = [each for each in item.doubts if not each.endswith(ASSUMED)]  # CARRIED says this already
        for text in said:
            known.setdefault(re.sub(r"[\d.]+", "", text), []).append(text.replace(BETWEEN, ", "))
    seeds = len({item.run.seed for item in members})
    of_all = f"of {counted(len(members), 'seed' if seeds == len(members) else 'record')}"
    return [
        f"doubtful{f' ({len(texts)} {of_all})' if len(members) > 1 else ''}: {texts[0]}" for texts in known.values()
    ]


def _log_notices(evidence: Evidence) -> list[str]:
    found = [
        f"{item.run.checkpoint}: {interruption(item)}; left out of the means; run its bsk train command again to resume"
        for item in evidence.trainings
        if not item.finished
    ]
    finished = [item for item in evidence.trainings if item.finished]
    evaluated = {item.run.sha256 for item in evidence.evaluations}
    missing = [item.run.checkpoint for item in finished if item.run.sha256 not in evaluated]
    if any(item.run.selected != BEST_ON_TEST for item in finished) and not evaluated:
        found.append(f"checkpoints were selected by {VALIDATION_ATTACK}, so it is biased upwards; run bsk evaluate")
    elif missing:
        found.append(f"{len(missing)} finished training(s) have no evaluation; run bsk evaluate {missing[0]}")
    return found


def _mean(values: Sequence[float | None]) -> int | float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = mean_sd(known)[0]
    return int(mean) if mean.is_integer() and all(type(value) is int for value in known) else mean
