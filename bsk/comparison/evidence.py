"""Evaluations and trainings read from records: networks, training costs, and accuracies under attacks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from sys import intern
from typing import Any

from msgspec import UNSET

from bsk.attacks.flags import AUDIT
from bsk.comparison.runs import Run, as_text, labels
from bsk.errors import InputError
from bsk.evaluation.audit import Audit
from bsk.records import located
from bsk.records.located import Located, checked, stops_at_eps, wrong
from bsk.records.schema import LOG_KINDS, EndRecord, EpochRecord, EvaluationRecord, Network, StartRecord, Training

VALIDATION_ATTACK = "pgd-20 (val)"  # selects the epoch in training; weaker than the attacks of `bsk evaluate`
MOST_OUTCOMES = 2 * 10**7  # over all evaluations
TRAINING_KINDS = ("start", "epoch", "end")
NOTHING: Mapping[str, Any] = {}
ALARM = "alarm"  # a collapse in training; not needed here, since the curves show it


@dataclass(frozen=True)
class Evaluation:
    """One network under one attack: the accuracy in [0, 1] on n images, and more where it is known.

    Attributes:
        packed: the outcomes, eight images per byte (`bsk.records.bits`).
        adbd: the mean distance to the decision boundary, measured by RayS.
        audit: if set, the accuracy is an estimate from this audit.
        by_class: for each class, how many images are classified right and how many there are.
        corruption: the corruption of the images, None for clean ones; `severity` is its severity.
        doubts: signs that the accuracy is too high.
        carried: whether verdicts come from "smaller" or "larger" radii of the same run; None if all are its own.
    """

    where: str
    run: Run
    attack: str
    parameters: Mapping[str, Any]
    eps: float | None
    split: str
    n: int | None
    accuracy: float
    packed: bytes | None = None
    adbd: float | None = None
    audit: Audit | None = None
    by_class: Mapping[str, Sequence[int]] | None = None
    corruption: str | None = None
    severity: int | None = None
    carried: str | None = None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingLog:
    """One training run, read from its log.

    Attributes:
        epoch: the last epoch logged, out of `epochs`.
        log: the record of each epoch.
        made_with: versions and device, None where the log does not have them.
    """

    where: str
    run: Run
    epoch: int = 0
    epochs: int | None = None
    finished: bool = False
    val_natural: float | None = None
    val_robust: float | None = None
    val_n: int | None = None
    log: Mapping[int, Located] = field(default_factory=dict)
    made_with: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """The evaluations and trainings in a set of records; `ignored` counts records of other kinds."""

    evaluations: list[Evaluation]
    trainings: list[TrainingLog]
    ignored: int


def collect(items: Iterable[Located]) -> Evidence:
    """Return the evaluations and trainings in the records, in their order.

    Raises:
        InputError: a field has a wrong type or range, or an epoch record comes without its start record.
    """
    evaluations, log, ignored, outcomes = [], [], 0, 0
    networks: dict[str, Run] = {}
    for item in items:
        kind = item.record.get("kind")
        if kind == "evaluation":
            evaluations.append(evaluation(item, networks))
            outcomes += (evaluations[-1].n or 0) * (evaluations[-1].packed is not None)
            if outcomes > MOST_OUTCOMES:
                raise InputError(
                    f"{item.where}: more than {MOST_OUTCOMES} outcomes in total; compare fewer records at once"
                )
        elif kind in TRAINING_KINDS:
            log.append(item)
        elif kind != ALARM:
            ignored += 1
    return Evidence(_labelled(evaluations), trainings(log), ignored)


def _labelled(evaluations: list[Evaluation]) -> list[Evaluation]:
    """Return the evaluations, with what tells networks that bsk did not train apart."""
    foreign = [item.run for item in evaluations if item.run.method is None]
    if not foreign:
        return evaluations
    known, normalised = labels(foreign), dict[str, set[str]]()
    for run in foreign:
        if "mean" in run.variant:  # records of earlier versions lack it
            normalised.setdefault(run.file, set()).add(as_text([run.variant["mean"], run.variant["std"]]))
    several = {file for file, found in normalised.items() if len(found) > 1}
    return [
        item if item.run.method is not None else replace(item, run=_told_apart(item.run, known, several))
        for item in evaluations
    ]


def _told_apart(run: Run, known: Mapping[str, str], several: Collection[str]) -> Run:
    """Return the run with its label, and with mean and std only if the same file was evaluated with several."""
    variant = run.variant if run.file in several else {k: v for k, v in run.variant.items() if k not in ("mean", "std")}
    return replace(run, label=known.get(run.file, ""), variant=variant)


def evaluation(item: Located, networks: dict[str, Run]) -> Evaluation:
    """Return an evaluation record, checked; its network is that of `networks` if it is equal, and else goes there.

    Raises:
        InputError: a field is missing, of a wrong type, or does not fit the others.
    """
    record = located.evaluation(item, EvaluationRecord)
    found = None if record.audit is UNSET else record.audit
    if (found is None) == (record.attack == AUDIT):
        raise wrong(item, "attack", f"{AUDIT} where there is an `audit`, and only there")
    audit = None if found is None else Audit(record.n, found.survivors, found.audited, found.fallen, found.looks)
    run = _run(record, record.checkpoint, record.train_eps, record.train_device, _unfinished(record))
    known = networks.setdefault(run.file, run)
    return Evaluation(
        where=item.where,
        run=known if known == run else run,
        attack=intern(record.attack),
        parameters=record.attack_parameters or {},
        eps=record.eps,
        split=intern(record.split),
        n=record.n,
        accuracy=audit.accuracy if audit else record.accuracy,
        packed=None if audit else record.correct,  # images that were not audited have no verdict
        adbd=None if record.adbd is UNSET or stops_at_eps(record) else record.adbd,
        audit=audit,
        by_class=None if record.by_class is UNSET else _classes(item, record.by_class),
        corruption=None if record.corruption is UNSET else intern(record.corruption),
        severity=None if record.severity is UNSET else record.severity,
        carried=_carried(record),
        doubts=tuple(map(intern, record.doubts or ())),
    )


def _unfinished(record: EvaluationRecord) -> str:
    """Return the remark that a network comes from the middle of its training, or an empty text."""
    planned = (record.flags or {}).get("epochs")
    within = (record.selected or "").startswith("update ")
    amid = record.selected == "last" and isinstance(planned, int) and (record.epoch or planned) < planned
    place = record.selected if within else "" if record.epoch is None else f"epoch {record.epoch}"
    at = f" at {place}" if place else ""
    return f"training unfinished{at}" if record.complete is False or amid or within else ""


def _carried(record: EvaluationRecord) -> str | None:
    if record.carried is UNSET or not record.carried:
        return None
    others = [] if record.carried_from is UNSET else record.carried_from
    return "larger" if others and record.eps is not None and max(others) > record.eps else "smaller"


def _classes(item: Located, found: Mapping[str, Sequence[int]]) -> Mapping[str, Sequence[int]]:
    if any(not 0 <= right <= n or n == 0 for right, n in found.values()):
        raise wrong(item, "by_class", "for each class the number classified right and the number of images")
    return found


def trainings(log: Iterable[Located]) -> list[TrainingLog]:
    """Return the trainings in `start`, `epoch` and `end` records.

    A `start` with the checkpoint of an unfinished training in the same file resumes that training. An `end` that has
    the flags itself, as `bsk train` prints it, is a whole training.

    Raises:
        InputError: a field has a wrong type, or an epoch or end comes without its start.
    """
    found: list[TrainingLog] = []
    logs: list[dict[int, Located]] = []
    running: dict[str, int] = {}
    for item in log:
        record = checked(item, LOG_KINDS[item.record["kind"]])
        current = running.get(item.source)
        if isinstance(record, Training) and (isinstance(record, StartRecord) or record.flags is not None):
            new = _started(item, record)
            if current is not None and found[current].run.checkpoint == new.run.checkpoint:
                found[current] = replace(new, epoch=found[current].epoch, log=logs[current])
            else:
                running[item.source] = current = len(found)
                logs.append({})
                found.append(replace(new, log=logs[current]))
        if current is None:
            raise InputError(f"{item.where}: {item.record['kind']} record without its start; give the whole log")
        if isinstance(record, EpochRecord):
            found[current] = replace(found[current], epoch=record.epoch)
            logs[current][record.epoch] = item
        elif isinstance(record, EndRecord):
            found[running.pop(item.source)] = _ended(found[current], record)
    return found


def _started(item: Located, record: Training) -> TrainingLog:
    if record.checkpoint is None:
        raise wrong(item, "checkpoint", "text")
    run = _run(record, record.checkpoint, record.eps)
    epochs = run.flags.get("epochs")
    planned = epochs if isinstance(epochs, int) else None
    made_with = {"version": record.version, "torch": record.torch, "device": record.device}
    return TrainingLog(item.where, run, epochs=planned, val_n=record.val_n, made_with=made_with)


def _ended(training: TrainingLog, record: EndRecord) -> TrainingLog:
    run = replace(training.run, sha256=record.checkpoint_sha256, selected=record.selected or "best", **_costs(record))
    return replace(training, run=run, finished=True, val_natural=record.val_natural, val_robust=record.val_robust)


def _run(
    record: Network, checkpoint: str, eps: float | None, train_device: str | None = None, interrupted: str = ""
) -> Run:
    return Run(
        checkpoint=checkpoint,
        sha256=record.checkpoint_sha256,
        method=None if record.method == "foreign" else _shared(record.method),
        model=_shared(record.model),
        dataset=_shared(record.dataset),
        data_sha256=_shared(record.data_sha256),
        train_data_sha256=_shared(getattr(record, "train_data_sha256", None)),
        init_sha256=_file(record, "init"),
        extra_sha256=_file(record, "extra"),
        seed=record.seed,
        eps=eps,
        flags={name: intern(each) if type(each) is str else each for name, each in (record.flags or {}).items()},
        selected=_shared(record.selected),
        device=_shared(train_device or record.device),  # old records have only the device of the evaluation
        interrupted=interrupted,
        variant=_variant(record),
        **_costs(record),
    )


def _variant(record: Network) -> Mapping[str, Any]:
    known = {name: getattr(record, name) for name in ("code", "method_code", "processes")}
    known = {
        name: each[:8] if isinstance(each, str) else each for name, each in known.items() if each not in (UNSET, 1)
    }
    if isinstance(record, EvaluationRecord) and record.method in (None, "foreign"):  # old records lack mean and std
        order = None if record.class_order is UNSET else record.class_order
        given = {name: getattr(record, name) for name in ("mean", "std")}
        known |= {"class_order": order, **(given if UNSET not in given.values() else {})}
    return known or NOTHING


def _file(record: Network, name: str) -> str | None:
    """Return the SHA-256 of an input file of a training; evaluations and logs have it in different fields."""
    said, found = getattr(record, f"{name}_sha256", UNSET), getattr(record, name, UNSET)
    said = found.get("sha256") if isinstance(found, dict) else said
    return intern(said) if isinstance(said, str) else None


def _shared(text: str | None) -> str | None:
    """Return the interned text, since thousands of records repeat the same few."""
    return None if text is None else intern(text)


def _costs(record: Network) -> dict[str, Any]:
    return {
        "seconds": record.train_seconds,
        "forward_passes": record.train_forward_passes,
        "backward_passes": record.train_backward_passes,
    }
