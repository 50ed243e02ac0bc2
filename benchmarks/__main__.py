"""`make bench`: each promise about speed, measured now."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.attacks import Evaluation
from benchmarks.autoattack import ours, theirs
from benchmarks.material import Material, Model, material
from benchmarks.memory import prepare_data_over_data
from benchmarks.processes import over_processes
from benchmarks.steps import CPU, PlainStep, Subject, load_epoch
from benchmarks.timing import Elsewhere, Ratio, ratio
from bsk.compat import keep_freed_memory
from bsk.data.store import Split
from bsk.devices import device_name
from bsk.training.monitor import every


def say(what: str, value: float, limit: str, kept: bool, detail: str = "") -> None:
    """Print a row: the figure, what was promised, whether it holds."""
    print(f"{what:<84} {value:7.3f}  {limit:<9} {'ok' if kept else 'NOT MET'}  {detail}", flush=True)


def spread(r: Ratio) -> str:
    """Return the range of the pairs and the medians."""
    return f"pairs {r.low:.2f} to {r.high:.2f}; {r.a:.4f} s and {r.b:.4f} s"


def main(repeats: int = 7) -> None:
    """Measure everything and print a row each."""
    keep_freed_memory()  # as every command of bsk does
    plain = Elsewhere(PlainStep, torch.get_num_threads())
    bs, trades, evaluation = Subject("bs"), Subject("trades"), Evaluation()
    print(
        f"{device_name(CPU)}, {torch.get_num_threads()} threads, {bs.precision}, torch {torch.__version__}, "
        f"medians of {repeats} interleaved pairs",
        flush=True,
    )
    r = ratio(bs.step, lambda: bs.passes(4, 2, 2), repeats)
    say("bs step / its own passes bare (4F + 2Bi + 2Bf)", r.median, "<= 1.10", r.median <= 1.10, spread(r))
    r = ratio(plain.step, bs.step, repeats)
    say(f"plain fp32 bs step / bsk's in {bs.precision}", r.median, ">= 2.5", r.median >= 2.5, spread(r))
    r = ratio(trades.step, bs.step, repeats)
    say("trades step / bs step", r.median, ">= 2.5", r.median >= 2.5, spread(r))
    r = ratio(load_epoch, bs.step, repeats)
    say("loading and augmenting a batch / bs step", r.median / 20, "< 0.03", r.median / 20 < 0.03, spread(r))
    r = ratio(bs.averages, bs.step, repeats)
    say("the moving average of an update (--ema) / bs step", r.median / 20, "< 0.02", r.median / 20 < 0.02, spread(r))
    r, updates = ratio(bs.look, bs.step, repeats), every(bs.settings, bs.profile)
    over = r.median / updates
    say(f"a look of the monitor / the {updates} bs steps between looks", over, "< 0.02", over < 0.02, spread(r))
    r = ratio(evaluation.attack, evaluation.passes, repeats)
    say("evaluate pgd-100 / its own passes bare (102F + 100Bi)", r.median, "<= 1.10", r.median <= 1.10, spread(r))
    over = prepare_data_over_data()
    say("peak memory of prepare-data / the data", over, "<= 2", over <= 2)
    with tempfile.TemporaryDirectory() as folder:
        attacks(material(Path(folder)))


def attacks(given: Material) -> None:
    """Measure AutoAttack and RayS: a small network at 2/255, and one that `bsk train` made at its own radius."""
    small, trained = given.small(), given.trained()
    autoattack(small, given.images(64), 2 / 255, 2, 5.0)
    autoattack(trained, given.images(64), 8 / 255, 1, 1.5)
    runs = [with_bare(small, given.images(64), 2 / 255, "rays", queries=1000) for _ in range(3)]
    over = statistics.median(seconds / alone for seconds, _, alone in runs)
    say(f"rays / its own forwards bare, {small.name}, 64 images", over, "<= 1.4", over <= 1.4)
    pairs = [[over_processes(small.path, given.data.path, world, 256, 2 / 255) for world in (1, 2)] for _ in range(2)]
    faster, detail = statistics.median(one / two for one, two in pairs), "{:.1f} s and {:.1f} s".format(*pairs[0])
    say(f"one process of one thread / two, screen, {small.name}, 256 images", faster, ">= 1.7", faster >= 1.7, detail)


def autoattack(model: Model, images: Split, eps: float, pairs: int, least: float) -> None:
    """Measure AutoAttack against the authors' code, at least so many times as fast, and against its passes."""
    name = f"{model.name}, {len(images.labels)} images, {round(eps * 255)}/255"
    runs = [(theirs(model.model, images, eps), with_bare(model, images, eps)) for _ in range(pairs)]
    faster = statistics.median(their / our for (their, _), (our, _, _) in runs)
    over = statistics.median(our / alone for _, (our, _, alone) in runs)
    (their, they_leave), (our, we_leave, alone) = runs[0]
    detail = f"{their:.1f} s and {our:.1f} s; {they_leave} and {we_leave} stand"
    say(f"pyautoattack / autoattack, {name}", faster, f">= {least}", faster >= least, detail)
    say(f"autoattack / its own passes bare, {name}", over, "<= 2.0", over <= 2.0, f"{our:.1f} s and {alone:.1f} s")


def with_bare(
    model: Model, images: Split, eps: float, name: str = "autoattack", **flags: int
) -> tuple[float, int, float]:
    """Return seconds of an attack of bsk, examples left standing, and seconds of its passes bare, right after."""
    seconds, standing, calls = ours(model.model, images, eps, name, **flags)
    return seconds, standing, calls.bare(model.model)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
