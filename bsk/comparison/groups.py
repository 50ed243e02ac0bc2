"""Grouping of evaluations into rows: the same training except for its seed, the same attack, the same images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bsk.comparison.evidence import VALIDATION_ATTACK, Evaluation, Evidence, TrainingLog
from bsk.comparison.runs import Run, as_text
from bsk.evaluation.audit import Audit
from bsk.records.words import plain

NATURAL = "natural"
SAMPLE = ("audit", "within")  # the parameters of an attack that choose how many survivors are audited
_BESIDE = re.compile(r"\.(last|ema|ema-last)(?=\.safetensors$)")  # F.ema.safetensors belongs to the log of F
OWN_COLUMNS = {"method", "model", "dataset"}  # have their own columns, so they are never part of a name


Key = tuple[Any, ...]


@dataclass
class Group:
    """The evaluations of one row: those under one adversarial attack and those without attack, one per seed."""

    robust: list[Evaluation] = field(default_factory=list)
    natural: list[Evaluation] = field(default_factory=list)

    @property
    def first(self) -> Evaluation:
        """Return the first evaluation, which represents what all of the group share."""
        return (self.robust or self.natural)[0]

    @property
    def audits(self) -> list[Audit]:
        """Return the audits from which the robust accuracies are estimated, if they are."""
        return [item.audit for item in self.robust if item.audit is not None]


def gather(evaluations: Iterable[Evaluation]) -> list[Group]:
    """Return the groups in order of first appearance; a natural evaluation joins every group of its training."""
    natural: dict[Key, Group] = {}
    robust: dict[Key, tuple[Key, Group]] = {}
    order: dict[int, int] = {}
    for position, item in enumerate(evaluations):
        training = (item.run.settings, item.split, item.n, item.corruption, item.severity)
        if item.attack == NATURAL:
            group = natural.setdefault(training, Group())
            group.natural.append(item)
        else:
            key = (*training, item.eps, item.attack, as_text(telling_parameters(item)), item.carried)
            _, group = robust.setdefault(key, (training, Group()))
            group.robust.append(item)
        order.setdefault(id(group), position)
    alone = dict(natural)
    for training, group in robust.values():
        if training in natural:
            group.natural = natural[training].natural
            alone.pop(training, None)
    return sorted([*(group for _, group in robust.values()), *alone.values()], key=lambda group: order[id(group)])


def latest(evaluations: Sequence[Evaluation]) -> tuple[list[Evaluation], list[str]]:
    """Return the last evaluation for each seed of each row, and a notice if an earlier one had another result.

    Of audits it is the one of most survivors, which includes the others. Results under several seeds of the attack are
    results on the same network, so the last one stands here too.
    """
    kept: dict[Key, Evaluation] = {}
    replaced = []
    for item in evaluations:
        attacked = () if item.attack == NATURAL else (item.eps, as_text(telling_parameters(item)), item.carried)
        images = (item.split, item.n, item.corruption, item.severity)
        key = (item.run.settings, *images, item.attack, item.run.identity, *attacked)
        before = kept.get(key)
        grown = before is not None and item.audit and _sample(before) != _sample(item)
        if before is not None and not grown and not _same_result(before, item):
            replaced.append((before, item))
        if before is None or _audited(before) <= _audited(item):
            kept[key] = item
    if not replaced:
        return list(kept.values()), []
    old, new = replaced[0]
    reseeded = " with another seed of the attack" if old.parameters.get("seed") != new.parameters.get("seed") else ""
    return list(kept.values()), [
        f"{len(replaced)} record(s) left out, since a later one has the same settings, seed and attack but another "
        f"result; the first is {old.where} ({old.run.checkpoint}, {new.run.identity}), replaced by {new.where}"
        + reseeded
    ]


def _sample(item: Evaluation) -> tuple[Any, ...]:
    return tuple(item.parameters.get(name) for name in SAMPLE)


def _audited(item: Evaluation) -> int:
    return item.audit.audited if item.audit else 0


def completed(evidence: Evidence) -> list[Evaluation]:
    """Return the evaluations, completed from the logs with training costs and interruptions."""
    finished = {item.run.sha256: item.run for item in evidence.trainings if item.finished and item.run.sha256}
    cut = {item.run.checkpoint: item for item in evidence.trainings if not item.finished}
    runs = ((item, _completed(item.run, finished, cut)) for item in evidence.evaluations)
    return [item if run is item.run else replace(item, run=run) for item, run in runs]


def validations(trainings: Iterable[TrainingLog]) -> list[Evaluation]:
    """Return the accuracies of finished trainings on their val splits, as evaluations."""
    found = []
    for item in trainings:
        common = (item.run.eps, "val", item.val_n)
        if item.finished and item.val_natural is not None:
            found.append(Evaluation(item.where, item.run, NATURAL, {}, *common, item.val_natural))
        if item.finished and item.val_robust is not None:
            found.append(Evaluation(item.where, item.run, VALIDATION_ATTACK, {}, *common, item.val_robust))
    return found


def interruption(training: TrainingLog) -> str:
    """Return "interrupted at epoch 7 of 15"."""
    return f"interrupted at epoch {training.epoch}" + (f" of {training.epochs}" if training.epochs else "")


def names(groups: Sequence[Group]) -> list[str]:
    """Return the name of each group: the method id and the flags in which groups of the same method differ.

    A step counts as equal if it is the same fraction of eps in all groups. eps is left out if its column shows it.
    A network that bsk did not train has the name of its file.
    """
    rivals: dict[str | None, list[Evaluation]] = {}
    for group in groups:
        rivals.setdefault(group.first.run.method, []).append(group.first)
    telling = {method: differing([item.run for item in items]) for method, items in rivals.items()}
    for method, items in rivals.items():
        if all(item.eps in (None, item.run.eps) for item in items):  # the column eps shows it
            telling[method] = [flag for flag in telling[method] if flag != "eps"]
    found = []
    for group in groups:
        run = group.first.run
        flags = run.own_flags()
        shown = [f"{key}={plain(flags[key])}" for key in telling[run.method] if key in flags]
        found.append(" ".join([short_name(run), *shown]))
    return found


def short_name(run: Run) -> str:
    """Return the method id, or the file name of a network that bsk did not train."""
    return run.method or run.label or Path(run.checkpoint).stem


def differing(runs: Sequence[Run]) -> list[str]:
    """Return the flags in which trainings differ, sorted; a step that is the same fraction of eps is left out."""
    flags = [run.own_flags() for run in runs]
    keys = {key for each in flags for key in each} - OWN_COLUMNS
    telling = {key for key in keys if len({as_text(each.get(key)) for each in flags}) > 1}
    if len({_relative_step(each) for each in flags}) == 1:
        telling.discard("step")
    return sorted(telling)


def checkpoint_kind(selected: str | None) -> str | None:
    """Return the epoch and whether its weights are averaged, without the decay: "best ema" for "best ema 0.999"."""
    return " ".join(selected.split()[:2]) if selected else None


def without_seed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return an attack's parameters without the seed of its random draws."""
    return {key: value for key, value in parameters.items() if key != "seed"}


