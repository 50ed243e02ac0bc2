"""`bsk train`: one model by one method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bsk.cli import options as o
from bsk.cli.console import emit_record
from bsk.cli.signals import stop_requests
from bsk.devices import chosen_device, load_torch
from bsk.errors import UsageError
from bsk.terminal import note
from bsk.values import above_zero, checked_eps, one_of

if TYPE_CHECKING:
    from bsk.data.store import DataFile
    from bsk.training.settings import Settings

_own = o.option
AXES = ("start", "inner", "outer", "steps", "step", "beta", "ramp", "gamma", "noise", "bound", "replays")  # of a row


def train(
    method: Annotated[
        str,
        typer.Option(help=f"One of {', '.join(o.METHODS)}.", autocompletion=o.completing(lambda: o.METHODS)),
    ] = "bs",
    dataset: o.Dataset = "cifar10",
    data: o.DataPath = None,
    out: Annotated[Path | None, _own(help="F.safetensors [default: runs/DATASET-METHOD-SEED.safetensors].")] = None,
    model: Annotated[
        str | None,
        _own(help="resnet18, resnet18-W, ... [default: the data's].", autocompletion=o.completing(lambda: o.MODELS)),
    ] = None,
    eps: o.Eps = None,
    step: o.Step = None,
    steps: Annotated[int | None, _own(min=0, help="Sign-gradient steps of the perturbation.")] = None,
    start: Annotated[
        str | None, _own(help=f"{', '.join(o.STARTS)}.", autocompletion=o.completing(lambda: o.STARTS))
    ] = None,
    inner: Annotated[
        str | None, _own(help="What the perturbation climbs: cross_entropy, kl_to_clean, cross_entropy_and_nuclear.")
    ] = None,
    outer: Annotated[
        str | None,
        _own(help="What training descends: natural, adversarial, trades, mart, nuclear, consistent, aligned."),
    ] = None,
    gamma: Annotated[float | None, _own(parser=o.number, metavar="X", help="Of the backward start, eq. (4.3).")] = None,
    beta: Annotated[
        float | None, _own(parser=o.number, metavar="X", help="Weight of the outer loss's term beside cross entropy.")
    ] = None,
    ramp: Annotated[bool | None, _own("--ramp/--no-ramp", help="Let beta grow from 0 to the end of training.")] = None,
    noise: Annotated[float | None, _own(parser=o.number, metavar="X", help="Reach of the noise start, in eps.")] = None,
    bound: Annotated[
        str | None, _own(metavar="X", help="How far the perturbation may go, in eps; none: to any image.")
    ] = None,
    replays: Annotated[int | None, _own(min=1, help="Updates on a batch, one after another.")] = None,
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
    record. A method is a row of flags, and each of them can be overridden. Several GPUs:
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
    """
    flags = locals()
    load_torch()
    from bsk.data.processes import local_device, process_group
    from bsk.data.sources import open_dataset
    from bsk.progress import TrainingProgress
    from bsk.training.run import run

    where = local_device(chosen_device(device, threads))
    found = open_dataset(dataset, data)
    settings = resolve(flags, found, where)
    checkpoint = out or Path("runs") / f"{found.name}-{method}-{seed}.safetensors"
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


def resolve(flags: dict[str, Any], data: DataFile, device: Any) -> Settings:
    """Return the settings: the method's row with the flags over it, the data's customs where flags are silent.

    Raises:
        UsageError: an unknown name, or a number out of range.
    """
    from dataclasses import replace

    from bsk.data.batches import AUGMENTATIONS
    from bsk.perturb.later_starts import STARTS
    from bsk.training.methods import INNER, METHODS
    from bsk.training.outer import OUTER
    from bsk.training.schedules import DEFAULT_LR, SCHEDULES
    from bsk.training.settings import ON_COLLAPSE, PRECISIONS, SELECTORS, Settings, fast_precision

    method = one_of("method", flags["method"], METHODS)
    for flag, known in (("start", STARTS), ("inner", INNER), ("outer", OUTER), ("augment", AUGMENTATIONS)):
        if flags[flag] is not None:
            one_of(flag, flags[flag], known)
    one_of("precision", flags["precision"], ["auto", *PRECISIONS])
    one_of("select", flags["select"], SELECTORS)
    one_of("on-collapse", flags["on_collapse"], ON_COLLAPSE)
    schedule = one_of("schedule", flags["schedule"], SCHEDULES)
    eps = checked_eps(data.eps if flags["eps"] is None else flags["eps"])
    axes = {name: flags[name] for name in AXES if flags[name] is not None}
    if "bound" in axes:
        axes["bound"] = _bound(axes["bound"])
    row = replace(METHODS[method].at(eps), **axes)
    if row.start == "kept" and row.outer == "natural":
        raise UsageError("--start kept goes on by the gradient at x', which --outer natural never sees; choose another")
    lr = DEFAULT_LR[schedule] if flags["lr"] is None else flags["lr"]
    above_zero(lr=lr, step=float(row.step))
    above_zero(or_zero=True, beta=float(row.beta), gamma=row.gamma, noise=row.noise)
    above_zero(or_zero=True, **{flag: flags[flag] for flag in ("weight_decay", "awp", "warmup")})
    return Settings(
        method=method,
        row=row,
        model=flags["model"] or data.model,
        dataset=data.name,
        eps=eps,
        epochs=flags["epochs"],
        batch_size=flags["batch_size"],
        schedule=schedule,
        lr=lr,
        momentum=flags["momentum"],
        weight_decay=flags["weight_decay"],
        precision=fast_precision(device) if flags["precision"] == "auto" else flags["precision"],
        augment=flags["augment"] or data.augment,
        seed=flags["seed"],
        select=flags["select"],
        log_divergence=flags["log_divergence"],
        **{name: flags[name] for name in ("ema", "label_smoothing", "awp", "warmup", "on_collapse")},
    )


def _bound(text: str) -> float | None:
    """Return a bound in eps, None for none.

    Raises:
        UsageError: it is no number above 0.
    """
    if text == "none":
        return None
    bound = o.number(text)
    above_zero(bound=bound)
    return bound
