"""From settings and data to a trained checkpoint: newly trained, resumed, or already complete."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import torch

from bsk.compat import compiling
from bsk.data.batches import WHOLE, Loader, Share
from bsk.data.extra import Extra, open_extra
from bsk.data.processes import agree_on
from bsk.data.sources import opened
from bsk.data.store import DataFile, Split
from bsk.devices import device_name
from bsk.errors import UsageError
from bsk.models.compiled import Compiled, compiles
from bsk.models.modes import PRECISIONS
from bsk.plugins import is_plugin, load
from bsk.records.checkpoints import STATE
from bsk.records.headers import load_header
from bsk.training import monitor
from bsk.training.awp import still_statistics
from bsk.training.flags import TrainingFlags
from bsk.training.initial import Initial, initial, model_of, new_state
from bsk.training.loop import Setup, Watcher, train
from bsk.training.outputs import (
    Outputs,
    every_path,
    last_path,
    locked_log,
    selected,
    totals,
)
from bsk.training.profile import Profile, check_shared, profile
from bsk.training.resume import header_to_resume, refuse_files_of_others, restore_training
from bsk.training.settings import Settings, resolve
from bsk.training.state import State, named
from bsk.training.threads import enough_threads, shared_machine_notice
from bsk.training.validation import TEST_IMAGES
from bsk.version import VERSION

FEW_EPOCHS = 20  # in which the rate of a piecewise schedule falls too soon


def run(
    flags: TrainingFlags,
    data: DataFile,
    checkpoint: Path,
    *,
    device: torch.device,
    watcher: Watcher,
    share: Share = WHOLE,
    force: bool = False,
    limit: int | None = None,
    stopping: Callable[[], int] = lambda: 0,
) -> dict[str, Any]:
    """Train, resume a training, or find it complete; return the `end` record of the log.

    Args:
        flags: all flags, resolved or not.
        data: the data with train and val splits; test images are only read if they select the epoch.
        checkpoint: F.safetensors; F.last.safetensors and F.jsonl are written beside it.
        device: where to train.
        watcher: is told about the progress.
        share: this process's part of every batch.
        force: start over even if there are files of another training.
        limit: train on the first `limit` images of the class-balanced order.
        stopping: called after every update; a non-zero exit code saves the state and stops with it.

    Raises:
        InputError: there are files of another training, or files cannot be written.
        UsageError: the method breaks the contract, or several processes cannot share its batches.
        DivergedError, CollapsedError, StoppedError: see `bsk.training.loop.train`.
    """
    settings = _resolved(flags, data, device, checkpoint, watcher, force)
    split, val = data.split("train", limit), data.split("val")
    test = data.split("test", TEST_IMAGES) if settings.select == "test" else None
    shape, classes = tuple(split.images.shape[1:]), len(data.classes)
    found = _profile(settings, shape, classes, share)
    weights = _initial(settings, data, val, device, checkpoint, force)
    state = new_state(settings, data, shape[0], (shape[1], shape[2]), device, weights)
    extra = _extra(settings, data, watcher)
    state.memory.images = len(split.labels) + (len(extra.labels) if extra else 0)
    threads = enough_threads(state.model, shape, settings.batch_size, device)
    with threads, _log(checkpoint, share) as log:
        if said := shared_machine_notice(device):
            watcher.notice(said)
        header = _header(settings, data, device, limit, shape, len(val.labels))
        header["processes"] = share.world
        header |= {"extra": extra.record} if extra else {}
        header |= _initial_fields(settings, weights, checkpoint)
        if _compiles(settings, found, state, shape, len(split.labels), share, device):
            _compile(state, settings, share, device, header, watcher)
        refuse_files_of_others(checkpoint, header["flags"])
        saved = None if force else header_to_resume(checkpoint, header)
        outputs = Outputs(checkpoint, header, log)
        loader = _loader(split, settings, device, share, extra)
        _check_smallest_batch(state, loader, share)
        setup = Setup(settings, found, loader, val, test, outputs, share, device, stopping)
        _begin(setup, state, saved, header, weights, watcher, force)
        agree_on(state.step, share)
        with compiling() if state.compiled else contextlib.nullcontext():
            train(setup, state, watcher)
        return _end(outputs, state)


def _loader(split: Split, settings: Settings, device: torch.device, share: Share, extra: Extra | None) -> Loader:
    return Loader(
        split.images,
        split.labels,
        batch_size=settings.batch_size,
        augment=settings.augment,
        seed=settings.seed,
        device=device,
        share=share,
        extra=extra,
    )


def _begin(
    setup: Setup,
    state: State,
    saved: dict[str, Any] | None,
    header: dict[str, Any],
    weights: Initial | None,
    watcher: Watcher,
    force: bool,
) -> None:
    """Restore the training whose state has the header `saved`, or start a new log if that is None."""
    if saved is not None:
        restore_training(setup, state, saved, header, watcher)
        return
    if force:
        setup.outputs.remove()
    setup.outputs.begin_log(-1)
    if setup.settings.schedule == "piecewise" and setup.settings.epochs < FEW_EPOCHS:
        watcher.notice(f"--epochs {setup.settings.epochs}: few for --schedule piecewise; cyclic is usually more robust")
    if weights is not None:
        watcher.notice(weights.summary())


def _resolved(
    flags: TrainingFlags, data: DataFile, device: torch.device, checkpoint: Path, watcher: Watcher, force: bool
) -> Settings:
    """Return the settings; a resumed training keeps its own precision unless a flag sets one."""
    last = last_path(checkpoint)
    if flags.init is not None and flags.model is None:
        saved = last.exists() and not force and not Path(flags.init).exists()  # resuming does not need it
        flags = replace(flags, model=model_of(last if saved else Path(flags.init)))
    settings = resolve(flags, data, device)
    if flags.precision != "auto" or force or not last.exists():
        return settings
    own = load_header(last, STATE).get("flags", {}).get("precision")
    if own in PRECISIONS and own != settings.precision:
        watcher.notice(f"{checkpoint}: resumes in {own}, its own precision; the default here is {settings.precision}")
        return replace(settings, precision=own)
    return settings


def _initial(
    settings: Settings, data: DataFile, val: Split, device: torch.device, checkpoint: Path, force: bool
) -> Initial | None:
    """Return the initial weights if a file is given, and exists or is needed; a resumed training does not need it.

    Raises:
        UsageError: the training would overwrite the file.
    """
    if settings.init is None:
        return None
    path = Path(settings.init)
    if path.resolve() in [each.resolve() for each in every_path(checkpoint)]:
        raise UsageError(f"--init {settings.init}: is a file that this training writes; choose another --out")
    last = last_path(checkpoint)
    if not force and not path.exists() and last.exists():
        begun = load_header(last, STATE).get("init")
        if isinstance(begun, dict) and begun.get("path") == str(path):
            return None
    return initial(path, settings.model, data, val, device)


def _initial_fields(settings: Settings, weights: Initial | None, checkpoint: Path) -> dict[str, Any]:
    """Return the header fields about the initial weights, from what was loaded or from the saved state."""
    if weights is not None:
        return {"init": weights.record, "mean": weights.mean, "std": weights.std}
    if settings.init is None:
        return {}
    known = load_header(last_path(checkpoint), STATE)
    return {name: known[name] for name in ("init", "mean", "std") if name in known}


def _extra(settings: Settings, data: DataFile, watcher: Watcher) -> Extra | None:
    if settings.extra is None:
        return None
    assert settings.extra_fraction is not None
    return open_extra(opened(settings.extra, "--extra"), settings.extra_fraction, data, watcher.notice)


def _compiles(
    settings: Settings,
    found: Profile,
    state: State,
    shape: tuple[int, ...],
    images: int,
    share: Share,
    device: torch.device,
) -> bool:
    """Return whether updates use torch.compile: as the settings say, or, for `auto`, if it pays.

    With `auto` only bsk's own methods and networks are compiled, and only in a single process: others may use
    second-order gradients, which torch.compile does not support, or code that it cannot trace. Methods with two
    backward passes through one output are excluded too, since this has not been tested with CUDA graphs.
    """
    outside = settings.plugin or found.trained.to_input > 0
    if settings.compile == "auto" and (outside or share.world > 1):
        return False
    passes = found.passes.seconds(monitor.WEIGHTS) * settings.bound.replays * settings.epochs * images
    return compiles(settings.compile, state.model, shape, passes, device)


def _compile(
    state: State, settings: Settings, share: Share, device: torch.device, header: dict[str, Any], watcher: Watcher
) -> None:
    """Use torch.compile for the passes of the state; the header says so unless that fails."""

    def tell(text: str) -> None:
        if "failed" in text:
            header.pop("compiled", None)
        watcher.notice(text)

    header["compiled"] = True
    rows = len(share.of(torch.arange(settings.batch_size)))
    state.compiled = Compiled(state.model, rows, device, tell)


def _check_smallest_batch(state: State, loader: Loader, share: Share) -> None:
    """Raise if an epoch has a batch of one image that the network cannot normalise.

    Raises:
        UsageError: that is the case.
    """
    n = loader.images_per_epoch
    last = n % loader.batch_size if n > loader.batch_size else n
    if last // share.world != 1 and loader.batch_size // share.world != 1:
        return
    try:
        with torch.no_grad(), still_statistics(state.model.train()):
            state.model(next(loader.epoch(0)).x[:1])
    except ValueError as error:  # raised by torch's batch norm
        found = f"--batch-size {loader.batch_size}: {n} images leave a batch of one, which batch norm cannot normalise"
        raise UsageError(f"{found}; choose another batch size") from error


def _profile(settings: Settings, shape: tuple[int, ...], classes: int, share: Share) -> Profile:
    """Return the profile of the method, if it supports what the settings ask for."""
    found = profile(settings.bound, shape, classes)
    if share.world > 1:
        check_shared(settings.bound, shape, classes)
    if settings.log_divergence and not found.moves:
        raise UsageError(f"--log-divergence: {settings.method} does not say where its perturbation starts and ends")
    if settings.label_smoothing and not found.smooths:
        raise UsageError(f"--label-smoothing: {settings.method} does not smooth labels; use net.cross_entropy in it")
    return found


def _header(
    settings: Settings,
    data: DataFile,
    device: torch.device,
    limit: int | None,
    shape: tuple[int, ...],
    val_n: int,
) -> dict[str, Any]:
    codes = {"method_code": (settings.method, "--method"), "code": (settings.model, "--model")}
    return {
        "method": settings.method,
        "model": settings.model,
        **{what: load(name, flag).sha256 for what, (name, flag) in codes.items() if is_plugin(name)},
        "dataset": data.name,
        "data_sha256": data.sha256,
        "data_path": str(data.path),
        "classes": list(data.classes),
        "shape": list(shape),
        "mean": list(data.mean),
        "std": list(data.std),
        "eps": settings.eps,
        "seed": settings.seed,
        "val_n": val_n,
        "flags": {**settings.flags(), "limit": limit},
        "version": VERSION,
        "torch": torch.__version__,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }


@contextlib.contextmanager
def _log(checkpoint: Path, share: Share) -> Iterator[IO[bytes] | None]:
    if share.rank > 0:
        yield None
        return
    with locked_log(checkpoint) as log:
        yield log


def _end(outputs: Outputs, state: State) -> dict[str, Any]:
    best, last = state.best, state.last
    end = {
        "kind": "end",
        **outputs.complete(state),
        "selected": selected(outputs.header),
        **best.record(),
        **named("last", last),
        **named("ema", state.best_average if state.average is not None else None),
        **named("ema_last", state.last_average if state.average is not None else None),
        "seconds": state.seconds,
        "validation_seconds": state.validation_seconds,
        **totals(state),
    }
    outputs.log(end)
    return {**outputs.header, **end}
