"""The initial weights of a training: drawn from the seed, or from a trained network (`--init`)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bsk.compat import sgd
from bsk.contract.method import Memory
from bsk.data.batches import to_unit
from bsk.data.store import DataFile, Split
from bsk.errors import InputError, UsageError
from bsk.evaluation.subjects import load_subject
from bsk.models import registry
from bsk.models.fitting import Target
from bsk.models.foreign import foreign_model, takes_pixels
from bsk.models.modes import eval_mode
from bsk.models.registry import Normalised, network
from bsk.models.small import Size
from bsk.models.weights import load_weights
from bsk.plugins import is_plugin
from bsk.records import jsonl as records
from bsk.records.checkpoints import MODEL, STATE
from bsk.records.headers import load_header
from bsk.training.averaging import average_of
from bsk.training.settings import Settings
from bsk.training.state import State

NORMALISATION_IMAGES = 256  # val images that decide which normalisation the weights were trained with


@dataclass(frozen=True)
class Initial:
    """A network to start from; `new` are the names of its tensors that are still drawn from the seed."""

    model: Normalised
    new: frozenset[str]
    record: dict[str, Any]

    @property
    def mean(self) -> list[float]:
        """The mean that the network normalises by, one number per channel."""
        return _numbers(self.model.mean)

    @property
    def std(self) -> list[float]:
        """The std that the network normalises by, one number per channel."""
        return _numbers(self.model.std)

    def put_into(self, fresh: Normalised) -> None:
        """Copy all tensors but the new ones into a newly built network of the same kind."""
        own, found = fresh.network.state_dict(), self.model.network.state_dict()
        with torch.no_grad():
            for name in own.keys() - self.new:
                own[name].copy_(found[name])

    def summary(self) -> str:
        """Return a message about what was loaded and what is new."""
        said, path = self.record, self.record["path"]
        text = f"--init {path}: {said['loaded']} tensors loaded, normalisation: {said['normalisation']}"
        if not self.new:
            return text
        text += f"; new: {', '.join(said['new'])} (the file has {said['classes']} classes)"
        step = "; if the network expects normalised images, save mean and std with its weights"
        return text + (step if said["normalisation"] == "none" else "")


def _numbers(tensor: Tensor) -> list[float]:
    return [float(str(each)) for each in tensor.reshape(-1).cpu().numpy()]  # 0.4914, as written in files


def model_of(path: Path) -> str | None:
    """Return the name of the network in a checkpoint of bsk, or None for any other file.

    Raises:
        UsageError: it is a plugin, which is imported only if the user names it.
    """
    header = _own_header(path)
    model = None if header is None else str(header["model"])
    if model is not None and is_plugin(model):
        raise UsageError(f"{path}: its network is a plugin; add --model {model} if you trust that code")
    return model


def initial(path: Path, model: str, data: DataFile, val: Split, device: torch.device) -> Initial:
    """Return the weights of a file for the network `model`, to continue training on the data.

    The layer for the classes stays new if the file has other classes than the data. The normalisation is the one the
    weights were trained with: it is in the checkpoint or the weights, or known for the network. Otherwise the data's
    normalisation is used if more val images are classified correctly with it than without.

    Args:
        path: a checkpoint of bsk, or a file of weights (see `bsk.models.weights.load_weights`).
        model: a name, or `module:function`.
        data: the data to train on.
        val: its val split.
        device: where the network goes.

    Raises:
        InputError: the file is missing or refused, or does not fit the network or the images.
        UsageError: there is no such network, or the file is of another network.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; check --init")
    fresh = _Fresh(model, len(data.classes), val.shape)
    header = _own_header(path)
    if header is None:
        classes = fresh.classes_of(path)
        whole, source = _foreign(path, fresh, classes, data, val, device)
        same = classes == fresh.classes
    else:
        classes, source = len(header["classes"]), "the checkpoint's"
        same = list(header["classes"]) == list(data.classes)
        whole = _own(path, header, fresh, frozenset() if same else fresh.heads, device)
    new = frozenset[str]() if same else fresh.heads
    record: dict[str, Any] = {"path": str(path), "sha256": records.sha256(path)}
    kept = ("method", "epoch", "dataset", "data_sha256")
    record |= {name: each for name, each in (header or {}).items() if name in kept}
    record |= {"classes": classes, "loaded": len(fresh.tensors) - len(new), "new": sorted(new)}
    return Initial(whole, new, {**record, "normalisation": source})


