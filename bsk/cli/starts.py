"""`bsk starts`: where the starts of training's perturbations land in output space."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from bsk.cli import options as o
from bsk.cli.console import emit_record
from bsk.devices import chosen_device, load_torch, rows_of_a_call
from bsk.terminal import Bar
from bsk.values import above_zero, checked_eps, one_of


def starts(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A file that bsk train wrote.")],
    start: Annotated[
        str,
        typer.Option(
            metavar="S[,S...]",
            help=f"{', '.join(o.STARTS)}; in the order of the records.",
            autocompletion=o.completing(lambda: o.STARTS),
        ),
    ] = "uniform,backward",
    dataset: o.DatasetOfModel = None,
    data: o.DataPath = None,
    split: o.SplitName = "test",
    eps: o.Eps = None,
    gamma: Annotated[
        float | None, o.option(parser=o.number, metavar="X", help="Of the backward start [default: the model's].")
    ] = None,
    limit: o.Limit = None,
    batch_size: o.Rows = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the starts' random numbers.")] = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    quiet: o.Quiet = False,
) -> None:
    """Tell where starts land in output space.

    Prints one JSON record for each image and start: the clean `logits`, the `landed` ones after the start alone (no
    ascent), the KL divergence between the two in nats, and for backward the `target` f(x) + gamma psi that its step
    went towards; the step is eps.

        bsk starts runs/bs.safetensors --limit 500 > starts.jsonl
        bsk plot landings starts.jsonl --out figure4.png
    """
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes that torchrun starts, one tells it
    load_torch()
    from bsk.data.sources import open_dataset
    from bsk.evaluation.settings import EvaluationSettings
    from bsk.evaluation.start_outputs import landings
    from bsk.evaluation.subjects import load_subject

    names = o.starts_named(start)
    one_of("split", split, ["test", "val", "train"])
    where = chosen_device(device, threads)
    subject = load_subject(checkpoint, where)
    opened = open_dataset(dataset or subject.header["dataset"], data)
    radius = checked_eps(subject.header["eps"] if eps is None else eps)
    own = subject.header["flags"].get("gamma")  # of a method from outside it may be anything
    size = gamma if gamma is not None else float(own) if isinstance(own, (int, float)) else 1.0
    above_zero(or_zero=True, gamma=size)
    rows = batch_size or rows_of_a_call(where)
    settings = EvaluationSettings(opened, split, limit, radius, seed, rows, where)
    with closing(Bar(checkpoint.name)) as bar:
        for record in landings(subject, names, settings, size, bar.show):
            emit_record(record)
