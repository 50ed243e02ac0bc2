"""The cost of an update by method: `python -m benchmarks.methods --device cuda --model resnet18`."""

from __future__ import annotations

import argparse

import torch

from benchmarks.steps import BATCH, MODEL, Subject
from benchmarks.timing import ratio
from bsk.devices import device_name

METHODS = ("bs", "fast-at", "n-fgsm", "liet", "fast-trades", "fast-trades-2", "at", "trades")


def main() -> None:
    """Print one row per method: passes per image, milliseconds per update, and ratios to its bare passes and to bs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--precision", default="auto", help="auto, fp32, bf16, fp16")
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    subjects = {name: Subject(name, given.precision, given.model, device, given.batch_size) for name in METHODS}
    print(
        f"{device_name(device)}, {given.threads} threads, {given.model}, {subjects['bs'].precision}, batch "
        f"{given.batch_size}, torch {torch.__version__}, medians of {given.repeats} interleaved pairs"
    )
    print("method\tpasses\tms\tover_bare\tover_bs\tlow\thigh")
    for name, subject in subjects.items():
        passes = subject.profile.passes
        forward, to_input, full = int(passes.forward), int(passes.to_input), int(passes.full)

        def bare(it: Subject = subject, counts: tuple[int, int, int] = (forward, to_input, full)) -> None:
            it.passes(*counts)

        over_bare = ratio(subject.step, bare, given.repeats)
        over_bs = ratio(subject.step, subjects["bs"].step, given.repeats)
        cells = [over_bs.a * 1000, over_bare.median, over_bs.median, over_bs.low, over_bs.high]
        print(name, f"{forward}F+{to_input}Bi+{full}Bf", *(f"{cell:.3f}" for cell in cells), sep="\t", flush=True)


if __name__ == "__main__":
    main()
