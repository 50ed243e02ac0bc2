"""The records of bsk, each kind a struct: decoding, checks and `bsk schema` follow from it.

A record of another build may lack fields or have others: these are ignored, and only what nobody can do without is
needed. Accuracies are fractions, times seconds, passes images that went through the network.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from bsk.records.fields import (
    Accuracy,
    Amount,
    Bits,
    Count,
    Flag,
    Fraction,
    Images,
    Names,
    Number,
    Numbers,
    Plain,
    Positive,
    Shape,
    Text,
    Texts,
    Vector,
    Whole,
)
from bsk.records.words import printable


class Record(Struct, kw_only=True, tag_field="kind"):
    """What all records share; texts are printable in it, whatever the file says."""

    schema: Whole = 1

    def __post_init__(self) -> None:
        """Escape control characters, which could move a terminal's cursor."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if type(value) is str and not value.isprintable():
                setattr(self, name, printable(value))


class Network(Record, kw_only=True):
    """A network and how it was trained; `method` is "foreign" or null for one that bsk did not train."""

    checkpoint_sha256: Text | None = None
    method: Text | None = None
    model: Text | None = None
    dataset: Text | None = None
    data_sha256: Text | None = None
    seed: Whole | None = None
    flags: Plain | None = None
    selected: Text | None = None
    epoch: Count | None = None
    train_seconds: Amount | None = None
    train_forward_passes: Count | None = None
    train_backward_passes: Count | None = None
    device: Text | None = None
    threads: Count | None = None
    version: Text | None = None
    torch: Text | None = None


class EvaluationRecord(Network, kw_only=True, tag="evaluation"):
    """One network under one attack.

    `low` and `high` are the 95 % Wilson interval of `accuracy`, `after` the accuracy after each stage, `correct` a bit
    an example, the first in the highest; `adbd` is the mean distance to the decision boundary, which RayS tells.
    """

    checkpoint: Text
    key: Text | None = None
    complete: Flag | None = None
    normalisation: Text | None = None
    train_eps: Amount | None = None
    train_device: Text | None = None
    eps: Amount | None = None
    attack: Text
    attack_parameters: Plain | None = None
    split: Text
    n: Images
    accuracy: Fraction
    low: Fraction | None = None
    high: Fraction | None = None
    after: dict[str, Fraction] | None = None
    adbd: Fraction | UnsetType = UNSET
    adbd_correct: Fraction | None = None
    never_fooled: Count | None = None
    queries_mean: Amount | None = None
    queries_median: Amount | None = None
    checks: dict[str, Any] | None = None
    doubts: Texts | None = None
    seconds: Amount | None = None
    forward_passes: Count | None = None
    backward_passes: Count | None = None
    correct: Bits | None = None
    precision: Text | None = None


class OwnEvaluation(EvaluationRecord, kw_only=True, tag="evaluation"):
    """An evaluation as this bsk writes it, with all that it tells a person."""

    eps: Amount
    low: Fraction
    high: Fraction
    doubts: Texts
    seconds: Amount


class AttackRecord(EvaluationRecord, kw_only=True, tag="attack"):
    """What `bsk attack` prints, and the header of its file: an evaluation, and the file of the images."""

    out: Text | None = None


class LandingRecord(Network, kw_only=True, tag="landing"):
    """Where one start of one image lands: outputs before and after, and the target of a backward start."""

    checkpoint: Text
    train_eps: Amount | None = None
    eps: Amount | None = None
    start_parameters: Plain | None = None
    split: Text | None = None
    n: Count | None = None
    start: Text
    index: Count
    label: Count | None = None
    kl: Amount
    logits: Vector
    landed: Vector
    target: Vector | None = None


class DataRecord(Record, kw_only=True, tag="data"):
    """What `bsk prepare-data` prints: the file, and how many images its splits have; `classes` counts."""

    name: Text
    path: Text
    sha256: Text
    train: Count
    val: Count
    test: Count
    classes: Count
    eps: Fraction
    official: Flag | None = None
    seconds: Amount | None = None


class Training(Network, kw_only=True):
    """All that describes a training."""

    checkpoint: Text | None = None
    eps: Amount | None = None
    val_n: Count | None = None
    classes: Names | None = None
    shape: Shape | None = None
    mean: Numbers | None = None
    std: Positive | None = None


class StartRecord(Training, kw_only=True, tag="start"):
    """The first record of a training's log."""

    checkpoint: Text


class EpochRecord(Record, kw_only=True, tag="epoch"):
    """An epoch of a training's log; `ema_` is of the moving average, `monitor_` of the last look within the epoch."""

    epoch: Count
    lr: Number | None = None
    loss: Number | None = None
    natural_loss: Number | None = None
    robust_loss: Number | None = None
    val_natural: Accuracy | None = None
    val_robust: Accuracy | None = None
    test_natural: Accuracy | None = None
    test_robust: Accuracy | None = None
    ema_val_natural: Accuracy | None = None
    ema_val_robust: Accuracy | None = None
    seconds: Amount | None = None
    validation_seconds: Amount | None = None
    images_per_second: Amount | None = None
    forward_passes: Count | None = None
    backward_passes: Count | None = None
    rescued_updates: Count | None = None
    kl_start: Number | None = None
    kl_ascent: Number | None = None
    kl_n: Count | None = None


class AlarmRecord(Record, kw_only=True, tag="alarm"):
    """A training that overfitted to its own attack, after so many updates: accuracies under FGSM and PGD-10."""

    epoch: Count
    step: Count
    fgsm: Fraction | None = None
    pgd: Fraction | None = None
    n: Count | None = None
    on_collapse: Text | None = None
    back: Flag | None = None


class EndRecord(Training, kw_only=True, tag="end"):
    """The last record of a log: the selected epoch and what the training cost; printed, it has the start's fields."""

    val_natural: Fraction | None = None
    val_robust: Fraction | None = None
    last_epoch: Count | None = None
    last_val_natural: Accuracy | None = None
    last_val_robust: Accuracy | None = None
    seconds: Amount | None = None
    validation_seconds: Amount | None = None


LOG_KINDS: dict[str, type[Record]] = {
    "start": StartRecord,
    "epoch": EpochRecord,
    "alarm": AlarmRecord,
    "end": EndRecord,
}
KINDS: dict[str, type[Record]] = {
    **LOG_KINDS,
    "evaluation": EvaluationRecord,
    "attack": AttackRecord,
    "landing": LandingRecord,
    "data": DataRecord,
}
