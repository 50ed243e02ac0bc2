"""The cost of AutoAttack and RayS, compared with the authors' code and with their passes alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

from benchmarks.steps import CPU
from bsk.attacks.flags import AttackFlags
from bsk.attacks.outcome import Outcome
from bsk.attacks.registry import Attack, attack_named
from bsk.compat import keep_freed_memory
from bsk.data.store import Split
from bsk.evaluation.calls import exact
from bsk.evaluation.verdicts import judge
from bsk.perturb.ascent import Model

SAMPLE = 20  # calls of one kind that are timed


class Calls:
    """Counts of the model calls that the stages of an attack make, by batch size and whether a gradient is needed."""

    def __init__(self, images: Tensor) -> None:
        """Start with no calls, for images of the shape of these (N, C, H, W)."""
        self.kinds: Counter[tuple[int, bool]] = Counter()
        self.shape = images.shape[1:]

    def of(self, attack: Attack) -> Attack:
        """Return the attack with all model calls of its stages counted here."""
        return replace(attack, stages=tuple(replace(stage, run=self._counted(stage.run)) for stage in attack.stages))

    def _counted(self, run: Callable[..., Outcome]) -> Callable[..., Outcome]:
        def counted(model: Model, *arguments: Any, **parameters: Any) -> Outcome:
            def forward(x: Tensor) -> Tensor:
                self.kinds[len(x), x.requires_grad] += 1
                return model(x)

            return run(forward, *arguments, **parameters)

        return counted

    def bare(self, model: nn.Module) -> float:
        """Return the seconds that the passes alone take, a lower bound for the algorithm.

        Every call is replayed with the batch size that its stage asked for, without the rows with which bsk fills the
        batch, and with a backward pass to the images where the stage needed a gradient. There is no loss, step,
        projection or selection of images. Of each kind of call up to 20 are timed, and their mean is used for all.
        """
        x = torch.rand(max(n for n, _ in self.kinds), *self.shape).contiguous(memory_format=torch.channels_last)
        with exact(model):
            _pass(model, x, True)
            return sum(count * _mean(model, x[:n], gradient, count) for (n, gradient), count in self.kinds.items())


def _mean(model: nn.Module, x: Tensor, gradient: bool, count: int) -> float:
    times = min(count, SAMPLE)
    start = time.perf_counter()
    for _ in range(times):
        _pass(model, x, gradient)
    return (time.perf_counter() - start) / times


def _pass(model: nn.Module, x: Tensor, gradient: bool) -> None:
    leaf = x.detach().requires_grad_(gradient)
    with torch.set_grad_enabled(gradient):
        logits = model(leaf)
    if gradient:
        torch.autograd.grad(logits.sum(), leaf)


def ours(
    model: nn.Module, split: Split, eps: float, name: str = "autoattack", **flags: int
) -> tuple[float, int, Calls]:
    """Return the seconds, the number of standing examples and the calls of an attack, run as in `bsk evaluate`."""
    keep_freed_memory()
    calls = Calls(split.images)
    attack = calls.of(attack_named(name, eps, AttackFlags(**flags)))  # type: ignore[arg-type]
    start = time.perf_counter()
    ledger = judge(model, split, attack, eps=eps, seed=0, batch_size=128, device=CPU)
    return time.perf_counter() - start, int(ledger.standing.sum()), calls


def theirs(model: nn.Module, split: Split, eps: float) -> tuple[float, int]:
    """Return the seconds and the number of standing examples of the authors' standard version, in its own process."""
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    worker = context.Process(target=_theirs, args=(model, split, eps, torch.get_num_threads(), results))
    worker.start()
    worker.join()
    if worker.exitcode:
        raise RuntimeError("pyautoattack failed; see above")
    seconds, standing = results.get()
    return float(seconds), int(standing)


def _theirs(model: nn.Module, split: Split, eps: float, threads: int, results: Any) -> None:
    import pyautoattack

    torch.set_num_threads(threads)
    model = model.to(memory_format=torch.contiguous_format)
    x, y = (split.images.float() / 255).contiguous(), split.labels
    engine = pyautoattack.AutoAttack(model, norm="Linf", eps=eps, version="standard", seed=0, device="cpu")
    with torch.no_grad():
        model(x)
    start = time.perf_counter()
    x_adv, _ = engine.run_standard_evaluation(x, y, batch_size=250)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        standing = int((model(x_adv).argmax(dim=1) == y).sum())
    results.put((seconds, standing))
