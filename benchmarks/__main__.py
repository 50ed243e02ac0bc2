"""Measure every promise about speed (`make bench`): `python -m benchmarks [CHECKOUT] --repeats 7`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks.attacks import Evaluation
from benchmarks.evaluations import attacks
from benchmarks.material import material
from benchmarks.memory import prepare_data_over_data
from benchmarks.reading import reading
from benchmarks.shared_machine import WORKS, report
from benchmarks.steps import CPU, PlainStep, Subject, load_epoch
from benchmarks.timing import Elsewhere, ratio, say, spread
from bsk.compat import keep_freed_memory
from bsk.devices import device_name
from bsk.training.monitor import every


def main(other: Path | None, repeats: int) -> None:
    """Run all benchmarks and print one row for each."""
    keep_freed_memory()  # like every command of bsk
    plain = Elsewhere(PlainStep, torch.get_num_threads())
    bs, trades, evaluation = Subject("bs"), Subject("trades"), Evaluation()
    print(
        f"{device_name(CPU)}, {torch.get_num_threads()} threads, {bs.precision}, torch {torch.__version__}, "
        f"medians of {repeats} interleaved pairs",
        flush=True,
    )
    r = ratio(bs.step, lambda: bs.passes(4, 2, 2), repeats)
    say("bs step / its bare passes (4F + 2Bi + 2Bf)", r.median, "<= 1.10", r.median <= 1.10, spread(r))
    r = ratio(plain.step, bs.step, repeats)
    least = 1.5 if bs.precision == "fp32" else 2.5
    say(f"plain fp32 bs step / bsk's in {bs.precision}", r.median, f">= {least}", r.median >= least, spread(r))
    r = ratio(trades.step, bs.step, repeats)
    say("trades step / bs step", r.median, ">= 2.5", r.median >= 2.5, spread(r))
    r = ratio(load_epoch, bs.step, repeats)
    say("loading and augmenting a batch / bs step", r.median / 20, "< 0.03", r.median / 20 < 0.03, spread(r))
    r = ratio(bs.averages, bs.step, repeats)
    say("updating the weight average (--ema) / bs step", r.median / 20, "< 0.02", r.median / 20 < 0.02, spread(r))
    r, updates = ratio(bs.look, bs.step, repeats), every(bs.settings, bs.profile)
    over = r.median / updates
    say(f"a check of the monitor / the {updates} bs steps between checks", over, "< 0.02", over < 0.02, spread(r))
    r = ratio(evaluation.attack, evaluation.passes, repeats)
    say("evaluate pgd-100 / its bare passes (102F + 100Bi)", r.median, "<= 1.10", r.median <= 1.10, spread(r))
    over = prepare_data_over_data()
    say("peak memory of prepare-data / size of the data", over, "<= 2", over <= 2)
    reading(repeats)
    with tempfile.TemporaryDirectory() as folder:
        attacks(material(Path(folder)), other)
    for work in WORKS:
        report(work, repeats, other)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", nargs="?", type=Path, help="another build, run in turns with this one")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    main(given.checkout, given.repeats)
