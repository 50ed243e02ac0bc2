"""The complete state of a training, from which it can be resumed exactly, and its file `F.last.safetensors`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from bsk.contract.method import Memory
from bsk.errors import InputError, first_line
from bsk.models.compiled import Compiled
from bsk.models.registry import Normalised
from bsk.perturb.passes import PassCounter
from bsk.records import checkpoints
from bsk.records.checkpoints import MODEL_PART, STATE, model_tensors

_MOMENTUM = "momentum."
_MEMORY = "memory."
_SHARED, _ROWS = _MEMORY + "shared.", _MEMORY + "rows."
_AVERAGE = "average."
_HEALTHY = "healthy."
_PLAIN = ("step", "seconds", "validation_seconds", "epoch_seconds", "compile_seconds", "seen")  # saved unchanged


@dataclass(frozen=True)
class Scored:
    """An epoch and its accuracies on val and, if it selects, on test; -1 if not measured."""

    epoch: int = 0
    val_natural: float = -1.0
    val_robust: float = -1.0
    test_natural: float = -1.0
    test_robust: float = -1.0

    def record(self) -> dict[str, Any]:
        """Return the fields, those of test only if they were measured."""
        fields = asdict(self)
        return fields if self.test_robust >= 0 else {k: v for k, v in fields.items() if not k.startswith("test_")}


def named(prefix: str, scored: Scored | None) -> dict[str, Any]:
    """Return the fields of a record with a prefix, such as "ema_val_robust"; {} for None."""
    return {} if scored is None else {f"{prefix}_{name}": value for name, value in scored.record().items()}


@dataclass
class Collapses:
    """What the monitor has seen.

    Attributes:
        now: whether the last check found a collapse.
        count: the number of collapses.
        rescued_until: the update until which PGD takes over.
        best: the best accuracy under PGD-10 in all checks.
    """

    now: bool = False
    count: int = 0
    rescued_until: int = 0
    best: float = 0.0


@dataclass
class State:
    """A training in progress.

    Attributes:
        step: the number of updates done.
        best, last: the selected and the last epoch; `best_average` and `last_average` are those of the moving average.
        sums: (3,) fp64 on the device, the epoch's summed total, natural and robust loss so far.
        seconds, validation_seconds, compile_seconds: time spent so far on updates, validation and compilation.
        epoch_seconds: time spent on updates in this epoch so far.
        seen: the last check of the monitor in this epoch.
        healthy: the value of `learned` at the last check without a collapse, to roll back to.
        compiled: the network's passes through torch.compile, if it is used.
        noise: the generator of the last update, reseeded by the next one.
    """

    model: Normalised
    optimiser: torch.optim.SGD
    scaler: torch.amp.GradScaler
    sums: Tensor
    step: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    compile_seconds: float = 0.0
    epoch_seconds: float = 0.0
    passes: PassCounter = field(default_factory=PassCounter)
    epoch_passes: PassCounter = field(default_factory=PassCounter)
    best: Scored = field(default_factory=Scored)
    last: Scored = field(default_factory=Scored)
    memory: Memory = field(default_factory=Memory)
    average: AveragedModel | None = None
    best_average: Scored = field(default_factory=Scored)
    last_average: Scored = field(default_factory=Scored)
    collapses: Collapses = field(default_factory=Collapses)
    healthy: dict[str, Tensor] | None = None
    seen: dict[str, Any] = field(default_factory=dict)
    compiled: Compiled | None = None
    noise: torch.Generator | None = None

    def spend(self, seconds: float) -> None:
        """Add the time of updates, and separately the time of compiling within it."""
        compiling = self.compiled.spent() if self.compiled else 0.0
        self.compile_seconds += compiling
        self.seconds, self.epoch_seconds = self.seconds + seconds - compiling, self.epoch_seconds + seconds - compiling


def save(path: Path, state: State, header: dict[str, Any]) -> None:
    """Write the state and the header that describes the training."""
    tensors = learned(state)
    tensors["sums"] = state.sums
    if state.healthy is not None:
        tensors |= {_HEALTHY + name: tensor for name, tensor in state.healthy.items()}
    progress = {
        "step": state.step,
        "seconds": state.seconds,
        "validation_seconds": state.validation_seconds,
        "epoch_seconds": state.epoch_seconds,
        "compile_seconds": state.compile_seconds,
        "passes": asdict(state.passes),
        "epoch_passes": asdict(state.epoch_passes),
        "best": state.best.record(),
        "last": state.last.record(),
        "best_average": state.best_average.record(),
        "last_average": state.last_average.record(),
        "memory": {"numbers": state.memory.numbers, "logged": state.memory.logged},
        "collapses": asdict(state.collapses),
        "seen": state.seen,
        "scaler": state.scaler.state_dict(),
        "averaged": int(state.average.n_averaged) if state.average is not None else 0,
    }
    checkpoints.save(path, tensors, {**header, "kind": STATE, "progress": progress})


def learned(state: State) -> dict[str, Tensor]:
    """Return everything that updates change: weights, momentum, the moving average, and the method's memory."""
    tensors = {MODEL_PART + name: tensor for name, tensor in state.model.state_dict().items()}
    for name, parameter in state.model.named_parameters():
        momentum = state.optimiser.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[_MOMENTUM + name] = momentum
    if state.average is not None:
        tensors |= {_AVERAGE + name: tensor for name, tensor in state.average.module.state_dict().items()}
    tensors |= {_SHARED + name: tensor for name, tensor in state.memory.shared.items()}
    return tensors | {_ROWS + name: tensor for name, tensor in state.memory.rows.items()}


