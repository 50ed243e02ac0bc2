"""The record of an evaluation, as `evaluate` writes and `compare` reads it, and the verdict on each example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from bsk.attacks.pgd import pgd
from bsk.attacks.registry import Attack, Stage
from bsk.data.batches import to_unit
from bsk.devices import device_name
from bsk.evaluation.audit import Audit
from bsk.evaluation.cache import key_of
from bsk.evaluation.calls import LEAST
from bsk.evaluation.diagnostics import Diagnostics, late_doubts
from bsk.evaluation.intervals import wilson
from bsk.evaluation.ledger import NOWHERE, STANDING, Ledger
from bsk.evaluation.settings import EvaluationSettings
from bsk.evaluation.subjects import Subject
from bsk.evaluation.verdicts import Examples
from bsk.perturb.ball import length
from bsk.records.bits import encode_correct
from bsk.records.jsonl import SCHEMA
from bsk.version import VERSION

_FROM_HEADER = ("method", "model", "dataset", "seed", "selected", "epoch", "complete", "flags")
_COSTS = ("train_seconds", "train_forward_passes", "train_backward_passes")
WHITE_ROWS = 256  # images taken at a time
ENGINE = 1  # grows when a change of the attacks' code changes verdicts: what was computed before is not taken up


def facts_of(subject: Subject, stages: Sequence[Stage], settings: EvaluationSettings, n: int) -> dict[str, Any]:
    """Return all that decides the verdicts of stages one after another on the first n examples."""
    return {
        "checkpoint_sha256": subject.sha256,
        "model": subject.header.get("model"),
        "normalisation": [subject.header.get("mean"), subject.header.get("std")],
        "data_sha256": settings.data.sha256,
        "split": settings.split,
        "n": n,
        "eps": settings.eps,
        "stages": [[stage.name, stage.described] for stage in stages],
        "seed": settings.seed,
        "code": subject.header.get("code"),
        **class_order(subject),
        "batch": settings.batch_size if settings.batch_size < LEAST or any(s.batchwise for s in stages) else None,
        "engine": ENGINE,
    }


def keys_of(
    subject: Subject, attack: Attack, settings: EvaluationSettings, n: int, radii: Sequence[float] = ()
) -> tuple[str, list[tuple[str, str]]]:
    """Return the key of an evaluation's record, and for each stage its name and the key of all stages up to it.

    A record answers on any device. Blocks are of one kind of device, for its last bits are its own: an evaluation that
    was stopped on another starts over, so that `device` is true of the whole record.
    Where verdicts come from smaller `radii` the record is one of its own; its blocks are anybody's.
    """
    own = {"attack": attack.name, "checks": settings.checks, **attack.sampling, **carried_from(radii)}
    whole = {**facts_of(subject, attack.stages, settings, n), **own}
    begun = [attack.stages[: k + 1] for k in range(len(attack.stages))]
    up_to = [key_of({**facts_of(subject, stages, settings, n), "device": settings.device.type}) for stages in begun]
    return key_of(whole), [(stage.name, key) for stage, key in zip(attack.stages, up_to, strict=True)]


def evaluation_record(
    subject: Subject,
    attack: Attack,
    ledger: Ledger,
    examples: Examples,
    settings: EvaluationSettings,
    diagnostics: Diagnostics,
    key: str,
    radii: Sequence[float] = (),
) -> dict[str, Any]:
    """Return everything one needs to believe, repeat and compare one accuracy.

    `accuracy` is a fraction of n, `low` and `high` its 95 % Wilson interval, `correct` one bit an example in
    the data's fixed order; passes count images; `after` is the accuracy after each stage; `doubts` says when not to
    believe it. Of an audit `accuracy` is an estimate, `low` and `high` cover the sample's error too, `after` has the
    stages that met all, and there are neither bits nor classes: `audit` has what was found, and the exact interval for
    these n examples. After smaller `radii` in the same run `carried` examples had fallen there.
    """
    correct = ledger.standing
    n, right, audit = len(correct), int(correct.sum()), ledger.audit
    low, high = wilson(right, n) if audit is None else audit.interval_of_new_images()
    header = subject.header
    after = standing_after(ledger.broken_by, attack.stages[: attack.whole], n)
    late = late_doubts(after, n) if audit is None else _late_doubts_of(audit, ledger, attack)
    open_doubts = [doubt for doubt in diagnostics.doubts if f"use {attack.name}" not in doubt]  # others it has answered
    return {
        "schema": SCHEMA,
        "kind": "evaluation",
        "key": key,
        "checkpoint": str(subject.path),
        "checkpoint_sha256": subject.sha256,
        **{name: header.get(name) for name in _FROM_HEADER},
        **{name: header[name] for name in ("code", "method_code") if header.get(name)},
        **{f"{name}_sha256": header[name].get("sha256") for name in ("init", "extra") if header.get(name)},
        "normalisation": header.get("normalisation"),
        **class_order(subject),
        "train_eps": header.get("eps") if header.get("method") else None,
        **{name: header.get(name) for name in _COSTS},
        "train_device": header.get("device"),
        "train_data_sha256": header.get("data_sha256"),
        "data_sha256": settings.data.sha256,
        "eps": settings.eps,
        "attack": attack.name,
        "attack_parameters": {**attack.parameters, "seed": settings.seed},
        "split": settings.split,
        **settings.data.corrupted,
        "n": n,
        "accuracy": right / n if audit is None else audit.accuracy,
        "low": low,
        "high": high,
        "after": after,
        **audit_fields(ledger),
        **({**carried_from(radii), "carried": ledger.carried} if radii else {}),
        **rays_summary(ledger, attack, examples),
        **repeats(ledger, attack),
        "checks": diagnostics.facts,
        "doubts": [*open_doubts, *late, *other_data(subject, settings)],
        "seconds": ledger.seconds,
        "forward_passes": int(ledger.forward.sum()),
        "backward_passes": int(ledger.backward.sum()),
        **(by_class(correct, examples.labels, settings.data.classes) if audit is None else {}),
        "correct": encode_correct(correct.numpy()) if audit is None else None,
        "device": device_name(settings.device),
        "threads": torch.get_num_threads(),
        **({"compiled": True} if ledger.compiled else {}),
        **({"compile_seconds": ledger.compile_seconds} if ledger.compile_seconds else {}),
        "precision": "fp32",
        "version": VERSION,
        "torch": torch.__version__,
    }


def by_class(correct: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return as a field how many examples of each class are right, and how many there are, (N,) both."""
    counts = (labels[which].bincount(minlength=len(classes)).tolist() for which in (correct, labels >= 0))
    return {"by_class": {name: [right, n] for name, right, n in zip(classes, *counts, strict=True) if n}}


