"""`bsk train`: one model by one method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bsk.cli import options as o
from bsk.cli.console import emit_record
from bsk.cli.hyper import DEFAULT
from bsk.cli.signals import stop_requests
from bsk.devices import chosen_device, load_torch
from bsk.methods import registry
from bsk.signature import pairs
from bsk.terminal import note

_own = o.option


def train(
    method: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(registry.names())}, or module:function.",
            autocompletion=o.completing(registry.names),
        ),
    ] = DEFAULT,
    dataset: o.Dataset = "cifar10",
    data: o.DataPath = None,
    out: Annotated[Path | None, _own(help="F.safetensors [default: runs/DATASET-METHOD-SEED.safetensors].")] = None,
    model: Annotated[
        str | None,
        _own(
            help="resnet18, resnet18-W, ..., or module:function [default: the data's].",
            autocompletion=o.completing(lambda: o.MODELS),
        ),
    ] = None,
    eps: o.Eps = None,
    hyper: Annotated[
        list[str] | None, _own("--set", metavar="NAME=VALUE", help="A hyper-parameter of the method, as its own flag.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 100,
    batch_size: o.BatchSize = 128,
    schedule: Annotated[str, typer.Option(help="piecewise, cyclic or cosine, by iteration.")] = "piecewise",
    lr: Annotated[
        float | None, _own(parser=o.number, metavar="X", help="Peak learning rate [default: 0.1, cyclic 0.2].")
    ] = None,
    momentum: Annotated[float, typer.Option(min=0, max=1, help="Of SGD.")] = 0.9,
    weight_decay: Annotated[float, typer.Option(min=0, help="Of SGD, on all parameters.")] = 5e-4,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16; auto is bf16 where it is fast.")] = "auto",
    augment: Annotated[str | None, _own(help="crop-flip, flip or none [default: the data's].")] = None,
    select: Annotated[
        str, typer.Option(help="The split that selects the epoch: val, or test, the paper's own protocol.")
    ] = "val",
    log_divergence: Annotated[
        bool,
        _own("--log-divergence", help="Log each epoch how far start and ascent move the output; nothing else changes."),
    ] = False,
    ema: Annotated[
        float, _own(min=0, max=1, metavar="DECAY", help="Save a moving average of the weights too, e.g. 0.999.")
    ] = 0.0,
    label_smoothing: Annotated[float, _own(min=0, max=1, metavar="X", help="Of the labels, in training.")] = 0.0,
    awp: Annotated[
        float,
        _own(min=0, metavar="GAMMA", help="Adversarial weight perturbation, e.g. 0.005; takes the outer loss twice."),
    ] = 0.0,
    warmup: Annotated[float, _own(min=0, metavar="EPOCHS", help="Let the learning rate rise at first.")] = 0.0,
    on_collapse: Annotated[
        str,
        typer.Option(help="At catastrophic overfitting: warn, stop (exit 4), or rollback to the last good weights."),
    ] = "warn",
    limit: o.Limit = None,
    seed: o.Seed = 1,
    device: o.Device = "auto",
    threads: o.Threads = None,
    force: o.Force = False,
    quiet: o.Quiet = False,
) -> None:
    """Train a classifier by one method.

    The same command again goes on where it was stopped. Writes F.safetensors (the epoch that is best under PGD-20
    on held-out val images), F.last.safetensors (all that going on needs) and F.jsonl (the log), and prints one JSON
    record. Each method has flags of its own, below those of all: bsk train --method liet --help. Several GPUs:
    torchrun --nproc-per-node=N -m bsk train ...

    --select test selects on the first 2,560 test images instead, as the authors do: numbers on test are then too
    high, and files and tables say best-on-test.

    With --ema F.ema.safetensors and F.ema-last.safetensors are the moving average of the weights, in the epoch that is
    best for it and in the last.

    With --log-divergence an epoch in the log has kl_start and kl_ascent: the mean KL divergence, in nats, of the
    output at x from that after the method's start, and after its whole ascent, on the first 256 val images.

        bsk train --method bs --gamma 1 --beta 10 --step 8/255
        bsk train --method trades --dataset digits --epochs 30 --schedule cyclic
        bsk train --method fast-at --start backward --gamma 2 --out runs/mine.safetensors
        bsk train --method mycode:my_method --set alpha=0.5
    """
    load_torch()
    from bsk.data.processes import local_device, process_group
    from bsk.data.sources import open_dataset
    from bsk.progress import TrainingProgress
    from bsk.training.run import run
    from bsk.training.settings import resolve

    where = local_device(chosen_device(device, threads))
    found = open_dataset(dataset, data)
    settings = resolve(
        found,
        where,
        method=method,
        hyper=pairs(hyper or []),
        model=model,
        eps=eps,
        epochs=epochs,
        batch_size=batch_size,
        schedule=schedule,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        precision=precision,
        augment=augment,
        seed=seed,
        select=select,
        log_divergence=log_divergence,
        ema=ema,
        label_smoothing=label_smoothing,
        awp=awp,
        warmup=warmup,
        on_collapse=on_collapse,
    )
    checkpoint = out or Path("runs") / f"{found.name}-{method.replace(':', '-')}-{seed}.safetensors"
    with process_group(where) as share, stop_requests(note) as stopping, TrainingProgress(share.rank == 0) as watcher:
        record = run(
            settings,
            found,
            o.checked_suffix(checkpoint),
            device=where,
            watcher=watcher,
            share=share,
            force=force,
            limit=limit,
            stopping=stopping,
        )
        if share.rank == 0:
            emit_record(record)
