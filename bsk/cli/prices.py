"""The cost of jobs on a device, from counted passes and the measured time of a few passes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsk.cli import options as o
from bsk.cli.groups import FLAGS
from bsk.devices import chosen_device, rows_of_a_call
from bsk.errors import UsageError
from bsk.signature import pairs
from bsk.training.flags import TrainingFlags

if TYPE_CHECKING:
    import torch

    from bsk.data.store import DataFile
    from bsk.perturb.passes import Passes
    from bsk.training.costs import Times, Work
    from bsk.training.settings import Settings

JOBS = ("prepare-data", "train", "evaluate", "starts")
COLUMNS = ("job", "target", "done", "forward_passes", "backward_passes", "hours", "megabytes")


@dataclass(frozen=True)
class Job:
    """A command, its output file, its flags as the command itself parses them, and whether make noted other ones."""

    command: str
    target: str
    flags: dict[str, Any]
    changed: bool = False

    @property
    def data(self) -> str:
        """The path of the data of a training run."""
        from bsk.data.store import data_path

        return str(self.flags["data"] or data_path(self.flags["dataset"]))

    @property
    def checkpoint(self) -> str:
        """The first checkpoint of an evaluation or of `bsk starts`, empty if there is none."""
        named = self.flags["checkpoints"] if self.command == "evaluate" else [self.flags["checkpoint"]]
        return str((named or [""])[0])

    def settings(self, data: DataFile, device: torch.device, model: str | None) -> Settings:
        """Return the settings of a training run of the network `model`, None for the data's."""
        from bsk.training.settings import resolve

        flags = {**{name: self.flags[name] for name in FLAGS[TrainingFlags]}, "hyper": pairs(self.flags["hyper"] or [])}
        return resolve(TrainingFlags(**flags | {"model": model}), data, device)


@dataclass(frozen=True)
class Rates:
    """Seconds per pass and per optimiser step, and the size of the network in megabytes."""

    passes: Times
    step: float
    megabytes: float

    def seconds(self, work: Work) -> float:
        """Return the seconds that the passes of some work take."""
        return work.seconds(self.passes.image, self.passes.batch)


