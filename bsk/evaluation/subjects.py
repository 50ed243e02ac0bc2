"""What is evaluated: a model out of a checkpoint, with what its header says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bsk.data.store import DataFile, Split
from bsk.errors import InputError
from bsk.files import checkpoints, records
from bsk.models import registry
from bsk.models.normalised import Normalised
from bsk.training import state as states
from bsk.training.outputs import KIND


@dataclass(frozen=True)
class Subject:
    """A model in eval mode on its device, its file and its header."""

    model: Normalised
    path: Path
    sha256: str
    header: dict[str, Any]


def load_subject(path: Path, device: torch.device) -> Subject:
    """Return the model of F.safetensors or of F.last.safetensors; the file says all that is needed.

    Raises:
        InputError: the file is missing, corrupt, or its tensors do not fit its header.
    """
    tensors, header = checkpoints.load(path, (KIND, states.KIND))
    try:
        channels, size = header["shape"][:2]
        model = registry.build(
            header["model"],
            classes=len(header["classes"]),
            channels=channels,
            size=size,
            mean=header["mean"],
            std=header["std"],
            device=device,
        )
        model.load_state_dict(states.model_tensors(tensors) if header["kind"] == states.KIND else tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:80]
        raise InputError(f"{path}: header and tensors do not fit ({reason}); train it again") from error
    return Subject(model.eval(), path, records.sha256(path), header)


def check_fit(subject: Subject, data: DataFile, split: Split) -> None:
    """Raise if the model was trained for other classes or images than the data has.

    Raises:
        InputError: they do not fit.
    """
    header, shape = subject.header, tuple(split.images.shape[1:])
    if len(header["classes"]) != len(data.classes):
        raise InputError(
            f"{subject.path}: trained for {len(header['classes'])} classes, {data.path.name} has "
            f"{len(data.classes)}; pass --data"
        )
    if list(header["classes"]) != list(data.classes) or tuple(header["shape"]) != shape:
        raise InputError(
            f"{subject.path}: trained on {header['dataset']} images {tuple(header['shape'])}, {data.path.name} has "
            f"{data.name} images {shape}; pass --data"
        )
