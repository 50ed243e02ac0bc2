"""From a checkpoint, data and attacks to records, one as soon as it is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bsk.attacks.registry import Attack
from bsk.data.store import DataFile
from bsk.evaluation.reports import evaluation_record
from bsk.evaluation.subjects import Subject, check_fit
from bsk.evaluation.verdicts import Verdicts, judge


@dataclass(frozen=True)
class Bench:
    """The circumstances of an evaluation: which examples, within which radius, by which draws, where."""

    data: DataFile
    split: str
    limit: int | None
    eps: float
    seed: int
    batch_size: int
    device: torch.device


def evaluate(
    subject: Subject, attacks: Sequence[Attack], bench: Bench, watch: Callable[[Attack, int, int, int], None]
) -> Iterator[dict[str, Any]]:
    """Yield the record of each attack; `watch` hears the attack, examples done, standing, and all.

    Raises:
        InputError: the model does not fit the data.
    """
    for attack in attacks:
        yield attacked(subject, attack, bench, watch)[0]


def attacked(
    subject: Subject,
    attack: Attack,
    bench: Bench,
    watch: Callable[[Attack, int, int, int], None],
    keep_images: bool = False,
) -> tuple[dict[str, Any], Verdicts]:
    """Return the record of one attack and its verdicts; see `evaluate`."""
    split = bench.data.split(bench.split, bench.limit)
    check_fit(subject, bench.data, split)
    verdicts = judge(
        subject.model,
        split,
        attack,
        eps=bench.eps,
        seed=bench.seed,
        batch_size=bench.batch_size,
        device=bench.device,
        keep_images=keep_images,
        watch=lambda done, standing: watch(attack, done, standing, len(split.labels)),
    )
    record = evaluation_record(subject, attack, verdicts, bench.data, eps=bench.eps, seed=bench.seed, split=bench.split)
    return record, verdicts
