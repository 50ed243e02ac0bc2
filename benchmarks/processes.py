"""The speed-up of an evaluation by a second process."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from benchmarks.steps import CPU
from bsk.attacks.registry import attack_named
from bsk.compat import keep_freed_memory
from bsk.data.processes import process_group
from bsk.data.store import DataFile, open_data
from bsk.evaluation.run import evaluate
from bsk.evaluation.settings import EvaluationSettings
from bsk.evaluation.subjects import Subject, foreign_subject, load_subject


def over_processes(weights: Path, data: Path, world: int, n: int, eps: float) -> float:
    """Return the seconds of `screen` on n images with `world` processes of one thread each, started as by torchrun.

    They do everything that `bsk evaluate --out F.jsonl` does, including the checks. Fixed costs are not timed: starting
    Python, loading, and a natural evaluation, after which all processes are synchronised.
    """
    context = mp.get_context("spawn")
    seconds = context.SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (world, port, weights, data, n, eps, seconds)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "r.jsonl"
        workers = [context.Process(target=_work, args=(rank, *arguments, out)) for rank in range(world)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            raise RuntimeError("a process of the measurement failed; see above")
        return max(float(seconds.get()) for _ in workers)


def _work(
    rank: int, world: int, port: int, weights: Path, data: Path, n: int, eps: float, seconds: Any, out: Path
) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    if world > 1:  # the environment that torchrun sets
        variables = {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in variables.items()})
    images = open_data(data)
    subject = _subject(weights, images)
    with process_group(CPU) as share:
        settings = EvaluationSettings(images, "test", n, eps, 0, 128, CPU, share)
        list(evaluate(subject, [attack_named("natural", eps)], settings, None, lambda *_: None))
        start = time.perf_counter()
        list(evaluate(subject, [attack_named("screen", eps)], settings, out, lambda *_: None))
        seconds.put(time.perf_counter() - start)


def _subject(weights: Path, images: DataFile) -> Subject:
    if weights.suffix == ".safetensors":
        return load_subject(weights, CPU)
    return foreign_subject("cnn-a", weights, images, None, None, CPU)
