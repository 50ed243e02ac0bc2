"""What AutoAttack and RayS cost: against the authors' code, and against their own passes run bare."""

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
    """The model calls that the stages of an attack ask for: how often with how many rows, and if for a gradient."""

    def __init__(self, images: Tensor) -> None:
        """Begin with none, of images like these (N, C, H, W)."""
        self.kinds: Counter[tuple[int, bool]] = Counter()
        self.shape = images.shape[1:]

    def of(self, attack: Attack) -> Attack:
        """Return the attack with the calls of its stages counted here, as they come from the stages."""
        return replace(attack, stages=tuple(replace(stage, run=self._heard(stage.run)) for stage in attack.stages))

    def _heard(self, run: Callable[..., Outcome]) -> Callable[..., Outcome]:
        def heard(model: Model, *arguments: Any, **parameters: Any) -> Outcome:
            def forward(x: Tensor) -> Tensor:
                self.kinds[len(x), x.requires_grad] += 1
                return model(x)

            return run(forward, *arguments, **parameters)

        return heard

    def bare(self, model: nn.Module) -> float:
        """Return the seconds that the passes alone take, which the algorithm cannot do without.

        Every call is replayed with the rows that its stage asked for, not those that `bsk` fills the batch up with:
        forward, and back to the images where the stage wanted the gradient. Nothing is done before, between or after:
        no loss, no step, no projection, no choice of who stays. Of each kind of call up to 20 are timed, and their
        mean stands for all of the kind.
        """
        x = torch.rand(max(n for n, _ in self.kinds), *self.shape).contiguous(memory_format=torch.channels_last)
        with exact(model):
            _pass(model, x, True)
            return sum(count * _mean(model, x[:n], wanted, count) for (n, wanted), count in self.kinds.items())


def _mean(model: nn.Module, x: Tensor, wanted: bool, count: int) -> float:
    times = min(count, SAMPLE)
    start = time.perf_counter()
    for _ in range(times):
        _pass(model, x, wanted)
    return (time.perf_counter() - start) / times


def _pass(model: nn.Module, x: Tensor, wanted: bool) -> None:
    leaf = x.detach().requires_grad_(wanted)
    with torch.set_grad_enabled(wanted):
        logits = model(leaf)
    if wanted:
        torch.autograd.grad(logits.sum(), leaf)


def ours(
    model: nn.Module, split: Split, eps: float, name: str = "autoattack", **flags: int
) -> tuple[float, int, Calls]:
    """Return seconds, examples left standing and the calls of an attack as `bsk evaluate` runs it."""
    keep_freed_memory()
    calls = Calls(split.images)
    attack = calls.of(attack_named(name, eps, AttackFlags(**flags)))  # type: ignore[arg-type]
    start = time.perf_counter()
    ledger = judge(model, split, attack, eps=eps, seed=0, batch_size=128, device=CPU)
    return time.perf_counter() - start, int(ledger.standing.sum()), calls


def theirs(model: nn.Module, split: Split, eps: float) -> tuple[float, int]:
    """Return seconds and examples left standing of the authors' standard version, in a process of its own."""
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    worker = context.Process(target=_theirs, args=(model, split, eps, torch.get_num_threads(), results))
    worker.start()
    seconds, standing = results.get()
    worker.join()
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
