"""The record of an evaluation, as `evaluate` writes it and `compare` reads it."""

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
WHITE_ROWS = 256  # images per batch
ENGINE = 1  # increased when a change of the attack code changes verdicts, to invalidate the cache


def facts_of(subject: Subject, stages: Sequence[Stage], settings: EvaluationSettings, n: int) -> dict[str, Any]:
    """Return everything that affects the verdicts of a sequence of stages on the first n examples."""
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
        "batch": _telling_batch(stages, settings),
        "engine": ENGINE,
    }


def _telling_batch(stages: Sequence[Stage], settings: EvaluationSettings) -> int | None:
    """Return the batch size if verdicts may depend on it."""
    return settings.batch_size if settings.batch_size < LEAST or any(each.batchwise for each in stages) else None


def keys_of(
    subject: Subject, attack: Attack, settings: EvaluationSettings, n: int, radii: Sequence[float] = ()
) -> tuple[str, list[tuple[str, str]]]:
    """Return the key of an evaluation's record, and for each stage its name and the key of all stages up to it.

    A finished record is valid on every device. Blocks belong to one type of device, whose last bits differ: an
    evaluation that was interrupted on another type starts over, so that `device` holds for the whole record.
    A record that uses verdicts from other `radii` has its own key; its blocks are shared as usual.
    """
    said = {**attack.sampling, **settings.data.corrupted, **carried_from(radii)}
    own = {"attack": attack.name, "checks": settings.checks, **said}
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
    """Return the record of one evaluation: the result and everything needed to repeat, check and compare it.

    `accuracy` is a fraction of n, `low` and `high` its 95 % Wilson interval, `correct` has one bit per example in the
    fixed order of the data; passes count images; `after` is the accuracy after each stage; `doubts` are signs that the
    accuracy cannot be trusted. In an audit, `accuracy` is an estimate, `low` and `high` include the sampling error,
    `after` has the stages that met all examples, and there are neither bits nor classes; `audit` has the counts and the
    exact interval for these n examples. With other `radii` in the same run, these decided `carried` examples. The
    `batch_size` is there if verdicts may depend on it.
    """
    n, right, audit = len(ledger.standing), int(ledger.standing.sum()), ledger.audit
    low, high = wilson(right, n) if audit is None else audit.interval_of_new_images()
    after = standing_after(ledger.broken_by, attack.stages[: attack.whole], n)
    late = late_doubts(after, n) if audit is None else _late_doubts_of(audit, ledger, attack)
    open_doubts = [doubt for doubt in diagnostics.doubts if f"use {attack.name}" not in doubt]  # it answers the others
    return {
        "schema": SCHEMA,
        "kind": "evaluation",
        "key": key,
        **_of_model(subject),
        "data_sha256": settings.data.sha256,
        "eps": settings.eps,
        "attack": attack.name,
        "attack_parameters": {**attack.parameters, "seed": settings.seed},
        **({"batch_size": batch} if (batch := _telling_batch(attack.stages, settings)) else {}),
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
        "doubts": [*open_doubts, *late, *other_data(subject, settings), *_assumed(ledger, settings.eps, radii)],
        "seconds": ledger.seconds,
        "forward_passes": int(ledger.forward.sum()),
        "backward_passes": int(ledger.backward.sum()),
        **_by_example(ledger, examples, settings),
        **_circumstances(ledger, settings.device),
    }


def _of_model(subject: Subject) -> dict[str, Any]:
    """Return the fields that tell which model was evaluated, and how it was trained."""
    header = subject.header
    return {
        "checkpoint": str(subject.path),
        "checkpoint_sha256": subject.sha256,
        **{name: header.get(name) for name in _FROM_HEADER},
        **{name: header[name] for name in ("code", "method_code") if header.get(name)},
        **({"processes": header["processes"]} if header.get("processes", 1) > 1 else {}),
        **{f"{name}_sha256": header[name].get("sha256") for name in ("init", "extra") if header.get(name)},
        "normalisation": header.get("normalisation"),
        **({} if header.get("method") else {name: header[name] for name in ("mean", "std") if name in header}),
        **class_order(subject),
        "train_eps": header.get("eps") if header.get("method") else None,
        **{name: header.get(name) for name in _COSTS},
        "train_device": header.get("device"),
        "train_data_sha256": header.get("data_sha256"),
    }


def _by_example(ledger: Ledger, examples: Examples, settings: EvaluationSettings) -> dict[str, Any]:
    """Return the verdicts by class and by example, which an audit does not have."""
    if ledger.audit is not None:
        return {"correct": None}
    classes = by_class(ledger.standing, examples.labels, settings.data.classes)
    return {**classes, "correct": encode_correct(ledger.standing.numpy())}


def _circumstances(ledger: Ledger, device: torch.device) -> dict[str, Any]:
    """Return the fields that tell where and with which software the evaluation ran."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        **({"compiled": True} if ledger.compiled else {}),
        **({"compile_seconds": ledger.compile_seconds} if ledger.compile_seconds else {}),
        "precision": "fp32",
        "version": VERSION,
        "torch": torch.__version__,
    }


def by_class(correct: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return the field `by_class`: correct examples and examples of each class; `correct` and `labels` are (N,)."""
    counts = (labels[which].bincount(minlength=len(classes)).tolist() for which in (correct, labels >= 0))
    return {"by_class": {name: [right, n] for name, right, n in zip(classes, *counts, strict=True) if n}}


