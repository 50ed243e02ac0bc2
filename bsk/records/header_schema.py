"""The headers of checkpoints and data files, one struct per kind; all fields are optional here."""

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

MODEL, STATE, DATA = "model", "training-state", "data"  # a selected model, a resumable training, a prepared data set
_Object = Annotated[dict[str, Any], Meta(description="an object")]
_Figures = Annotated[dict[str, float], Meta(description="an object of numbers")]
_FileName = Annotated[  # a part of file names
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}$(?!\n)",
        description="letters, digits and ._+- (a part of file names)",
    ),
]
CLASSES = 1 << 15  # classes of a data file, at most
_Classes = Annotated[list[str], Meta(min_length=1, max_length=CLASSES, description=f"a list of 1 to {CLASSES} names")]
_Radius = Annotated[float, Meta(gt=0, le=1, description="a number above 0, at most 1")]
_Mean = Annotated[float, Meta(ge=-1e4, le=1e4)]  # beyond these limits normalised images are useless for training
_Deviation = Annotated[float, Meta(ge=1e-4, le=1e4)]
_Means = Annotated[list[_Mean], Meta(min_length=1, description="numbers from -10000 to 10000")]
_Deviations = Annotated[list[_Deviation], Meta(min_length=1, description="numbers from 0.0001 to 10000")]
_Augmentation = Annotated[Literal["crop-flip", "flip", "none"], Meta(description="crop-flip, flip or none")]
# Only these names: a crafted file must not make bsk build a network of arbitrary size.
_Model = Annotated[ModelName, Meta(description=", ".join(MODELS))]


def _struct(name: str, doc: str, *rows: tuple[Any, str], tag: str = "") -> type[Struct]:
    """Return a struct with optional fields, from rows of a type and the names of the fields that have it."""
    fields = [(each, rule | UnsetType, UNSET) for rule, names in rows for each in names.split()]
    field = "kind" if tag else None
    return defstruct(name, fields, kw_only=True, namespace={"__doc__": doc}, tag_field=field, tag=tag or None)


_SCORED = ((Count, "epoch"), (Accuracy, "val_natural val_robust test_natural test_robust"))
_Scored = _struct("Scored", "An epoch and its accuracies.", *_SCORED)
_Passes = _struct("Passes", "Images that went through the network.", (Count, "forward backward"))
_Rescue = _struct("Rescue", "State of Fast AT+, in older files.", (Accuracy, "accuracy"), (Flag, "active"))
_Memory = _struct("Memory", "Numbers that a method stores, and those that it has logged.", (_Figures, "numbers logged"))
_Collapses = _struct(
    "Collapses",
    "Collapses that the monitor has detected so far.",
    (Flag, "now"),
    (Count, "count rescued_until"),
    (Accuracy, "best"),
)
_Progress = _struct(
    "Progress",
    "Progress of a training: updates, times and passes, the candidate epochs, and the state of its monitor.",
    (Count, "step rescued_updates averaged"),
    (Amount, "seconds validation_seconds epoch_seconds compile_seconds"),
    (_Passes, "passes epoch_passes"),
    (_Scored, "best last best_average last_average"),
    (_Rescue, "rescue"),
    (_Memory, "memory"),
    (_Collapses, "collapses"),
    (_struct("Seen", "The monitor's last measurement in this epoch.", (Count, "step")), "seen"),
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
    (Count, "train_forward_passes train_backward_passes processes"),
    *_SCORED,
)
HEADERS = {
    MODEL: _struct(
        "ModelHeader",
        "A selected model: its architecture, its training and the cost of training.",
        *_TRAINED,
        tag=MODEL,
    ),
    STATE: _struct(
        "StateHeader",
        "An unfinished training after its last epoch, with everything besides the tensors that resuming needs.",
        *_TRAINED,
        (_Progress, "progress"),
        tag=STATE,
    ),
    DATA: _struct(
        "DataHeader",
        "A data file; `eps` is in pixel units of [0, 1], `mean` and `std` have one value per channel.",
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
