"""Resuming a training: checking that its files belong to the same training, and restoring its state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bsk.errors import InputError
from bsk.records import located
from bsk.records.checkpoints import MODEL, STATE
from bsk.records.headers import load_header
from bsk.records.words import counted
from bsk.training import monitor
from bsk.training import state as states
from bsk.training.loop import Setup, Watcher, rates_at
from bsk.training.outputs import (
    differences,
    is_of_another,
    last_path,
    log_path,
    missing_model,
    other_bits,
    planned_paths,
    training_with,
)
from bsk.training.state import State


def header_to_resume(checkpoint: Path, header: dict[str, Any]) -> dict[str, Any] | None:
    """Return the header of `.last` if it belongs to the same training, or None if there is none.

    Raises:
        InputError: there are files of another training.
    """
    last = last_path(checkpoint)
    averages, epochs = planned_paths(checkpoint, header["flags"])
    if not last.exists():
        for path in (checkpoint, *averages):
            if path.exists() and _finished_epoch(path):
                raise InputError(f"{path}: exists, with no {last.name} to resume from; pass --force to replace it")
        if log_path(checkpoint).exists() and _tells_a_training(log_path(checkpoint)):
            said = f"{log_path(checkpoint)}: is the log of a training, with no {last.name} to resume from"
            raise InputError(f"{said}; choose another --out, or pass --force to replace it")
        _refuse_other_epochs(epochs, header)
        return None
    found = load_header(last, STATE)
    if gone := missing_model(checkpoint, found):
        what = "belongs to another training" if gone.exists() else "is missing"
        raise InputError(f"{gone}: {what}, and {last.name} does not have its weights; pass --force to start over")
    changed = differences(found, header)
    if changed:
        advice = "choose another --out, or --force to start over"
        raise InputError(f"{checkpoint}: was trained with {', '.join(changed)}; {advice}")
    _refuse_other_epochs(epochs, header)
    return found


def _refuse_other_epochs(paths: Sequence[Path], header: dict[str, Any]) -> None:
    """Raise if a model of an epoch, which --save-every would replace, is of another training.

    Raises:
        InputError: one is.
    """
    for path in (each for each in paths if each.exists()):
        if changed := differences(load_header(path, MODEL), header):
            found = f"{path}: is of another training, with {', '.join(changed)}"
            raise InputError(f"{found}; choose another --out, or pass --force to replace it")


def refuse_files_of_others(checkpoint: Path, flags: dict[str, Any]) -> None:
    """Raise if this training would write a file of another one, such as F.ema.safetensors, or that one a file of this.

    Raises:
        InputError: it would; --force does not allow it.
    """
    if owner := training_with(checkpoint):
        raise InputError(f"{checkpoint}: has the name of a file of the training {owner.name}; choose another --out")
    averages, epochs = planned_paths(checkpoint, flags)
    for path in (last_path(checkpoint), *averages, *epochs):
        if is_of_another(path):
            raise InputError(
                f"{path}: is the model of another training, which this one would replace; choose another --out"
            )


def _tells_a_training(log: Path) -> bool:
    """Return whether a log must be kept: all but one whose training crashed as its first epoch ended."""
    kinds = [(item.record.get("kind"), item.record.get("epoch")) for item in located.read(log)]
    return any(kind == "end" or (kind == "epoch" and epoch != 1) for kind, epoch in kinds)


def _finished_epoch(checkpoint: Path) -> bool:
    """Return whether a checkpoint must be kept: all but one that bsk wrote in a first epoch that crashed."""
    try:
        header = load_header(checkpoint, MODEL)
    except InputError:
        return True
    return bool(header.get("complete", True)) or header.get("epoch") != 1


def restore_training(
    setup: Setup, state: State, saved: dict[str, Any], header: dict[str, Any], watcher: Watcher
) -> None:
    """Restore a training from its files; `saved` is the header of its state.

    Raises:
        InputError: it has more updates than this training.
    """
    outputs, checkpoint = setup.outputs, setup.outputs.checkpoint
    states.restore(last_path(checkpoint), state, setup.profile.memory)
    if state.step > setup.total_steps:
        found = f"{last_path(checkpoint)}: has more updates than the training ({state.step}, now {setup.total_steps})"
        raise InputError(f"{found}; give more --epochs, or --force to start over")
    _check_epochs(setup, state, saved["flags"].get("epochs"))
    changed = other_bits(saved, header)
    if changed and state.step < setup.total_steps:
        watcher.notice(f"{checkpoint}: resumes with {', '.join(changed)}: results may differ in the last bits")
    if setup.settings.on_collapse == "rollback" and state.collapses.now and state.healthy is None:
        gone = "it has collapsed, and went on without keeping weights to roll back to"
        watcher.notice(f"{checkpoint}: {gone}; --force trains it anew")
    state.sums /= setup.share.world  # saved as a sum over all processes; each resumes with an equal part
    epochs = state.step - bool(state.epoch_passes.forward)
    if lost := outputs.begin_log(epochs // len(setup.loader), state.seen.get("step", -1)):
        lacks = f"the log has no records of {counted(lost, 'epoch')} of this training"
        watcher.notice(f"{checkpoint}: {lacks}, so tables and curves lack them too")
    if state.step and not state.epoch_passes.forward:
        outputs.keep_best(state)


def _check_epochs(setup: Setup, state: State, planned: Any) -> None:
    """Raise if the updates so far would have been different with the new number of epochs.

    Raises:
        InputError: a learning rate or the method's own pace depends on the number of epochs `planned` at first.
    """
    settings, checkpoint = setup.settings, setup.outputs.checkpoint
    if planned == settings.epochs:
        return
    total = planned * len(setup.loader)
    same = all(rates_at(setup, step) == rates_at(setup, step, total) for step in range(state.step))
    looks = monitor.every(settings, setup.profile)
    rolled_back = state.step == total and looks and state.collapses.rescued_until == total + looks
    if same and not settings.bound.paced and not rolled_back:
        return
    why = f"the {settings.schedule} schedule" if not same else "its rollback" if rolled_back else settings.method
    found = f"{checkpoint}: was trained with epochs {planned}, now {settings.epochs}, and {why} depends on their number"
    advice = f"continue from its weights with --init {checkpoint} --out NEW, or --force to start over"
    raise InputError(f"{found}; {advice}")
