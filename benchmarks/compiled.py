"""Compiled and eager passes of a network, timed in turns: `python -m benchmarks.compiled [--model M] [--rows N]`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.timing import ratio
from bsk.devices import chosen_device, device_name
from bsk.models.compiled import Compiled
from bsk.models.modes import folded_eval_mode, in_precision
from bsk.models.registry import network
from bsk.perturb.losses import cross_entropy, input_gradient

Kinds = dict[str, Callable[[bool], object]]


def kinds(model: nn.Module, forms: Compiled, precision: str, x: Tensor, y: Tensor) -> Kinds:
    """Return the kinds of passes in training, as functions of whether the pass is compiled."""
    frozen, trained, plain = (in_precision(each, precision) for each in (forms.frozen, forms.trained, model))

    def forward(compiled: bool) -> object:
        with torch.no_grad():
            if compiled:
                return frozen(x)
            with folded_eval_mode(model):
                return plain(x)

    def attack(compiled: bool) -> object:
        if compiled:
            return input_gradient(frozen, x, y)
        with folded_eval_mode(model):
            return input_gradient(plain, x, y)

    def learn(compiled: bool) -> object:
        loss = cross_entropy((trained if compiled else plain)(x), y).sum()
        return torch.autograd.grad(loss, [*model.parameters()])

    return {"forward": forward, "to the image": attack, "to all weights": learn}


def main() -> None:
    """Print the median milliseconds of each kind of pass in each precision, and the time to compile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18-16")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=9)
    given = parser.parse_args()
    device = chosen_device()
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{device_name(device)}, {threads}; {given.model}, {given.rows} images {given.side} x {given.side}")
    print("precision\tpass\tms\tcompiled_ms\tover\tlow\thigh\tcompile_seconds", flush=True)
    x = torch.rand(given.rows, 3, given.side, given.side, device=device).contiguous(memory_format=torch.channels_last)
    y = torch.arange(given.rows, device=device) % 10
    for precision in ("fp32", "bf16"):
        model: nn.Module = network(given.model, 10, 3, (given.side, given.side)).to(device).train()
        model = model.to(memory_format=torch.channels_last)
        forms = Compiled(model, given.rows, device, print)
        for name, run in kinds(model, forms, precision, x, y).items():
            r = ratio(lambda run=run: run(True), lambda run=run: run(False), given.pairs)  # type: ignore[misc]
            cells = [f"{1000 * r.b:.1f}", f"{1000 * r.a:.1f}", f"{r.median:.3f}", f"{r.low:.3f}", f"{r.high:.3f}"]
            print(precision, name, *cells, f"{forms.spent():.1f}", sep="\t", flush=True)


if __name__ == "__main__":
    main()
