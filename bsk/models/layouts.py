"""Which tensor of a file goes where in a network, and what others call the parts of bsk's networks."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from bsk.models.weights import stripped

_Rules = Mapping[str, str]

# bsk's names to those of TRADES, of the paper's code and of RobustBench; {0} is a stage from 1, {1} a block from 0
_WIDE: _Rules = {
    r"stem": "conv1",
    r"blocks\.\d+\.norm1": "block{0}.layer.{1}.bn1",
    r"blocks\.\d+\.conv1": "block{0}.layer.{1}.conv1",
    r"blocks\.\d+\.norm2": "block{0}.layer.{1}.bn2",
    r"blocks\.\d+\.conv2": "block{0}.layer.{1}.conv2",
    r"blocks\.\d+\.shortcut": "block{0}.layer.{1}.convShortcut",
    r"norm": "bn1",
    r"linear": "fc",
}
# to those of kuangliu/pytorch-cifar, which the paper's code and most CIFAR repositories took over
_RESNET18: _Rules = {
    r"stem\.0": "conv1",
    r"stem\.1": "bn1",
    r"blocks\.\d+\.branch\.0": "layer{0}.{1}.conv1",
    r"blocks\.\d+\.branch\.1": "layer{0}.{1}.bn1",
    r"blocks\.\d+\.branch\.3": "layer{0}.{1}.conv2",
    r"blocks\.\d+\.branch\.4": "layer{0}.{1}.bn2",
    r"blocks\.\d+\.shortcut\.0": "layer{0}.{1}.shortcut.0",
    r"blocks\.\d+\.shortcut\.1": "layer{0}.{1}.shortcut.1",
    r"linear": "linear",
}
DEAD = "sub_block1."  # a second first stage in the wide ResNets of TRADES, which no image ever meets
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Fit:
    """What of a file goes into a network.

    Attributes:
        tensors: by the network's names.
        dropped: the file's names of dead parts.
        problems: which of the file's names are missing, unexpected or of another shape; "" if none.
    """

    tensors: dict[str, Tensor]
    dropped: list[str]
    problems: str


def fitted(model: str, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], optional: Collection[str]) -> Fit:
    """Return how a file's tensors fit a network, under whichever layout most of its names are found in.

    Args:
        model: its name.
        own: its state dict.
        tensors: of the file, perhaps with parts that all names begin with.
        optional: names of its own that may be missing, beside the counters of batch norm, which old files lack.
    """
    tensors = _bare(tensors)
    original = original_names(model, own)
    names = max(
        dict(zip(own, _bare(own), strict=True)), original, key=lambda layout: len(tensors.keys() & layout.values())
    )
    dropped = [name for name in tensors if names is original and name.startswith(DEAD)]
    present = {key: tensors[name] for key, name in names.items() if name in tensors}
    needed = [key for key in own if key not in optional and not key.endswith("num_batches_tracked")]
    known = {*names.values(), *dropped}
    problems = {
        "missing": [names[key] for key in needed if key not in present],
        "unexpected": [name for name in tensors if name not in known],
        "of another shape": [
            f"{names[key]} {tuple(tensor.shape)}, expected {tuple(own[key].shape)}"
            for key, tensor in present.items()
            if tensor.shape != own[key].shape
        ],
    }
    return Fit(present, dropped, ", ".join(_said(what, found) for what, found in problems.items() if found))


def original_names(model: str, names: Collection[str]) -> dict[str, str]:
    """Return what each of the parameters and buffers of bsk's model is called elsewhere, or {}.

    A ResNet-50 has no entry: the same names and shapes stand for networks of other strides (1, 2, 2, 2 at
    kuangliu's, 2, 2, 2, 2 in the paper's code), and the wrong ones would load without a sound.

    Args:
        model: for example wrn-34-10 or resnet18-16.
        names: those of the network's state dict.
    """
    family = model.partition("-")[0]
    if family not in ("wrn", "resnet18"):
        return {}
    rules, stages = (_WIDE, 3) if family == "wrn" else (_RESNET18, 4)
    blocks = 1 + max(int(name.split(".")[1]) for name in names if name.startswith("blocks."))
    return {name: _renamed(name, rules, blocks // stages) for name in names}


def _renamed(name: str, rules: _Rules, depth: int) -> str:
    """Return the name with its part renamed, e.g. blocks.3.norm1.weight; a stage has `depth` blocks."""
    part, dot, leaf = name.rpartition(".")
    stage, block = divmod(int(part.split(".")[1]), depth) if part.startswith("blocks.") else (0, 0)
    new = next(new for pattern, new in rules.items() if re.fullmatch(pattern, part))
    return new.format(stage + 1, block) + dot + leaf


def _bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the parts that all names begin with, as in Sequential(normalise, network)."""
    while len(parts := {name.partition(".")[0] for name in tensors}) == 1 and all("." in name for name in tensors):
        tensors = stripped(tensors, [f"{parts.pop()}."])
    return dict(tensors)


def _said(what: str, found: Sequence[str]) -> str:
    return f"{len(found)} {what} ({'; '.join(found[:_SHOWN])}{'; ...' * (len(found) > _SHOWN)})"
