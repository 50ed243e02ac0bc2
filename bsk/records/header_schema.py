"""The headers of checkpoints and data files, each kind a struct; who needs a field that is missing says so."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

from bsk.models.names import MODELS, ModelName
from bsk.records.fields import (
    Accuracy,
    Amount,
    Count,
    Flag,
    Fraction,
    Names,
    Numbers,
    Plain,
    Positive,
    Shape,
    Text,
    Whole,
)

MODEL, STATE, DATA = "model", "training-state", "data"  # a selected model, all that a resume needs, a prepared data set
_Object = Annotated[dict[str, Any], Meta(description="an object")]
_Figures = Annotated[dict[str, float], Meta(description="an object of numbers")]
_FileName = Annotated[  # files are named after it
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}$(?!\n)",
        description="letters, digits and ._+- that make a file's name",
    ),
]
_Classes = Annotated[list[str], Meta(min_length=1, max_length=1 << 15, description="a list of 1 to 32768 names")]
_Radius = Annotated[float, Meta(gt=0, le=1, description="a number above 0, at most 1")]
_Mean = Annotated[float, Meta(ge=-1e4, le=1e4)]  # normalised images further from 0 are no numbers to train on
_Deviation = Annotated[float, Meta(ge=1e-4, le=1e4)]
_Means = Annotated[list[_Mean], Meta(min_length=1, description="numbers from -10000 to 10000")]
_Deviations = Annotated[list[_Deviation], Meta(min_length=1, description="numbers from 0.0001 to 10000")]
_Augmentation = Annotated[Literal["crop-flip", "flip", "none"], Meta(description="crop-flip, flip or none")]
# Only these names: a crafted file must not make bsk build a network of arbitrary size.
_Model = Annotated[ModelName, Meta(description=", ".join(MODELS))]


def _struct(name: str, doc: str, *rows: tuple[Any, str], tag: str = "") -> type[Struct]:
    """Return a struct of fields that may all be missing: rows of what they can be, and their names."""
    fields = [(each, rule | UnsetType, UNSET) for rule, names in rows for each in names.split()]
    field = "kind" if tag else None
    return defstruct(name, fields, kw_only=True, namespace={"__doc__": doc}, tag_field=field, tag=tag or None)


_SCORED = ((Count, "epoch"), (Accuracy, "val_natural val_robust test_natural test_robust"))
_Scored = _struct("Scored", "An epoch and its accuracies.", *_SCORED)
_Passes = _struct("Passes", "Images that went through the network.", (Count, "forward backward"))
_Rescue = _struct("Rescue", "Of Fast AT+, in older files.", (Accuracy, "accuracy"), (Flag, "active"))
_Memory = _struct("Memory", "Numbers that a method keeps, and has logged.", (_Figures, "numbers logged"))
_Collapses = _struct(
    "Collapses",
    "What the monitor has seen so far.",
    (Flag, "now"),
    (Count, "count rescued_until"),
    (Accuracy, "best"),
)
_Progress = _struct(
    "Progress",
    "How far a training is, the epochs to select from, and what watches over it.",
    (Count, "step rescued_updates averaged"),
    (Amount, "seconds validation_seconds epoch_seconds compile_seconds"),
    (_Passes, "passes epoch_passes"),
    (_Scored, "best last best_average last_average"),
    (_Rescue, "rescue"),
    (_Memory, "memory"),
    (_Collapses, "collapses"),
    (_struct("Seen", "The epoch's last look of the monitor.", (Count, "step")), "seen"),
    (_Object, "scaler"),
)
_TRAINED = (
    (Text, "model dataset method selected device data_path"),
    (Names, "classes"),
    (Shape, "shape"),
    (Numbers, "mean"),
    (Positive, "std"),
    (Fraction, "eps"),
    (Whole, "seed"),
    (Flag, "complete compiled"),
    (Plain, "flags"),
    (_Object, "init extra"),
    (Amount, "train_seconds train_compile_seconds"),
    (Count, "train_forward_passes train_backward_passes"),
    *_SCORED,
)
HEADERS = {
    MODEL: _struct(
        "ModelHeader",
        "A selected model: what it is built of, how it was trained and what that cost.",
        *_TRAINED,
        tag=MODEL,
    ),
    STATE: _struct(
        "StateHeader",
        "A training under way, at its last epoch, with all that a resume needs beside the tensors.",
        *_TRAINED,
        (_Progress, "progress"),
        tag=STATE,
    ),
    DATA: _struct(
        "DataHeader",
        "What a data file says of itself; `eps` in pixel units of [0, 1], `mean` and `std` one a channel.",
        (_FileName, "name"),
        (_Classes, "classes"),
        (_Radius, "eps"),
        (_Means, "mean"),
        (_Deviations, "std"),
        (_Augmentation, "augment"),
        (_Model, "model"),
        (_Object, "source limits counts"),
        (Text, "val_rule version"),
        tag=DATA,
    ),
}