def of_targets(
    attack: Attack, labels: Tensor, predictions: Tensor, targets: Tensor, classes: Sequence[str]
) -> dict[str, Any]:
    """Return what a targeted attack has reached: of images of other classes, and what is left right of all, (N,)."""
    others, correct = targets != labels, predictions == labels
    right, n, asked, hits = (
        int(each.sum()) for each in (correct, labels >= 0, others, others & (predictions == targets))
    )
    (low, high), (least, most) = wilson(right, n), wilson(hits, asked) if asked else (0.0, 1.0)
    return {
        "accuracy": right / n,
        "low": low,
        "high": high,
        "after": {attack.stages[-1].name: right / n},
        **by_class(correct, labels, classes),
        "correct": encode_correct(correct.numpy()),
        "target": attack.parameters["target"],
        "targeted_n": asked,
        "targeted_success": hits / asked if asked else None,
        "targeted_low": least,
        "targeted_high": most,
    }


def carried_from(radii: Sequence[float]) -> dict[str, Any]:
    """Return the smaller radii at which examples have fallen as a field, if there are any."""
    return {"carried_from": list(radii)} if radii else {}


def standing_after(broken_by: Tensor, stages: Sequence[Stage], n: int) -> dict[str, float]:
    """Return by the name of each stage what part of n examples stands after it."""
    stands = [(broken_by == STANDING) | (broken_by > k) for k in range(len(stages))]
    return {stage.name: int(each.sum()) / n for stage, each in zip(stages, stands, strict=True)}