class _Fresh:
    """The network to be trained as newly built: its tensors, and which of them depend on the classes."""

    def __init__(self, model: str, classes: int, shape: tuple[int, ...]) -> None:
        self.model, self.classes, self.shape = model, classes, shape
        self.tensors, more = self._made(classes), self._made(classes + 1)
        self.heads = frozenset(name for name, each in self.tensors.items() if each.shape != more[name].shape)

    def _made(self, classes: int) -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            found = network(self.model, classes, self.shape[0], (self.shape[1], self.shape[2])).state_dict()
        return {name: each for name, each in found.items() if isinstance(each, Tensor)}

    def others(self, tensors: Mapping[str, Tensor]) -> set[str]:
        """Return the names of tensors that are missing here or have another shape here."""
        own = self.tensors
        return {name for name, each in tensors.items() if name not in own or each.shape != own[name].shape}

    def classes_of(self, path: Path) -> int:
        """Return the number of classes of the weights in a file, if all tensors but those of the classes fit."""
        found = load_weights(path, Target(self.model, self.tensors, self.shape[0])).fit.tensors
        other = self.others(found)
        sizes = {len(found[name]) for name in other if found[name].dim()}
        return sizes.pop() if other and other <= self.heads and len(sizes) == 1 else self.classes


def _own(path: Path, header: dict[str, Any], fresh: _Fresh, new: frozenset[str], device: torch.device) -> Normalised:
    """Return the network of a checkpoint, whose tensors must fit except for the new ones."""
    model = str(header["model"])
    if model != fresh.model and not is_plugin(fresh.model):
        advice = "leave out --model, or give another file"
        raise UsageError(f"--model {fresh.model}: --init {path} holds the network {model}; {advice}")
    found = load_subject(path, device, fresh.model if is_plugin(fresh.model) else None).model
    assert isinstance(found, Normalised)
    if other := sorted(fresh.others(found.network.state_dict()) - new):
        said = f"{other[0]} for images {tuple(header['shape'])} does not fit images {fresh.shape}"
        raise InputError(f"--init {path}: {said}; give a network for such images")
    return found


def _foreign(
    path: Path, fresh: _Fresh, classes: int, data: DataFile, val: Split, device: torch.device
) -> tuple[Normalised, str]:
    """Return a network with the weights of others, and where its normalisation comes from."""
    channels, *size = fresh.shape
    height, width = size
    found = foreign_model(fresh.model, path, classes=classes, channels=channels, size=(height, width), device=device)
    whole = found.model
    if found.normalisation != "none" or classes != fresh.classes or not takes_pixels(whole, fresh.shape):
        return whole, found.normalisation
    other = Normalised(whole.network, data.mean, data.std, whole.outside).to(device)
    x, y = to_unit(val.images[:NORMALISATION_IMAGES].to(device)), val.labels[:NORMALISATION_IMAGES].to(device)
    right = []
    for each in (whole, other):
        with eval_mode(each), torch.no_grad():
            right.append(int((each(x).argmax(1) == y).sum()))
    return (other, "the data's") if right[1] > right[0] else (whole, "none")


def _own_header(path: Path) -> dict[str, Any] | None:
    """Return the header of a checkpoint of bsk, or None for any other file."""
    with contextlib.suppress(InputError):
        return load_header(path, (MODEL, STATE))
    return None


def new_state(
    settings: Settings,
    data: DataFile,
    channels: int,
    size: Size,
    device: torch.device,
    begin: Initial | None = None,
) -> State:
    """Return the state before the first update, with weights drawn from the seed on the CPU, or those of `begin`.

    Raises:
        UsageError: the network has no parameters to train.
    """
    model = registry.build(
        settings.model,
        classes=len(data.classes),
        channels=channels,
        size=size,
        mean=data.mean if begin is None else begin.mean,
        std=data.std if begin is None else begin.std,
        seed=settings.seed,
        device=device,
    )
    if begin is not None:
        begin.put_into(model)
    if not any(True for _ in model.parameters()):
        raise UsageError(f"--model {settings.model}: has no parameters to train; register its layers in the module")
    if not any(each.requires_grad for each in model.parameters()):
        raise UsageError(f"--model {settings.model}: no parameter requires a gradient; call requires_grad_(True) on it")
    for name, value in model.network.state_dict().items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or registry.repeats(value):
            raise UsageError(f"--model {settings.model}: its {name} is no dense tensor, which bsk could not save")
    optimiser = sgd(model.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
    sums_type = torch.float32 if device.type == "mps" else torch.float64
    sums = torch.zeros(3, device=device, dtype=sums_type)
    memory = Memory(classes=len(data.classes))
    return State(model, optimiser, scaler, sums, memory=memory, average=average_of(model, settings.ema))
