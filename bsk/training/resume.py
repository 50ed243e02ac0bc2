"""Going on with a training: whether its files are of this very one, and what they left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bsk.errors import InputError
from bsk.records.checkpoints import MODEL, STATE
from bsk.records.headers import load_header
from bsk.training import state as states
from bsk.training.loop import Setup, Watcher, rates_at
from bsk.training.outputs import average_path, differences, last_path, lost, other_bits
from bsk.training.state import State


def begun_training(checkpoint: Path, header: dict[str, Any]) -> dict[str, Any] | None:
    """Return the header of `.last` if it is of this very training, None if there is none.

    Raises:
        InputError: files of another training are in the way.
    """
    last = last_path(checkpoint)
    if not last.exists():
        averages = [average_path(checkpoint, which) for which in ("", "-last")] if header["flags"]["ema"] else []
        for path in (checkpoint, *averages):
            if path.exists() and _finished_epoch(path):
                raise InputError(f"{path}: exists, with no {last.name} to go on from; pass --force to replace it")
        return None
    found = load_header(last, STATE)
    if gone := lost(checkpoint, found):
        what = "is another training's" if gone.exists() else "is gone"
        raise InputError(f"{gone}: {what}, and {last.name} has not its weights; pass --force to start over")
    changed = differences(found, header)
    if changed:
        advice = "choose another --out, or --force to start over"
        raise InputError(f"{checkpoint}: was trained with {', '.join(changed)}; {advice}")
    return found


def _finished_epoch(checkpoint: Path) -> bool:
    """A checkpoint that bsk wrote in its first epoch may stand without `.last` after a crash; others stay."""
    try:
        header = load_header(checkpoint, MODEL)
    except InputError:
        return True
    return bool(header.get("complete", True)) or header.get("epoch") != 1


def go_on(setup: Setup, state: State, begun: dict[str, Any], header: dict[str, Any], watcher: Watcher) -> None:
    """Restore what a training left, whose state has the header `begun`.

    Raises:
        InputError: it has more updates than this training.
    """
    outputs, checkpoint = setup.outputs, setup.outputs.checkpoint
    states.restore(last_path(checkpoint), state, setup.profile.memory)
    if state.step > setup.total_steps:
        found = f"{last_path(checkpoint)}: has more updates than the training ({state.step}, now {setup.total_steps})"
        raise InputError(f"{found}; give more --epochs, or --force to start over")
    _check_epochs(setup, state, begun["flags"].get("epochs"))
    changed = other_bits(begun, header)
    if changed and state.step < setup.total_steps:
        watcher.notice(f"{checkpoint}: goes on with {', '.join(changed)}: not the same to the bit")
    state.sums /= setup.share.world  # they are of all processes, in equal parts from here on
    epochs = state.step - bool(state.epoch_passes.forward)
    outputs.begin_log(epochs // len(setup.loader), state.seen.get("step", -1))
    if state.step and not state.epoch_passes.forward:
        outputs.keep_best(state)


def _check_epochs(setup: Setup, state: State, planned: Any) -> None:
    """Raise if the updates so far would have been others, had this number of epochs been asked for from the start.

    Raises:
        InputError: the learning rate of one, or the method's own pace, follows from the number `planned` at first.
    """
    settings, checkpoint = setup.settings, setup.outputs.checkpoint
    if planned == settings.epochs:
        return
    total = planned * len(setup.loader)
    same = all(rates_at(setup, step) == rates_at(setup, step, total) for step in range(state.step))
    if same and not settings.bound.paced:
        return
    why = f"{settings.method} paces itself" if same else f"the {settings.schedule} schedule goes"
    found = f"{checkpoint}: was trained with epochs {planned}, now {settings.epochs}, and {why} by their number"
    advice = f"train on from its weights by --init {checkpoint} --out NEW, or --force to start over"
    raise InputError(f"{found}; {advice}")
