"""`bsk.train`: training from Python."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bsk.data.sources import opened
from bsk.data.store import DataFile
from bsk.devices import chosen_device
from bsk.errors import BskError, UsageError, kind_of
from bsk.evaluation.subjects import load_subject, remembered
from bsk.plugins import is_plugin
from bsk.progress import TrainingProgress
from bsk.records import jsonl
from bsk.surroundings import usual_torch
from bsk.training.flags import TrainingFlags
from bsk.training.outputs import log_path
from bsk.training.run import run
from bsk.values import checked_suffix, plain


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        model: the network of the selected epoch in eval mode, from images (N, C, H, W) in [0, 1] to logits (N,
            classes).
        record: what `bsk train` prints: flags, accuracies on val, seconds, passes.
        log: the records of the log: start, epochs, alarms, end.
        checkpoint: F.safetensors, or None if no file was requested.
    """

    model: nn.Module
    record: Mapping[str, Any]
    log: list[dict[str, Any]]
    checkpoint: Path | None

    def __repr__(self) -> str:
        """Return a one-line summary."""
        told = ", ".join(f"{name} {self.record[f'val_{name}']:.1%}" for name in ("natural", "robust"))
        return f"Run({self.record['method']}, epoch {self.record['epoch']}, val {told})"


@usual_torch()
def train(
    data: DataFile | str | Path,
    method: str = "bs",
    *,
    model: str | None = None,
    eps: float | None = None,
    epochs: int = 100,
    batch_size: int = 128,
    seed: int = 1,
    out: str | Path | None = None,
    limit: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    force: bool = False,
    progress: bool = True,
    **more: Any,
) -> Run:
    """Train a network exactly as `bsk train` does.

        run = bsk.train(bsk.prepare("digits"), "bs", gamma=2, epochs=30, schedule="cyclic")

    Args:
        data: prepared data: a name, the path of a file, or the result of `bsk.prepare` or `bsk.from_arrays`.
        method: an id, or `module:function`.
        model: a network's name, or `module:function`; the default depends on the data.
        eps: the radius in pixels of [0, 1]; the default depends on the data.
        epochs: passes over the training images.
        batch_size: images per update.
        seed: the seed of all random numbers.
        out: F.safetensors; the same call resumes from its files. None writes no files.
        limit: train on the first `limit` images of the class-balanced order.
        device: auto, cpu, cuda, cuda:1 or mps.
        threads: the number of CPU threads for this training; None leaves it unchanged.
        force: start over even if there are files of another training at `out`.
        progress: show a bar on a terminal, and print one line per epoch on stderr.
        **more: the other fields of `bsk.training.flags.TrainingFlags`, and the method's hyper-parameters by name.

    Raises:
        UsageError: a name is unknown, or a number is out of range.
        InputError: the data or the files at `out` are invalid.
        DivergedError, CollapsedError: see `bsk.training.loop.train`.
    """
    if not isinstance(method, str):
        raise UsageError(f"method: {kind_of(method)}, expected a name or module:function")
    if not isinstance(model, str | None):
        raise UsageError(f"model: {kind_of(model)}, expected a name or module:function, which returns a new network")
    for name, value in {"out": out, "init": more.get("init"), "extra": more.get("extra")}.items():
        if not isinstance(value, str | Path | None):
            raise UsageError(f"{name}: {kind_of(value)}, expected the path of a file")
    found = opened(data)
    known = {each.name for each in fields(TrainingFlags)} - {"hyper"}
    flags = TrainingFlags(
        method=method,
        model=model,
        eps=eps,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        **{name: value for name, value in more.items() if name in known},
        hyper={name: value for name, value in more.items() if name not in known},
    )
    if force and out is None:
        raise UsageError("force: has no effect without out; give out too")
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        where = chosen_device(device, threads)
        watcher = stack.enter_context(TrainingProgress(progress))
        folder = stack.enter_context(tempfile.TemporaryDirectory()) if out is None else ""
        path = checked_suffix(Path(out)) if out is not None else Path(folder) / "run.safetensors"
        try:
            record = run(flags, found, path, device=where, watcher=watcher, force=force, limit=plain(limit))
        except BskError as error:
            if out is None:  # it may name a file in a folder that is removed
                error.args = (str(error).replace(str(path), path.name).replace(", with --force", ""),)
            raise
        outside = model if model is not None and is_plugin(model) else None
        subject, log = load_subject(path, where, outside), jsonl.read(log_path(path))
    kept = path if out is not None else Path(path.name)  # the temporary folder is gone
    for each in (record, *log):
        each.update({"checkpoint": str(kept)} if "checkpoint" in each else {})
    return Run(remembered(replace(subject, path=kept)), record, log, None if out is None else path)
