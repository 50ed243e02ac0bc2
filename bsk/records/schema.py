"""The record kinds of bsk as structs, from which decoding, validation and `bsk schema` follow.

Records of other versions may lack fields or have unknown ones; unknown fields are ignored, and only indispensable
fields are required. Accuracies are fractions, times are in seconds, passes count images through the network.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import astuple

from bsk.records import fields as f
from bsk.records.words import printable


class Record(Struct, kw_only=True, tag_field="kind"):
    """The base of all records; its texts are made printable."""

    schema: f.Whole = 1

    def __post_init__(self) -> None:
        """Escape control characters, which terminals would interpret."""
        for place, value in enumerate(astuple(self)):
            if type(value) is str and not value.isprintable():
                setattr(self, self.__struct_fields__[place], printable(value))


class Network(Record, kw_only=True):
    """A network and its training; `method` is "foreign" or null if bsk did not train it.

    `code` and `method_code` are the SHA-256 of the Python code of a network and a method from outside bsk. `processes`
    is their number if several trained it.
    """

    checkpoint_sha256: f.Text | None = None
    method: f.Text | None = None
    model: f.Text | None = None
    dataset: f.Text | None = None
    data_sha256: f.Text | None = None
    seed: f.Whole | None = None
    flags: f.Plain | None = None
    selected: f.Text | None = None
    epoch: f.Count | None = None
    train_seconds: f.Amount | None = None
    train_forward_passes: f.Count | None = None
    train_backward_passes: f.Count | None = None
    device: f.Text | None = None
    threads: f.Count | None = None
    version: f.Text | None = None
    torch: f.Text | None = None
    code: f.Text | UnsetType = UNSET
    method_code: f.Text | UnsetType = UNSET
    processes: f.Count | UnsetType = UNSET


class AuditFields(Struct, kw_only=True):
    """An audit: of the `survivors` of AutoAttack's first half, `audited` met the second half and `fallen` fell.

    `looks` counts how often the sample was enlarged, 0 if its size was fixed beforehand. `low` and `high` are the exact
    95 % interval of AutoAttack's accuracy on these images.
    """

    survivors: f.Count
    audited: f.Count
    fallen: f.Count
    looks: f.Looks
    low: f.Fraction
    high: f.Fraction


class EvaluationRecord(Network, kw_only=True, tag="evaluation"):
    """One network under one attack.

    `mean` and `std` are how a network that bsk did not train is normalised, `normalisation` is where they come from.
    `low` and `high` are the 95 % Wilson interval of `accuracy`; `after` has the accuracy after each stage. `correct`
    has one bit per example, the first in the highest bit, as base64. `by_class` has for each class the number
    classified right and the number of images. `repeats` tells for how many of the standing images PGD stopped
    early, because its iterates repeated. `adbd` is the mean distance to the decision boundary, measured by RayS.
    `corruption` and `severity` are those of the images. `carried` images were not attacked, because the radii
    `carried_from` of the same run decide them: those that fell at a smaller radius, or, if these are larger ones, those
    that stood, which are assumed to stand here, and those whose adversarial image lies in this ball too. With `audit`,
    `accuracy` is an estimate, and `low` and `high` cover the sampling error too.
    """

    checkpoint: f.Text
    key: f.Text | None = None
    complete: f.Flag | None = None
    normalisation: f.Text | None = None
    class_order: list[f.Count] | UnsetType = UNSET
    mean: f.Numbers | UnsetType = UNSET
    std: f.Numbers | UnsetType = UNSET
    train_eps: f.Amount | None = None
    train_device: f.Text | None = None
    train_data_sha256: f.Text | None = None
    init_sha256: f.Text | UnsetType = UNSET
    extra_sha256: f.Text | UnsetType = UNSET
    eps: f.Amount | None = None
    attack: f.Text
    attack_parameters: f.Plain | None = None
    batch_size: f.Count | UnsetType = UNSET
    split: f.Text
    corruption: f.Text | UnsetType = UNSET
    severity: f.Count | UnsetType = UNSET
    n: f.Images
    accuracy: f.Fraction
    low: f.Fraction | None = None
    high: f.Fraction | None = None
    after: dict[str, f.Fraction] | None = None
    carried_from: list[f.Amount] | UnsetType = UNSET
    carried: f.Count | UnsetType = UNSET
    audit: AuditFields | UnsetType = UNSET
    adbd: f.Fraction | UnsetType = UNSET
    adbd_correct: f.Fraction | None = None
    never_fooled: f.Count | None = None
    repeats: f.Plain | UnsetType = UNSET
    queries_mean: f.Amount | None = None
    queries_median: f.Amount | None = None
    checks: dict[str, Any] | None = None
    doubts: f.Texts | None = None
    seconds: f.Amount | None = None
    compiled: f.Flag | None = None
    compile_seconds: f.Amount | None = None
    forward_passes: f.Count | None = None
    backward_passes: f.Count | None = None
    by_class: dict[str, f.Part] | UnsetType = UNSET
    correct: f.Bits | None = None
    precision: f.Text | None = None


class OwnEvaluation(EvaluationRecord, kw_only=True, tag="evaluation"):
    """An evaluation as this version writes it, with all fields that are shown to people."""

    eps: f.Amount
    low: f.Fraction
    high: f.Fraction
    doubts: f.Texts
    seconds: f.Amount


class AttackRecord(EvaluationRecord, kw_only=True, tag="attack"):
    """The output of `bsk attack` and the header of its file: an evaluation, and the file of the images.

    For a targeted attack `targeted_success` is the fraction of the `targeted_n` images of other classes that are
    classified as `target`, with its 95 % interval; the accuracy is that of all images. If the images were written in 8
    bits, `rounded` has their accuracy and targeted success, the largest `distance` from a clean image, and the number
    of images with values rounded `inward`, because the nearest levels would have been outside the ball.
    """

    out: f.Text | None = None
    target: f.Count | f.Text | UnsetType = UNSET
    targeted_n: f.Count | UnsetType = UNSET
    targeted_success: f.Fraction | None | UnsetType = UNSET
    targeted_low: f.Fraction | UnsetType = UNSET
    targeted_high: f.Fraction | UnsetType = UNSET
    rounded: f.Plain | UnsetType = UNSET


class LandingRecord(Network, kw_only=True, tag="landing"):
    """Where one start lands for one image: the outputs before and after it, and the target of a backward start."""

    checkpoint: f.Text
    train_eps: f.Amount | None = None
    eps: f.Amount | None = None
    start_parameters: f.Plain | None = None
    split: f.Text | None = None
    n: f.Count | None = None
    start: f.Text
    index: f.Count
    label: f.Count | None = None
    kl: f.Amount
    logits: f.Vector
    landed: f.Vector
    target: f.Vector | None = None


class CopiesFields(Struct, kw_only=True):
    """How many images are copies of others, and how many of these have a different label."""

    images: f.Count
    relabelled: f.Count


class DataRecord(Record, kw_only=True, tag="data"):
    """The output of `bsk prepare-data`: the file, the number of images in each split, and the number of `classes`.

    `duplicates` counts the copies in the source within train, val and test, and under "train val" and "train test" the
    images of val and test that are in train too. `dropped` counts the images that `--drop-leaks` left out of train and
    val.
    """

    name: f.Text
    path: f.Text
    sha256: f.Text
    train: f.Count
    val: f.Count
    test: f.Count
    classes: f.Count
    class_names: f.Names | None = None
    eps: f.Fraction
    official: f.Flag | None = None
    corruption: f.Text | UnsetType = UNSET
    severity: f.Count | UnsetType = UNSET
    duplicates: dict[str, CopiesFields] | UnsetType = UNSET
    dropped: f.Count | UnsetType = UNSET
    seconds: f.Amount | None = None


class ExportRecord(Record, kw_only=True, tag="export"):
    """The output of `bsk export`: a file for another tool, and the checks made before it was written.

    For a network, `difference` is the largest difference between its logits and bsk's on `n` images, divided by the
    largest logit if that is above 1, and `normalised` says whether the file normalises its input. For a leaderboard,
    `unknown` names the fields that are null.
    """

    to: f.Text
    source: f.Text
    out: f.Text
    checkpoint_sha256: f.Text | None = None
    sha256: f.Text | None = None
    model: f.Text | None = None
    classes: f.Names | None = None
    shape: f.Shape | None = None
    mean: f.Numbers | None = None
    std: f.Positive | None = None
    normalised: f.Flag | None = None
    n: f.Count | None = None
    difference: f.Amount | None = None
    runs: f.Texts | None = None
    scalars: f.Count | None = None
    evaluations: f.Count | None = None
    unknown: f.Texts | None = None


class Training(Network, kw_only=True):
    """The description of a training."""

    checkpoint: f.Text | None = None
    eps: f.Amount | None = None
    data_path: f.Text | None = None
    val_n: f.Count | None = None
    init: dict[str, Any] | UnsetType = UNSET
    extra: dict[str, Any] | UnsetType = UNSET
    compiled: f.Flag | None = None
    train_compile_seconds: f.Amount | None = None
    classes: f.Names | None = None
    shape: f.Shape | None = None
    mean: f.Numbers | None = None
    std: f.Positive | None = None


class StartRecord(Training, kw_only=True, tag="start"):
    """The first record of a training's log."""

    checkpoint: f.Text


