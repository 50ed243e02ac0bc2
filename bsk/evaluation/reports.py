"""The record of an evaluation, as `evaluate` writes and `compare` reads it."""

from __future__ import annotations

from typing import Any

import torch

from bsk.attacks.registry import Attack
from bsk.data.store import DataFile
from bsk.evaluation.subjects import Subject
from bsk.evaluation.verdicts import Verdicts
from bsk.files.bits import encode_correct
from bsk.files.records import SCHEMA
from bsk.models.modes import device_name
from bsk.report.statistics import wilson
from bsk.version import VERSION

_FROM_HEADER = ("method", "model", "dataset", "seed", "selected", "epoch", "complete", "flags")
_COSTS = ("train_seconds", "train_forward_passes", "train_backward_passes")


def evaluation_record(
    subject: Subject, attack: Attack, verdicts: Verdicts, data: DataFile, *, eps: float, seed: int, split: str
) -> dict[str, Any]:
    """Return everything one needs to believe, repeat and compare one accuracy.

    `accuracy` is a fraction of n, `low` and `high` its 95 % Wilson interval, `correct` one bit an example in
    the data's fixed order; passes count images.
    """
    n, right = len(verdicts.correct), int(verdicts.correct.sum())
    low, high = wilson(right, n)
    header = subject.header
    return {
        "schema": SCHEMA,
        "kind": "evaluation",
        "checkpoint": str(subject.path),
        "checkpoint_sha256": subject.sha256,
        **{name: header.get(name) for name in _FROM_HEADER},
        "train_eps": header.get("eps"),
        **{name: header.get(name) for name in _COSTS},
        "data_sha256": data.sha256,
        "eps": eps,
        "attack": attack.name,
        "attack_parameters": {**attack.parameters, "seed": seed},
        "split": split,
        "n": n,
        "accuracy": right / n,
        "low": low,
        "high": high,
        "seconds": verdicts.seconds,
        "forward_passes": verdicts.passes.forward,
        "backward_passes": verdicts.passes.backward,
        "correct": encode_correct(verdicts.correct.numpy()),
        "device": device_name(next(subject.model.buffers()).device),
        "threads": torch.get_num_threads(),
        "precision": "fp32",
        "version": VERSION,
        "torch": torch.__version__,
    }
