"""What records say: which networks were trained, at what cost, and how they did under which attack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsk.errors import InputError
from bsk.records.bits import decode_correct
from bsk.records.located import (
    LONGEST_SPLIT,
    MOST_OUTCOMES,
    Located,
    check_schema,
    count,
    mapping,
    needed,
    number,
    text,
    whole,
    wrong,
)

VALIDATION_ATTACK = "pgd-20 (val)"  # what a training selects by, weaker than what `evaluate` runs
LOG_KINDS = ("start", "epoch", "end")
ALARM = "alarm"  # of a training that overfitted to its attack; the curves show it


@dataclass(frozen=True)
class Run:
    """One trained network; `method` is None for one that bsk did not train."""

    checkpoint: str
    sha256: str | None = None
    method: str | None = None
    model: str | None = None
    dataset: str | None = None
    data_sha256: str | None = None
    seed: int | None = None
    eps: float | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    selected: str | None = None
    seconds: float | None = None
    forward_passes: int | None = None
    backward_passes: int | None = None
    device: str | None = None
    interrupted: str = ""

    @property
    def identity(self) -> str:
        """Return what tells this network from others trained with the same settings: its seed, else its file."""
        return f"seed {self.seed}" if self.seed is not None else self.sha256 or self.checkpoint


@dataclass(frozen=True)
class Evaluation:
    """One network under one attack: accuracy in [0, 1] on n images, and (n,) outcomes where they are known.

    `adbd` is the mean distance to the decision boundary, which RayS tells.
    """

    where: str
    run: Run
    attack: str
    parameters: Mapping[str, Any]
    eps: float | None
    split: str
    n: int | None
    accuracy: float
    correct: NDArray[np.bool_] | None = None
    adbd: float | None = None


@dataclass(frozen=True)
class TrainingLog:
    """One run as its log tells it; `epoch` is the last one logged, of `epochs`; `log` has the record of each.

    `made_with` has the versions and the device, as far as the log says.
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
    """All that a pile of records says; `ignored` counts those that `compare` has no use for."""

    evaluations: list[Evaluation]
    trainings: list[TrainingLog]
    ignored: int


def collect(items: Iterable[Located]) -> Evidence:
    """Return what the records say, in their order.

    Raises:
        InputError: a field has a wrong type or range, or an epoch stands in no log.
    """
    evaluations, log, ignored, outcomes = [], [], 0, 0
    for item in items:
        kind = item.record.get("kind")
        if kind == "evaluation":
            evaluations.append(evaluation(item))
            outcomes += 0 if evaluations[-1].correct is None else len(evaluations[-1].correct)
            if outcomes > MOST_OUTCOMES:
                raise InputError(
                    f"{item.where}: more than {MOST_OUTCOMES} outcomes in all; compare fewer records at once"
                )
        elif kind in LOG_KINDS:
            log.append(item)
        elif kind != ALARM:
            ignored += 1
    return Evidence(evaluations, trainings(log), ignored)


def evaluation(item: Located) -> Evaluation:
    """Return an evaluation record, checked.

    Raises:
        InputError: a field is missing, of a wrong type, or does not fit the others.
    """
    check_schema(item)
    n = needed(count(item, "n"), item, "n")
    if not 1 <= n <= LONGEST_SPLIT:
        raise wrong(item, "n", f"1 to {LONGEST_SPLIT} examples")
    accuracy = needed(number(item, "accuracy", 1), item, "accuracy")
    correct = _correct(item, n)
    if correct is not None and abs(correct.mean() - accuracy) > 0.5 / n:
        raise wrong(item, "accuracy", f"{correct.sum()}/{n}, as its `correct` bits say")
    return Evaluation(
        where=item.where,
        run=_run(item, "train_"),
        attack=needed(text(item, "attack"), item, "attack"),
        parameters=mapping(item, "attack_parameters"),
        eps=number(item, "eps"),
        split=needed(text(item, "split"), item, "split"),
        n=n,
        accuracy=accuracy,
        correct=correct,
        adbd=number(item, "adbd", 1),
    )


def trainings(log: Iterable[Located]) -> list[TrainingLog]:
    """Return the trainings of `start`, `epoch` and `end` records; a start goes on with an unfinished one of its file.

    An `end` that carries the flags itself, as `bsk train` prints it, is a whole training.

    Raises:
        InputError: a field has a wrong type, or an epoch or end belongs to no start.
    """
    found: list[TrainingLog] = []
    logs: list[dict[int, Located]] = []
    running: dict[str, int] = {}
    for item in log:
        check_schema(item)
        current = running.get(item.source)
        if item.record["kind"] == "start" or "flags" in item.record:
            new = _started(item)
            if current is not None and found[current].run.checkpoint == new.run.checkpoint:
                found[current] = replace(new, epoch=found[current].epoch, log=logs[current])
            else:
                running[item.source] = current = len(found)
                logs.append({})
                found.append(replace(new, log=logs[current]))
        if current is None:
            raise InputError(f"{item.where}: {item.record['kind']} record without its start; give the whole log")
        if item.record["kind"] == "epoch":
            epoch = needed(count(item, "epoch"), item, "epoch")
            found[current] = replace(found[current], epoch=epoch)
            logs[current][epoch] = item
        elif item.record["kind"] == "end":
            found[running.pop(item.source)] = _ended(found[current], item)
    return found


def _started(item: Located) -> TrainingLog:
    epochs = mapping(item, "flags").get("epochs")
    planned = epochs if isinstance(epochs, int) else None
    made_with = {"version": text(item, "version"), "torch": text(item, "torch"), "device": text(item, "device")}
    return TrainingLog(item.where, _run(item, ""), epochs=planned, val_n=count(item, "val_n"), made_with=made_with)


def _ended(training: TrainingLog, item: Located) -> TrainingLog:
    run = replace(
        training.run,
        sha256=text(item, "checkpoint_sha256"),
        selected=text(item, "selected") or "best",
        **_costs(item),
    )
    robust, natural = number(item, "val_robust", 1), number(item, "val_natural", 1)
    return replace(training, run=run, finished=True, val_natural=natural, val_robust=robust)


def _run(item: Located, prefix: str) -> Run:
    method = text(item, "method")
    return Run(
        checkpoint=needed(text(item, "checkpoint"), item, "checkpoint"),
        sha256=text(item, "checkpoint_sha256"),
        method=None if method == "foreign" else method,
        model=text(item, "model"),
        dataset=text(item, "dataset"),
        data_sha256=text(item, "data_sha256"),
        seed=whole(item, "seed"),
        eps=number(item, f"{prefix}eps"),
        flags=mapping(item, "flags"),
        selected=text(item, "selected"),
        device=text(item, "train_device") or text(item, "device"),  # old records know only the evaluation's
        **_costs(item),
    )


def _costs(item: Located) -> dict[str, Any]:
    return {
        "seconds": number(item, "train_seconds"),
        "forward_passes": count(item, "train_forward_passes"),
        "backward_passes": count(item, "train_backward_passes"),
    }


def _correct(item: Located, n: int) -> NDArray[np.bool_] | None:
    bits = item.record.get("correct")
    if bits is None:
        return None
    if not isinstance(bits, str):
        raise wrong(item, "correct", "base64 text")
    try:
        return decode_correct(bits, n)
    except InputError as error:
        raise InputError(f"{item.where}: {error}") from error
