"""The headers of checkpoints and data files, each kind a struct; who needs a field that is missing says so."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from bsk.records.fields import Accuracy, Amount, Count, Flag, Fraction, Names, Numbers, Positive, Shape, Text, Whole

MODEL, STATE, DATA = "model", "training-state", "data"  # a selected model, all that a resume needs, a prepared data set

Object = Annotated[dict[str, Any], Meta(description="an object")]
FileName = Annotated[  # files are named after it
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}$(?!\n)",
        description="letters, digits and ._+- that make a file's name",
    ),
]
Classes = Annotated[list[str], Meta(min_length=1, max_length=1 << 15, description="a list of 1 to 32768 names")]
Radius = Annotated[float, Meta(gt=0, le=1, description="a number above 0, at most 1")]
# Normalised images further from 0 are no numbers to train on.
Means = Annotated[
    list[Annotated[float, Meta(ge=-1e4, le=1e4)]], Meta(min_length=1, description="numbers from -10000 to 10000")
]
Deviations = Annotated[
    list[Annotated[float, Meta(ge=1e-4, le=1e4)]], Meta(min_length=1, description="numbers from 0.0001 to 10000")
]
Augmentation = Annotated[Literal["crop-flip", "flip", "none"], Meta(description="crop-flip, flip or none")]
ModelOfData = Annotated[  # a file is not to have a network of any size made: these are what data sets have by custom
    Literal["cnn", "resnet18", "resnet18-16", "resnet50", "wrn-34-10"],
    Meta(description="cnn, resnet18, resnet18-16, resnet50 or wrn-34-10"),
]


class Flags(Struct, kw_only=True):
    """The flags of a training: plain values; a method brings its own beside those that all have."""

    gamma: Amount | UnsetType = UNSET


class Scored(Struct, kw_only=True):
    """An epoch, and its accuracies."""

    epoch: Count | UnsetType = UNSET
    val_natural: Accuracy | UnsetType = UNSET
    val_robust: Accuracy | UnsetType = UNSET
    test_natural: Accuracy | UnsetType = UNSET
    test_robust: Accuracy | UnsetType = UNSET


class ModelHeader(Scored, kw_only=True, tag_field="kind", tag=MODEL):
    """A selected model: what it is built of, how it was trained and what that cost."""

    model: Text | UnsetType = UNSET
    dataset: Text | UnsetType = UNSET
    classes: Names | UnsetType = UNSET
    shape: Shape | UnsetType = UNSET
    mean: Numbers | UnsetType = UNSET
    std: Positive | UnsetType = UNSET
    eps: Fraction | UnsetType = UNSET
    seed: Whole | UnsetType = UNSET
    method: Text | UnsetType = UNSET
    selected: Text | UnsetType = UNSET
    complete: Flag | UnsetType = UNSET
    flags: Flags | UnsetType = UNSET
    device: Text | UnsetType = UNSET
    train_seconds: Amount | UnsetType = UNSET
    train_forward_passes: Count | UnsetType = UNSET
    train_backward_passes: Count | UnsetType = UNSET


class PassesSoFar(Struct, kw_only=True):
    """Images that went through the network."""

    forward: Count | UnsetType = UNSET
    backward: Count | UnsetType = UNSET


class RescueSoFar(Struct, kw_only=True):
    """Where the Fast AT+ switch stands, in files from before methods kept numbers."""

    accuracy: Accuracy | UnsetType = UNSET
    active: Flag | UnsetType = UNSET


class MemorySoFar(Struct, kw_only=True):
    """Numbers that a method keeps from update to update, and those that it has logged."""

    numbers: dict[str, float]
    logged: dict[str, float]


class CollapsesSoFar(Struct, kw_only=True):
    """What the monitor has seen."""

    now: Flag | UnsetType = UNSET
    count: Count | UnsetType = UNSET
    rescued_until: Count | UnsetType = UNSET
    best: Accuracy | UnsetType = UNSET


class Seen(Struct, kw_only=True):
    """The epoch's last look of the monitor."""

    step: Count | UnsetType = UNSET


class Progress(Struct, kw_only=True):
    """How far a training is: updates, seconds and passes, the epochs to select from, what watches over it."""

    step: Count | UnsetType = UNSET
    seconds: Amount | UnsetType = UNSET
    validation_seconds: Amount | UnsetType = UNSET
    epoch_seconds: Amount | UnsetType = UNSET
    passes: PassesSoFar | UnsetType = UNSET
    epoch_passes: PassesSoFar | UnsetType = UNSET
    best: Scored | UnsetType = UNSET
    last: Scored | UnsetType = UNSET
    best_average: Scored | UnsetType = UNSET
    last_average: Scored | UnsetType = UNSET
    rescue: RescueSoFar | UnsetType = UNSET
    rescued_updates: Count | UnsetType = UNSET
    memory: MemorySoFar | UnsetType = UNSET
    collapses: CollapsesSoFar | UnsetType = UNSET
    seen: Seen | UnsetType = UNSET
    scaler: Object | UnsetType = UNSET
    averaged: Count | UnsetType = UNSET


class StateHeader(ModelHeader, kw_only=True, tag=STATE):
    """A training under way, at its last epoch, with all that a resume needs beside the tensors."""

    progress: Progress | UnsetType = UNSET


class DataHeader(Struct, kw_only=True, tag_field="kind", tag=DATA):
    """What a data file says of itself; `eps` in pixel units of [0, 1], `mean` and `std` one a channel."""

    name: FileName | UnsetType = UNSET
    classes: Classes | UnsetType = UNSET
    eps: Radius | UnsetType = UNSET
    mean: Means | UnsetType = UNSET
    std: Deviations | UnsetType = UNSET
    augment: Augmentation | UnsetType = UNSET
    model: ModelOfData | UnsetType = UNSET
    source: Object | UnsetType = UNSET
    val_rule: Text | UnsetType = UNSET
    limits: Object | UnsetType = UNSET
    counts: Object | UnsetType = UNSET
    version: Text | UnsetType = UNSET


HEADERS: dict[str, type[Struct]] = {MODEL: ModelHeader, STATE: StateHeader, DATA: DataHeader}