def restore_learned(state: State, tensors: dict[str, Tensor]) -> None:
    """Restore copies of what `learned` returned."""
    state.model.load_state_dict(model_tensors(tensors))
    state.optimiser.load_state_dict(_optimiser_state(state, tensors))
    for kind, prefix in (("shared", _SHARED), ("rows", _ROWS)):
        kept = {name: tensor.clone().to(state.sums.device) for name, tensor in _part(tensors, prefix).items()}
        setattr(state.memory, kind, kept)
    if state.average is not None:
        state.average.module.load_state_dict(_part(tensors, _AVERAGE))


def restore(path: Path, state: State, written: Memory) -> None:
    """Restore what `save` wrote into a new state of the same training.

    Args:
        path: F.last.safetensors.
        state: a new state.
        written: what the method writes into a memory of a few images, for names and shapes.

    Raises:
        InputError: the file is missing, corrupt or of another network.
    """
    tensors, header = checkpoints.load(path, STATE)
    try:
        _check(tensors, state, written)
        progress = _upgraded(dict(header["progress"]))
        restore_learned(state, {name: tensor for name, tensor in tensors.items() if not name.startswith(_HEALTHY)})
        healthy = {name: tensor.to(state.sums.device) for name, tensor in _part(tensors, _HEALTHY).items()}
        state.healthy = healthy or None
        state.scaler.load_state_dict(progress.pop("scaler"))
        state.sums.copy_(tensors["sums"])
        averaged = progress.pop("averaged")
        if state.average is not None:
            state.average.n_averaged.fill_(averaged)
        state.passes = PassCounter(**progress.pop("passes"))
        state.epoch_passes = PassCounter(**progress.pop("epoch_passes"))
        for name in ("best", "last", "best_average", "last_average"):
            setattr(state, name, Scored(**progress.pop(name, {})))
        kept = progress.pop("memory")
        state.memory.numbers, state.memory.logged = dict(kept["numbers"]), dict(kept["logged"])
        state.collapses = Collapses(**progress.pop("collapses", {}))
        for name in _PLAIN:
            setattr(state, name, progress.pop(name))
        if progress:
            raise ValueError(f"unexpected progress {next(iter(progress))!r:.40}")
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        reason = first_line(error, 80)
        raise InputError(f"{path}: does not fit this training ({reason}); pass --force to start over") from error


def _upgraded(progress: dict[str, Any]) -> dict[str, Any]:
    """Return progress in the current format; before methods had a memory, only Fast AT+ stored numbers."""
    progress.setdefault("compile_seconds", 0.0)
    if "rescue" in progress:
        rescue, updates = progress.pop("rescue"), progress.pop("rescued_updates")
        numbers = {"accuracy": rescue["accuracy"], "fell": float(rescue["active"])}
        progress["memory"] = {"numbers": numbers, "logged": {"rescued_updates": updates} if updates else {}}
    return progress


def _check(tensors: dict[str, Tensor], state: State, written: Memory) -> None:
    """Refuse tensors that torch would accept here but fail on later, since it checks only the shapes of weights.

    Raises:
        ValueError: the momentum or the memory has an impossible shape, or a number is not finite.
    """
    shapes: dict[str, tuple[int, ...]] = {
        _MOMENTUM + name: tuple(parameter.shape) for name, parameter in state.model.named_parameters()
    }
    shapes["sums"] = tuple(state.sums.shape)
    shapes |= {_ROWS + name: (state.memory.images, *tensor.shape[1:]) for name, tensor in written.rows.items()}
    for name, tensor in written.shared.items():
        found = tensors.get(_SHARED + name, tensor)
        of_a_batch = bool(tensor.dim()) and len(tensor) == written.images and found.dim() == tensor.dim()
        shapes[_SHARED + name] = (len(found), *tensor.shape[1:]) if of_a_batch else tuple(tensor.shape)
    for name, tensor in tensors.items():
        kept = name.startswith((_MOMENTUM, _MEMORY))
        if kept and name not in shapes:
            raise ValueError(f"unexpected tensor {name!r:.60}")
        if name in shapes and tuple(tensor.shape) != shapes[name]:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shapes[name]}")
        if name.startswith(("sums", _MEMORY)) and not bool(tensor.isfinite().all()):  # weights may have diverged
            raise ValueError(f"{name} has a number that is not finite")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _optimiser_state(state: State, tensors: dict[str, Tensor]) -> dict[str, Any]:
    saved = {
        i: {"momentum_buffer": tensors[_MOMENTUM + name].clone()}
        for i, (name, _) in enumerate(state.model.named_parameters())
        if _MOMENTUM + name in tensors
    }
    return {"state": saved, "param_groups": state.optimiser.state_dict()["param_groups"]}
