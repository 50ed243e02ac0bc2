"""What AutoAttack and RayS cost: against the authors' code, against their own passes run bare, over processes."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

from benchmarks.attacks import small_cnn
from benchmarks.steps import CIFAR, CPU, random_images
from bsk.attacks.registry import Flags, attack_named
from bsk.data.batches import Share, to_unit
from bsk.data.sources import prepare
from bsk.data.store import Split, open_data
from bsk.evaluation.verdicts import exact, judge
from bsk.models.foreign import foreign_model
from bsk.models.memory import keep_freed_memory
from bsk.models.registry import build

EPS = 2 / 255
SHARED = Path(os.environ.get("BSK_SHARED", Path(__file__).parents[2] / "shared"))


def images(n: int) -> Split:
    """Return n real CIFAR-10 test images where they are at hand, else random ones."""
    archive = SHARED / "data" / "cifar10-subset-exact-python.tar.gz"
    if not archive.exists():
        pixels, labels = random_images(n)
        return Split(pixels, labels, torch.arange(n))
    with tempfile.TemporaryDirectory() as folder:
        prepare("cifar10", str(archive), Path(folder) / "c.safetensors")
        return open_data(Path(folder) / "c.safetensors").split("test", n)


def robust_cnn() -> nn.Module:
    """Return the adversarially trained cnn_a where it is at hand, else the same network untrained."""
    weights = SHARED / "models" / "cnn_a_adv.model"
    if weights.exists():
        return foreign_model("cnn-a", weights, classes=10, channels=3, size=32, device=CPU).model
    return small_cnn()


def trained_resnet(train: Split) -> nn.Module:
    """Return a resnet18-16 after 200 updates of Fast AT's kind: enough that some images stand at 2/255."""
    model = build("resnet18-16", classes=10, channels=3, size=32, mean=CIFAR.mean, std=CIFAR.std, seed=1)
    optimiser = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    order = torch.Generator().manual_seed(0)
    for _ in range(200):
        rows = torch.randint(0, len(train.labels), (64,), generator=order)
        x, y = to_unit(train.take(rows)), train.labels[rows]
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(leaf), y), leaf)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model((x + EPS * gradient.sign()).clamp(0, 1)), y).backward()
        optimiser.step()
    return model.eval()


class Recorder(nn.Module):
    """Passes images on, and remembers how many came each time, and if their gradient was wanted."""

    def __init__(self, model: nn.Module) -> None:
        """Wrap a model."""
        super().__init__()
        self.model = model
        self.calls: list[tuple[int, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        self.calls.append((len(x), x.requires_grad))
        logits: Tensor = self.model(x)
        return logits

    def bare(self) -> float:
        """Return the seconds that the same calls take with nothing between them."""
        x = torch.rand(max(n for n, _ in self.calls), 3, 32, 32).contiguous(memory_format=torch.channels_last)
        with exact(self.model):
            start = time.perf_counter()
            for n, wanted in self.calls:
                leaf = x[:n].detach().requires_grad_(wanted)
                if wanted:
                    torch.autograd.grad(self.model(leaf).sum(), leaf)
                else:
                    with torch.no_grad():
                        self.model(leaf)
            return time.perf_counter() - start


def ours(model: nn.Module, split: Split, name: str = "autoattack", **flags: int) -> tuple[float, int, Recorder]:
    """Return seconds, examples left standing and the calls of an attack as `bsk evaluate` runs it."""
    keep_freed_memory()
    recorder = Recorder(model)
    attack = attack_named(name, EPS, Flags(**flags))  # type: ignore[arg-type]
    start = time.perf_counter()
    ledger = judge(recorder, split, attack, eps=EPS, seed=0, batch_size=128, device=CPU)
    return time.perf_counter() - start, int(ledger.standing.sum()), recorder


def theirs(model: nn.Module, split: Split) -> tuple[float, int]:
    """Return seconds and examples left standing of the authors' standard version, in a process of its own."""
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    worker = context.Process(target=_theirs, args=(model, split, torch.get_num_threads(), results))
    worker.start()
    seconds, standing = results.get()
    worker.join()
    return float(seconds), int(standing)


def _theirs(model: nn.Module, split: Split, threads: int, results: Any) -> None:
    import pyautoattack

    torch.set_num_threads(threads)
    model = model.to(memory_format=torch.contiguous_format)
    x, y = (split.images.float() / 255).contiguous(), split.labels
    engine = pyautoattack.AutoAttack(model, norm="Linf", eps=EPS, version="standard", seed=0, device="cpu")
    with torch.no_grad():
        model(x)
    start = time.perf_counter()
    x_adv, _ = engine.run_standard_evaluation(x, y, batch_size=250)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        standing = int((model(x_adv).argmax(dim=1) == y).sum())
    results.put((seconds, standing))


def over_processes(split: Split, world: int) -> float:
    """Return the seconds of `world` processes of one thread that share an evaluation, from ready to done."""
    context = mp.get_context("spawn")
    ready, seconds = context.Barrier(world), context.Queue()
    workers = [context.Process(target=_share, args=(rank, world, split, ready, seconds)) for rank in range(world)]
    for worker in workers:
        worker.start()
    longest = max(float(seconds.get()) for _ in workers)
    for worker in workers:
        worker.join()
    return longest


def _share(rank: int, world: int, split: Split, ready: Any, seconds: Any) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    model, share = robust_cnn(), Share(rank, world)
    mine = Split(*(share.of(part) for part in (split.images, split.labels, split.index)))
    attack = attack_named("screen", EPS)
    judge(
        model,
        Split(mine.images[:8], mine.labels[:8], mine.index[:8]),
        attack,
        eps=EPS,
        seed=0,
        batch_size=128,
        device=CPU,
    )
    ready.wait()
    start = time.perf_counter()
    judge(model, mine, attack, eps=EPS, seed=0, batch_size=128, device=CPU)
    seconds.put(time.perf_counter() - start)