def telling_parameters(item: Evaluation) -> dict[str, Any]:
    """Return the parameters of an attack that make two results results of different attacks.

    The seed of its draws does not, nor does the size of an audit: an audit of any size estimates the same accuracy.
    """
    parameters = without_seed(item.parameters)
    return {name: value for name, value in parameters.items() if name not in SAMPLE} if item.audit else parameters


def _relative_step(flags: Mapping[str, Any]) -> str:
    step, eps = flags.get("step"), flags.get("eps")
    if isinstance(step, float) and isinstance(eps, float) and eps > 0:
        return f"{step / eps:.6g}"
    return as_text(step)


def _completed(run: Run, finished: Mapping[str, Run], cut: Mapping[str, TrainingLog]) -> Run:
    if run.sha256 is not None and run.sha256 in finished:
        log = finished[run.sha256]
        costs = {key: getattr(log, key) for key in ("seconds", "forward_passes", "backward_passes")}
        return replace(run, **{key: value for key, value in costs.items() if getattr(run, key) is None})
    trained = next((cut[name] for name in (run.checkpoint, _BESIDE.sub("", run.checkpoint)) if name in cut), None)
    return replace(run, interrupted=interruption(trained)) if trained else run


def _same_result(old: Evaluation, new: Evaluation) -> bool:
    same = old.run.sha256 == new.run.sha256 and old.accuracy == new.accuracy
    return same and (old.packed is None or new.packed is None or old.packed == new.packed)