def of_targets(
    attack: Attack, labels: Tensor, predictions: Tensor, targets: Tensor, classes: Sequence[str]
) -> dict[str, Any]:
    """Return the success of a targeted attack on images of other classes, and the accuracy on all; tensors are (N,)."""
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
    """Return the field of the other radii whose verdicts are reused, if there are any."""
    return {"carried_from": list(radii)} if radii else {}


def _assumed(ledger: Ledger, eps: float, radii: Sequence[float]) -> list[str]:
    """Return the doubt that a verdict from larger radii is an assumption, if some standing example has one."""
    never = int((ledger.standing & (ledger.forward == 0)).sum())
    if not never or max(radii, default=eps) <= eps:
        return []
    return [f"{never} images were not attacked because they stood at larger radii: leave out --largest-first"]


def standing_after(broken_by: Tensor, stages: Sequence[Stage], n: int) -> dict[str, float]:
    """Return the accuracy on n examples after each stage, by name."""
    stands = [(broken_by == STANDING) | (broken_by > k) for k in range(len(stages))]
    return {stage.name: int(each.sum()) / n for stage, each in zip(stages, stands, strict=True)}


def _late_doubts_of(audit: Audit, ledger: Ledger, attack: Attack) -> list[str]:
    """Return the doubts that the sample of an audit raises, relative to the examples that it stands for."""
    n = max(1, round(audit.n * audit.audited / max(1, audit.survivors)))
    return late_doubts(standing_after(ledger.broken_by[ledger.sample], attack.stages, n), n)


def audit_fields(ledger: Ledger) -> dict[str, Any]:
    """Return the field `audit`, with the exact 95 % interval of AutoAttack's accuracy on these examples."""
    if ledger.audit is None:
        return {}
    found, (low, high) = asdict(ledger.audit), ledger.audit.interval()
    del found["n"]
    return {"audit": {**found, "low": low, "high": high}}


def class_order(subject: Subject) -> dict[str, Any]:
    """Return the field with the output of each class, if the network orders the classes differently from the data."""
    return {name: subject.header[name] for name in ("class_order",) if name in subject.header}


def other_data(subject: Subject, settings: EvaluationSettings) -> list[str]:
    """Return the doubt that the network may have been trained on these images: it knows other data of this name."""
    begun, name = subject.header.get("init") or {}, settings.data.name
    if begun.get("dataset") == name and begun.get("data_sha256") not in (None, settings.data.sha256):
        return [f"its initial weights were trained on other {name} data, which may include the images evaluated here"]
    trained = subject.header.get("data_sha256")
    if trained in (None, settings.data.sha256) or subject.header.get("dataset") != name:
        return []
    rest = "" if settings.split == "test" else f", and its {settings.split} images may be among the training images"
    return [f"this {name} is not the file that it was trained on{rest}: pass that file with --data"]


def repeats(ledger: Ledger, attack: Attack) -> dict[str, Any]:
    """Return the field `repeats`: on how many standing examples PGD stopped early because iterates repeat, and when.

    Of several radii, these are the examples attacked at this one.
    """
    stage = attack.stages[-1]
    if stage.run is not pgd or not stage.parameters.get("early_stop", True) or stage.parameters["steps"] == 1:
        return {}
    whole, standing = stage.parameters["restarts"] * stage.parameters["steps"], ledger.standing & (ledger.backward > 0)
    early = ledger.forward[standing][ledger.backward[standing] < whole].double()
    median = {"passes_median": float(early.quantile(0.5))} if len(early) else {}
    return {"repeats": {"stopped": len(early), "standing": int(standing.sum()), **median}}


def rays_summary(ledger: Ledger, attack: Attack, examples: Examples) -> dict[str, Any]:
    """Return the results of RayS besides the accuracy: distances to the decision boundary, and queries.

    `adbd` is the average decision boundary distance over all examples: 0 for those misclassified without a
    perturbation, and the distance to the white image for those never fooled, as in the publication. `adbd_correct` is
    the average over the examples that are classified correctly without a perturbation. With `stop_at_eps` the search
    ends before it finds the boundary, so there are no distances.
    """
    if attack.stages[-1].name != "rays":
        return {}
    right = ledger.broken_by != 0  # 0 is the natural stage
    asked = ledger.forward[right].double() - 1
    never = (ledger.distance == NOWHERE).nonzero().squeeze(1)
    queries = {
        "never_fooled": len(never),
        "queries_mean": float(asked.mean()) if len(asked) else 0.0,
        "queries_median": float(asked.quantile(0.5)) if len(asked) else 0.0,
    }
    if attack.stages[-1].parameters["stop_at_eps"]:
        return queries
    distance = ledger.distance.double()
    for rows in never.split(WHITE_ROWS):
        distance[rows] = length(1 - to_unit(examples.take(rows)), "linf").double()
    return {
        "adbd": float(distance.mean()),
        "adbd_correct": float(distance[right].mean()) if bool(right.any()) else None,
        **queries,
    }
