"""`make bench`: each promise about speed, measured now."""

from __future__ import annotations

import sys

import torch

from benchmarks.attacks import Evaluation
from benchmarks.memory import prepare_data_over_data
from benchmarks.steps import CPU, Plain, Subject, load_epoch
from benchmarks.timing import Ratio, ratio
from bsk.models.modes import device_name


def say(what: str, value: float, limit: str, kept: bool, detail: str = "") -> None:
    """Print a row: the figure, what was promised, whether it holds."""
    print(f"{what:<58} {value:7.3f}  {limit:<9} {'ok' if kept else 'NOT MET'}  {detail}", flush=True)


def spread(r: Ratio) -> str:
    """Return the range of the pairs and the medians."""
    return f"pairs {r.low:.2f} to {r.high:.2f}; {r.a:.4f} s and {r.b:.4f} s"


def main(repeats: int = 9) -> None:
    """Measure everything and print a row each."""
    bs, trades, plain, evaluation = Subject("bs"), Subject("trades"), Plain(), Evaluation()
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


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
