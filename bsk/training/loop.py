"""The training loop: epochs of updates, validation, selection, checkpoints and a log; resumable at any update."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bsk.data.batches import Loader, Share
from bsk.data.processes import agree, sum_over_processes
from bsk.data.store import Split
from bsk.errors import CollapsedError, DivergedError, StoppedError
from bsk.perturb.passes import PassCounter
from bsk.training import monitor
from bsk.training.divergence import divergences
from bsk.training.outputs import Outputs
from bsk.training.profile import Profile
from bsk.training.schedules import SCHEDULES, Rates, warmed
from bsk.training.settings import Settings
from bsk.training.state import Scored, State, learned, named, restore_learned
from bsk.training.step import update
from bsk.training.validation import accuracy_for_method, validate

SAVE_SECONDS = 600.0  # interval of saves within a long epoch
SAVE = 1  # a process's request to save; a request to stop is the exit code of a signal, which is larger
CHECK_STEPS = 25  # reading a loss from a GPU waits for it


class Watcher(Protocol):
    """An observer of the training's progress."""

    def step(self, done: int, total: int, epoch: int, loss: Callable[[], float]) -> None:
        """Called after each update; `loss()` returns the epoch's mean so far and should be called only occasionally."""

    def epoch(self, record: dict[str, Any]) -> None:
        """Called after each epoch with its log record."""

    def alarm(self, record: dict[str, Any]) -> None:
        """Called with the log record when the network has collapsed."""

    def notice(self, text: str) -> None:
        """Called with a message that the user should see."""


@dataclass(frozen=True)
class Setup:
    """What stays constant during a training; `test` is used only to select the epoch."""

    settings: Settings
    profile: Profile
    loader: Loader
    val: Split
    test: Split | None
    outputs: Outputs
    share: Share
    device: torch.device
    stopping: Callable[[], int]

    @property
    def total_steps(self) -> int:
        """The number of updates in all epochs."""
        return self.settings.epochs * len(self.loader)


def train(setup: Setup, state: State, watcher: Watcher) -> None:
    """Train from the given state to the end, writing the files of `setup.outputs`.

    Raises:
        DivergedError: a loss is not finite; the checkpoints are those of the last good epoch.
        CollapsedError: the network shows catastrophic overfitting, and `on_collapse` is "stop".
        StoppedError: `setup.stopping` requested it; the state is saved.
    """
    epoch = state.step // len(setup.loader)
    skip = state.step % len(setup.loader)
    if skip == 0 and state.epoch_passes.forward:  # stopped between an epoch's last update and its end
        _finish_epoch(setup, state, watcher)
    while state.step < setup.total_steps:
        _run_epoch(setup, state, epoch, skip, watcher)
        _finish_epoch(setup, state, watcher)
        epoch, skip = epoch + 1, 0


def _run_epoch(setup: Setup, state: State, epoch: int, skip: int, watcher: Watcher) -> None:
    settings, share, looks = setup.settings, setup.share, monitor.every(setup.settings, setup.profile)
    clock = saved = time.perf_counter()
    state.model.train()
    for batch in setup.loader.epoch(epoch, skip):
        if looks and state.step % looks == 0 and state.step:  # first, since resuming after `stop` starts here
            _check_finite(state, setup)
            _look_for_collapse(setup, state, epoch, watcher)
        rates = rates_at(setup, state.step)
        look = partial(accuracy_for_method, state, settings, setup.val)
        update(state, settings, batch, share, rates, setup.total_steps, epoch, look)
        if state.step % CHECK_STEPS == 0:
            _check_finite(state, setup)
        now = time.perf_counter()
        state.spend(now - clock)
        clock = now
        watcher.step(state.step, setup.total_steps, epoch, lambda: _own_loss(setup, state))
        wish = setup.stopping() or SAVE * (now - saved > SAVE_SECONDS)
        wish = agree(wish, share)  # every process has its own clock
        if wish:
            _save(setup, state)
            clock = saved = time.perf_counter()
        if wish > SAVE:
            raise StoppedError(f"stopped in epoch {epoch + 1}; the same command resumes from there", wish)
    _check_finite(state, setup)
    state.spend(time.perf_counter() - clock)