class EpochRecord(Record, kw_only=True, tag="epoch"):
    """An epoch in a training's log.

    `ema_` is for the averaged weights, `monitor_` the epoch's last measurement; `rescued_updates` counts from the start
    of the training on.
    """

    epoch: f.Count
    lr: f.Number | None = None
    loss: f.Number | None = None
    natural_loss: f.Number | None = None
    robust_loss: f.Number | None = None
    val_natural: f.Accuracy | None = None
    val_robust: f.Accuracy | None = None
    test_natural: f.Accuracy | None = None
    test_robust: f.Accuracy | None = None
    ema_val_natural: f.Accuracy | None = None
    ema_val_robust: f.Accuracy | None = None
    seconds: f.Amount | None = None
    validation_seconds: f.Amount | None = None
    images_per_second: f.Amount | None = None
    forward_passes: f.Count | None = None
    backward_passes: f.Count | None = None
    rescued_updates: f.Count | None = None
    kl_start: f.Number | None = None
    kl_ascent: f.Number | None = None
    fosc: f.Number | None = None
    kl_n: f.Count | None = None


class AlarmRecord(Record, kw_only=True, tag="alarm"):
    """An alarm for catastrophic overfitting, after `step` updates, with the accuracies under FGSM and PGD-10."""

    epoch: f.Count
    step: f.Count
    fgsm: f.Fraction | None = None
    pgd: f.Fraction | None = None
    best: f.Fraction | None = None
    cosine: f.Number | None = None
    n: f.Count | None = None
    classes: f.Count | None = None
    on_collapse: f.Text | None = None
    back: f.Flag | None = None


class EndRecord(Training, kw_only=True, tag="end"):
    """The last record of a log: the selected epoch and the cost of training; on stdout also the fields of the start."""

    val_natural: f.Fraction | None = None
    val_robust: f.Fraction | None = None
    last_epoch: f.Count | None = None
    last_val_natural: f.Accuracy | None = None
    last_val_robust: f.Accuracy | None = None
    seconds: f.Amount | None = None
    validation_seconds: f.Amount | None = None


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
    "export": ExportRecord,
}
