"""`make bench`: each promise about speed, measured now."""

from __future__ import annotations

import statistics
import sys

import torch

from benchmarks.attacks import Evaluation
from benchmarks.autoattack import images, ours, over_processes, robust_cnn, theirs, trained_resnet
from benchmarks.memory import prepare_data_over_data
from benchmarks.steps import CPU, Plain, Subject, load_epoch
from benchmarks.timing import Elsewhere, Ratio, ratio
from bsk.models.memory import keep_freed_memory
from bsk.models.modes import device_name


def say(what: str, value: float, limit: str, kept: bool, detail: str = "") -> None:
    """Print a row: the figure, what was promised, whether it holds."""
    print(f"{what:<58} {value:7.3f}  {limit:<9} {'ok' if kept else 'NOT MET'}  {detail}", flush=True)


def spread(r: Ratio) -> str:
    """Return the range of the pairs and the medians."""
    return f"pairs {r.low:.2f} to {r.high:.2f}; {r.a:.4f} s and {r.b:.4f} s"


def main(repeats: int = 9) -> None:
    """Measure everything and print a row each."""
    keep_freed_memory()  # as every command of bsk does
    plain = Elsewhere(Plain, torch.get_num_threads())
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
    r = ratio(evaluation.attack, evaluation.passes, repeats)
    say("evaluate pgd-100 / its own passes bare (102F + 100Bi)", r.median, "<= 1.10", r.median <= 1.10, spread(r))
    over = prepare_data_over_data()
    say("peak memory of prepare-data / the data", over, "<= 2", over <= 2)
    autoattack()


def autoattack(pairs: int = 3) -> None:
    """Measure AutoAttack and RayS."""
    cnn, split = robust_cnn(), images(64)
    resnet, few = trained_resnet(images(2000)), images(32)
    for name, model, some, repeats, least in (("cnn_a", cnn, split, pairs, 5.0), ("resnet18-16", resnet, few, 1, 1.5)):
        runs = [(theirs(model, some), ours(model, some)) for _ in range(repeats)]
        faster = statistics.median(their[0] / our[0] for their, our in runs)
        (their, our) = runs[0]
        detail = f"{their[0]:.1f} s and {our[0]:.1f} s; {their[1]} and {our[1]} of {len(some.labels)} stand"
        say(f"pyautoattack / autoattack, {name}", faster, f">= {least}", faster >= least, detail)
        bare = statistics.median(our[0] / our[2].bare() for _, our in runs)
        say(f"autoattack / its own passes bare, {name}", bare, "<= 2.0", bare <= 2.0)
    runs_of_rays = [ours(cnn, split, "rays", queries=1000) for _ in range(pairs)]
    bare = statistics.median(seconds / recorder.bare() for seconds, _, recorder in runs_of_rays)
    say("rays / its own forwards bare, cnn_a", bare, "<= 1.4", bare <= 1.4)
    many = images(256)
    faster = statistics.median(over_processes(many, 1) / over_processes(many, 2) for _ in range(pairs))
    say("one process of one thread / two, screen, cnn_a", faster, ">= 1.7", faster >= 1.7)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