def _look_for_collapse(setup: Setup, state: State, epoch: int, watcher: Watcher) -> None:
    """Check for catastrophic overfitting; report it once, and act according to `on_collapse`.

    Raises:
        CollapsedError: it has occurred, and the training is to stop.
    """
    settings = setup.settings
    if state.seen.get("step") == state.step:  # resumed after this check
        return
    seen = monitor.look(state, settings, setup.val, setup.share)
    fresh = seen.collapsed and not state.collapses.now
    if fresh and settings.on_collapse == "stop":
        _save(setup, state)  # the state before this check: resuming repeats it with the flags of that time
    state.seen, state.collapses.now = {"step": state.step, **asdict(seen)}, seen.collapsed
    state.collapses.best = max(state.collapses.best, seen.pgd)
    if not seen.fallen and settings.on_collapse != "warn":  # after `stop` the user may resume with `rollback`
        state.healthy = {name: tensor.clone() for name, tensor in learned(state).items()}
    if not fresh:
        return
    state.collapses.count += 1
    back = settings.on_collapse == "rollback" and state.healthy is not None
    alarm = {"kind": "alarm", "epoch": epoch + 1, **state.seen, "on_collapse": settings.on_collapse, "back": back}
    setup.outputs.log(alarm)
    watcher.alarm(alarm)
    if settings.on_collapse == "stop":
        found = f"catastrophic overfitting after {state.step} updates (FGSM {seen.fgsm:.0%}, PGD-10 {seen.pgd:.0%})"
        kept = "the best epoch is kept" if state.best.epoch else "no epoch was completed"
        advice = "try --method n-fgsm or bs, or resume from here with --on-collapse rollback or warn"
        raise CollapsedError(f"{setup.outputs.checkpoint}: {found}; {kept}; {advice}")
    if back:
        assert state.healthy is not None
        restore_learned(state, state.healthy)
        state.collapses.now = False
        state.collapses.rescued_until = state.step + monitor.every(settings, setup.profile)


def rates_at(setup: Setup, step: int, total: int | None = None) -> Rates:
    """Return the learning rate and momentum of update `step` out of `total`."""
    settings = setup.settings
    rates = SCHEDULES[settings.schedule](step, total or setup.total_steps, settings.lr, settings.momentum)
    return warmed(step, settings.warmup * len(setup.loader), rates)


def _finish_epoch(setup: Setup, state: State, watcher: Watcher) -> None:
    """Validate, select, log and save: the log before the state, so that a crash repeats the epoch.

    The selected model comes last; `keep_best` writes it again after a crash in between.

    Raises:
        InputError: the data file has changed since the training began; nothing is logged or saved.
    """

    def pause() -> None:
        if code := agree(setup.stopping(), setup.share):
            raise StoppedError("stopped during validation; the same command resumes from there", code)

    start = time.perf_counter()
    epoch = state.step // len(setup.loader)
    if state.step == setup.total_steps and monitor.every(setup.settings, setup.profile):
        _look_for_collapse(setup, state, epoch - 1, watcher)
    look = partial(_validated, setup, epoch, pause)
    try:
        state.last = look(state.model)
        if state.average is not None:
            state.last_average = look(state.average.module)
        logged = divergences(state, setup.settings, setup.val, setup.share, epoch, pause)
    except StoppedError:
        _save(setup, state)  # not in `pause`, since the batch norms of the network are folded there
        raise
    _check_data(setup)
    seconds = time.perf_counter() - start
    record = {**_epoch_record(setup, state, seconds), **logged}
    state.validation_seconds += seconds
    state.passes.forward += record["forward_passes"]
    state.passes.backward += record["backward_passes"]
    state.sums.zero_()
    state.epoch_passes, state.epoch_seconds, state.seen = PassCounter(), 0.0, {}
    if is_better(state.last, state.best, setup):
        state.best = state.last
    if state.average is not None and is_better(state.last_average, state.best_average, setup):
        state.best_average = state.last_average
    setup.outputs.log(record)
    if setup.settings.save_every and epoch % setup.settings.save_every == 0:
        setup.outputs.keep_epoch(state)
    setup.outputs.save_state(state)
    setup.outputs.keep_best(state)
    watcher.epoch(record)