def _late_doubts_of(audit: Audit, ledger: Ledger, attack: Attack) -> list[str]:
    """Return what the sample says, counted against as many examples as it was drawn for."""
    n = max(1, round(audit.n * audit.audited / max(1, audit.survivors)))
    return late_doubts(standing_after(ledger.broken_by[ledger.sample], attack.stages, n), n)


def audit_fields(ledger: Ledger) -> dict[str, Any]:
    """Return what an audit found, with the exact 95 % interval of AutoAttack's accuracy on these examples."""
    if ledger.audit is None:
        return {}
    found, (low, high) = asdict(ledger.audit), ledger.audit.interval()
    del found["n"]
    return {"audit": {**found, "low": low, "high": high}}


def class_order(subject: Subject) -> dict[str, Any]:
    """Return the output of each class as a field, where the network has them in another order than the data."""
    return {name: subject.header[name] for name in ("class_order",) if name in subject.header}


def other_data(subject: Subject, settings: EvaluationSettings) -> list[str]:
    """Return the doubt that a network is judged on images it may have been trained on: other data of the same name."""
    begun, name = subject.header.get("init") or {}, settings.data.name
    if begun.get("dataset") == name and begun.get("data_sha256") not in (None, settings.data.sha256):
        return [f"it began with weights that were trained on other {name} data, which may have images judged here"]
    trained = subject.header.get("data_sha256")
    if trained in (None, settings.data.sha256) or subject.header.get("dataset") != name:
        return []
    rest = "" if settings.split == "test" else f", and its {settings.split} images may be among those"
    return [f"{name} is not the data that it was trained on{rest}: pass --data with the file that it was trained on"]


def repeats(ledger: Ledger, attack: Attack) -> dict[str, Any]:
    """Return of how many of the standing examples PGD left out steps, as their iterates repeat, and after how many."""
    stage = attack.stages[-1]
    if stage.run is not pgd or not stage.parameters.get("early_stop", True) or stage.parameters["steps"] == 1:
        return {}
    whole, standing = stage.parameters["restarts"] * stage.parameters["steps"], ledger.standing
    early = ledger.forward[standing][ledger.backward[standing] < whole].double()
    median = {"passes_median": float(early.quantile(0.5))} if len(early) else {}
    return {"repeats": {"stopped": len(early), "standing": int(standing.sum()), **median}}


def rays_summary(ledger: Ledger, attack: Attack, examples: Examples) -> dict[str, Any]:
    """Return what RayS tells beside the accuracy: distances to the boundary and queries.

    `adbd` is the average decision boundary distance of all examples, those that are misclassified as they are at 0
    and those never fooled at the distance of the white image, as published; `adbd_correct` that of examples
    classified right as they are.
    """
    if attack.stages[-1].name != "rays":
        return {}
    right = ledger.broken_by != 0  # by the natural stage
    asked = ledger.forward[right].double() - 1
    never = (ledger.distance == NOWHERE).nonzero().squeeze(1)
    distance = ledger.distance.double()
    for rows in never.split(WHITE_ROWS):
        distance[rows] = length(1 - to_unit(examples.take(rows)), "linf").double()
    return {
        "adbd": float(distance.mean()),
        "adbd_correct": float(distance[right].mean()) if bool(right.any()) else None,
        "never_fooled": len(never),
        "queries_mean": float(asked.mean()) if len(asked) else 0.0,
        "queries_median": float(asked.quantile(0.5)) if len(asked) else 0.0,
    }