class Prices:
    """The costs of jobs on a device; a training job must come before the evaluations of its checkpoint."""

    def __init__(self, device: torch.device) -> None:
        """Set the device that will run the jobs."""
        self.device = device
        self._data: dict[str, tuple[DataFile, tuple[int, ...]]] = {}
        self._prepared: dict[str, Job] = {}
        self._trained: dict[str, tuple[Settings, Job]] = {}
        self._timed: dict[tuple[Any, ...], Rates] = {}

    @cached_property
    def startup(self) -> float:
        """Start-up time of a job in seconds."""
        return _startup(self.device)

    def assumed(self, job: Job) -> str | None:
        """Remember a prepare-data job; return its output path if that file does not exist yet."""
        if job.command != "prepare-data":
            return None
        self._prepared[job.target] = job
        return None if Path(job.target).exists() else job.target

    def line(self, job: Job) -> dict[str, Any]:
        """Return the table row of a job, by column."""
        passes, seconds, size = self._train(job) if job.command == "train" else self._evaluate(job)
        counts = round(passes.forward), round(passes.to_input + passes.full)
        hours = round((seconds + self.startup) / 3600, 5)
        return dict(
            zip(COLUMNS, (job.command, job.target, self._done(job), *counts, hours, round(size, 3)), strict=True)
        )

    def _done(self, job: Job) -> bool:
        """Return whether make would leave a job out: its output is there, for these flags, and no input is newer."""
        target, source = Path(job.target), Path(job.data)
        if job.command != "train":
            _, training = self._trained[job.checkpoint]
            source = Path(training.target)
            if not self._done(training):
                return False
        known = not job.changed and target.exists()
        return known and not (source.exists() and source.stat().st_mtime_ns > target.stat().st_mtime_ns)

    def _train(self, job: Job) -> tuple[Passes, float, float]:
        """Return passes, seconds and megabytes of the part of a training run that is left."""
        from bsk.training.costs import training_cost
        from bsk.training.outputs import average_path, last_path
        from bsk.training.profile import profile

        data, shape = self._open(job.data)
        settings = job.settings(data, self.device, self._model(job))
        checkpoint = Path(job.target.removesuffix(".train.json") + ".safetensors")
        averages = [average_path(checkpoint, which) for which in ("", "-last")] if settings.ema else []
        self._trained |= {str(path): (settings, job) for path in (checkpoint, last_path(checkpoint), *averages)}
        images = min(data.counts["train"], job.flags["limit"] or data.counts["train"])
        found = profile(settings.bound, shape, len(data.classes))
        costs = training_cost(settings, found, images, data.counts["val"], data.counts["test"])
        rates = self._rates(settings, job, settings.precision)
        exact = self._rates(settings, job, None) if settings.log_divergence else rates
        seconds = rates.seconds(costs.own + costs.beside) + exact.seconds(costs.exact) + costs.updates * rates.step
        left = 1.0 - _part_done(job, costs.updates // settings.bound.replays)
        kept = sum(table[0].numel() * 4 for table in found.memory.rows.values()) * images / 1e6  # beside the state
        copies = 6 if settings.ema else 3  # of the weights: the selected model, and the state with its momentum
        copies += settings.epochs // settings.save_every if settings.save_every else 0
        copies += (3 if settings.ema else 2) if settings.on_collapse == "rollback" else 0
        return costs.own.images * left, seconds * left, copies * rates.megabytes + kept

    def _model(self, job: Job) -> str | None:
        """Return the network of a training run: the one that its flags name, or that of its initial weights."""
        from bsk.training.initial import model_of

        named: str | None = job.flags["model"]
        start = job.flags["init"]
        if named is not None or start is None:
            return named
        if start in self._trained:
            return self._trained[start][0].model
        return model_of(Path(start)) if Path(start).exists() else None

    def _evaluate(self, job: Job) -> tuple[Passes, float, float]:
        """Return passes, seconds and megabytes of an evaluation or of `bsk starts`, both in fp32."""
        checkpoint, networks = job.checkpoint, len(job.flags.get("checkpoints") or [""])
        if not checkpoint:
            raise UsageError(f"plan: {job.target}: evaluate without a checkpoint; name one that an earlier job trains")
        if checkpoint not in self._trained:
            raise UsageError(f"plan: {job.target}: no earlier job trains {checkpoint}")
        settings, training = self._trained[checkpoint]
        data, shape = self._open(training.data)
        count = data.counts[job.flags.get("split", "test")]
        images = min(count, job.flags["limit"] or count)
        batch = job.flags["batch_size"] or rows_of_a_call(self.device, shape)
        radii = len(eps) if isinstance(eps := job.flags["eps"], list) else 1
        work = self._work(job, settings.eps, len(data.classes), images, batch) * (networks * radii)
        return work.images, self._rates(settings, training, None).seconds(work), 0.0

    def _work(self, job: Job, eps: float, classes: int, images: int, batch: int) -> Work:
        from bsk.attacks.flags import AttackFlags
        from bsk.attacks.registry import attack_named
        from bsk.training.costs import Work, attack_work, landings_work

        if job.command == "starts":
            return landings_work(o.starts_named(job.flags["start"]), images, batch)
        flags = AttackFlags(
            queries=job.flags["queries"], classes=classes, audit=job.flags.get("audit"), within=job.flags.get("within")
        )
        attacks = [attack_named(name, eps, flags) for name in job.flags["attack"].split(",")]
        return sum((attack_work(attack, images, batch) for attack in attacks), Work())

    def _open(self, path: str) -> tuple[DataFile, tuple[int, ...]]:
        from bsk.data.datasets import DATASETS
        from bsk.data.sources import expected
        from bsk.data.store import open_data

        if path not in self._data:
            job = self._prepared.get(path)
            if Path(path).exists() or job is None:
                data = open_data(Path(path))
                self._data[path] = data, data.stream("test").shape
            else:
                limits = job.flags["train_limit"], job.flags["test_limit"]
                self._data[path] = expected(job.flags["name"], Path(path), *limits), DATASETS[job.flags["name"]].shape
        return self._data[path]

    def _rates(self, settings: Settings, job: Job, precision: str | None) -> Rates:
        """Return the measured rates of a network, precision and number of threads; measured once, then cached.

        Without a precision they are those of evaluations: fp32 without TF32.
        """
        from bsk.compat import without_tf32
        from bsk.models.registry import build
        from bsk.training.costs import time_passes, time_step

        if self.device.type != "cuda":  # where there is no TF32
            precision = precision or "fp32"
        threads, (data, shape) = job.flags["threads"], self._open(job.data)
        key = (settings.model, job.data, precision, settings.batch_size, threads)
        if key not in self._timed:
            chosen_device(self.device.type, threads)
            shaped: dict[str, Any] = {"channels": shape[0], "size": shape[1], "mean": data.mean, "std": data.std}
            model = build(settings.model, classes=len(data.classes), device=self.device, **shaped)
            size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()) / 1e6
            with nullcontext() if precision else without_tf32():
                passes = time_passes(model, shape, precision or "fp32", settings.batch_size, self.device)
            self._timed[key] = Rates(passes, time_step(model, self.device), size)
        return self._timed[key]


def _startup(device: torch.device) -> float:
    """Return the start-up time of a job in seconds, measured on a process that makes the same imports."""
    import bsk

    modules = "torch, bsk.cli.app, bsk.evaluation.run, bsk.training.run"
    words = (
        f"from bsk.devices import load_torch; load_torch(); import {modules}; torch.empty(1, device={str(device)!r})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(bsk.__file__).parents[1]), *sys.path])}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", words], env=environment, check=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - start


def _part_done(job: Job, updates: int) -> float:
    """Return which part of an unfinished training run is done according to its saved state, 0 to 1."""
    from bsk.records.checkpoints import STATE
    from bsk.records.headers import load_header

    path = Path(job.target.removesuffix(".train.json") + ".last.safetensors")
    if Path(job.target).exists() or not path.exists():
        return 0.0
    progress = load_header(path, STATE).get("progress")
    step = progress.get("step") if isinstance(progress, dict) else None
    return min(1.0, step / updates) if isinstance(step, int) and step > 0 else 0.0