def _validated(setup: Setup, epoch: int, pause: Callable[[], None], model: nn.Module) -> Scored:
    return validate(model, setup.settings, setup.val, setup.test, setup.share, epoch, pause)


def is_better(new: Scored, best: Scored, setup: Setup) -> bool:
    """Return whether an epoch beats the best so far: by PGD-20 accuracy, or by natural accuracy in natural training."""
    score = f"{setup.settings.select}_{'robust' if setup.profile.attacks else 'natural'}"
    return bool(getattr(new, score) > getattr(best, score))


def _epoch_record(setup: Setup, state: State, validation_seconds: float) -> dict[str, Any]:
    total, natural, robust = _mean_losses(setup, state, sum_over_processes(state.sums, setup.share))
    rates = rates_at(setup, state.step - 1)
    images = setup.loader.images_per_epoch
    own = {
        "kind": "epoch",
        "epoch": state.last.epoch,
        "lr": rates.lr,
        "loss": total,
        "natural_loss": natural if setup.profile.natural else None,
        "robust_loss": robust if setup.profile.robust else None,
        **state.last.record(),
        **named("ema", state.last_average if state.average is not None else None),
        "seconds": state.epoch_seconds,
        "images_per_second": images / max(state.epoch_seconds, 1e-9),
        "validation_seconds": validation_seconds,
        "forward_passes": state.epoch_passes.forward * setup.share.world,
        "backward_passes": state.epoch_passes.backward * setup.share.world,
        **({f"monitor_{name}": value for name, value in state.seen.items()}),
    }
    others = {name: value for name, value in state.memory.logged.items() if name not in own}
    return {**own, **({"rescued_updates": 0} if state.collapses.count else {}), **others}


def _mean_losses(setup: Setup, state: State, sums: Tensor) -> list[float]:
    """Return the epoch's losses so far, as means over the images seen by all processes."""
    batches = state.step % len(setup.loader) or len(setup.loader)
    seen = min(batches * setup.settings.batch_size, setup.loader.images_per_epoch)
    means: list[float] = (sums / seen).tolist()
    return means


def _own_loss(setup: Setup, state: State) -> float:
    """Return the epoch's mean loss so far, assuming that of this process for all, which needs no communication."""
    return _mean_losses(setup, state, state.sums * setup.share.world)[0]


def _save(setup: Setup, state: State) -> None:
    """Save within an epoch, including the losses of all processes, each of which must call it.

    Raises:
        DivergedError: a loss is not finite, and nothing is saved.
        InputError: the data file has changed, and nothing is saved.
    """
    _check_data(setup)
    setup.outputs.save_state(replace(state, sums=_check_finite(state, setup)))


def _check_data(setup: Setup) -> None:
    """Raise an InputError if mapped images have changed; train has the file of val, and extra images are copies."""
    if setup.val.file is not None:
        setup.val.file.check_mapped()


def _check_finite(state: State, setup: Setup) -> Tensor:
    """Return the epoch's losses, summed over all processes.

    Raises:
        DivergedError: a loss or a weight is not finite.
    """
    sums = sum_over_processes(state.sums, setup.share)
    weights = torch.stack([each.detach().float().sum() for each in state.model.parameters()])
    if not math.isfinite(float(sums.sum())) or not bool(weights.isfinite().all()):
        kept = "the last good checkpoint is kept" if state.best.epoch else "no epoch was completed"
        advice = "" if setup.settings.precision == "fp32" else " or use --precision fp32"
        raise DivergedError(
            f"{setup.outputs.checkpoint}: the loss or a weight is not finite after {state.step} updates; {kept}; "
            f"lower --lr{advice}, with --force"
        )
    return sums
