"""`bsk starts`: where the starting points of training perturbations land in output space."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from bsk.cli import options as o
from bsk.cli.console import emit_record
from bsk.devices import chosen_device, load_torch, rows_of_a_call
from bsk.terminal import Bar, note
from bsk.values import above_zero, checked_eps, one_of


def starts(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint of bsk train.")],
    start: Annotated[
        str,
        typer.Option(
            metavar="S[,S...]",
            help=f"{', '.join(o.STARTS)}; records keep this order.",
            autocompletion=o.completing(lambda: o.STARTS),
        ),
    ] = "uniform,backward",
    dataset: o.DatasetOfModel = None,
    data: o.DataPath = None,
    model: Annotated[
        str | None, o.option(metavar="module:function", help="The code of the network in CKPT, if it is not of bsk.")
    ] = None,
    split: o.SplitName = "test",
    eps: o.Eps = None,
    gamma: Annotated[
        float | None, o.option(parser=o.number, metavar="X", help="Gamma of the backward start [default: the model's].")
    ] = None,
    limit: o.Limit = None,
    batch_size: o.Rows = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Random seed.")] = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Measure where starting points land in output space.

    Prints one JSON record per image and start: `logits` at x, `landed`, the logits after the start alone (no ascent),
    and `kl`, the KL divergence between them in nats. For backward, `target` is f(x) + gamma psi, the point that its
    step of size eps aims at.

        bsk starts runs/bs.safetensors --limit 500 > starts.jsonl
        bsk plot landings starts.jsonl --out figure4.png
    """
    if os.environ.get("RANK", "0") != "0":
        return  # under torchrun only the first process prints
    load_torch()
    from bsk.data.sources import open_dataset
    from bsk.evaluation.flags import ModelFlags
    from bsk.evaluation.settings import EvaluationSettings, trained_on
    from bsk.evaluation.start_outputs import landings
    from bsk.evaluation.subjects import load_subject

    names = o.starts_named(start)
    one_of("split", split, ["test", "val", "train"])
    where = chosen_device(device, threads)
    subject = load_subject(checkpoint, where, model)
    for notice in subject.notices:
        note(notice)
    flags = ModelFlags(dataset=dataset, data=data)
    opened = open_dataset(dataset or subject.header["dataset"], data or trained_on(subject, flags))
    radius = checked_eps(subject.header["eps"] if eps is None else eps)
    own = subject.header["flags"].get("gamma")  # of a user's own method this may be anything
    size = gamma if gamma is not None else float(own) if isinstance(own, (int, float)) else 1.0
    above_zero(or_zero=True, gamma=size)
    rows = batch_size or rows_of_a_call(where, opened.stream(split, limit).shape)
    settings = EvaluationSettings(opened, split, limit, radius, seed, rows, where)
    with closing(Bar(checkpoint.name, not sys.stdout.isatty())) as bar:  # the printed lines show the progress there
        for record in landings(subject, names, settings, size, bar.show):
            emit_record(record)
