"""`bsk train`: train one model with one method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from bsk.cli import options as o
from bsk.cli.console import RESUME_HINT, emit_record
from bsk.cli.groups import grouped
from bsk.cli.signals import stop_requests
from bsk.devices import load_torch
from bsk.progress import TrainingProgress
from bsk.terminal import CHOICES, note
from bsk.training.flags import TrainingFlags
from bsk.values import checked_suffix


@grouped
def train(
    dataset: o.Dataset = "cifar10",
    data: o.DataPath = None,
    out: Annotated[
        Path | None, o.option(metavar="F", help="F.safetensors [default: runs/DATASET-METHOD-SEED.safetensors].")
    ] = None,
    limit: o.Limit = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    *,
    flags: TrainingFlags,
) -> None:
    """Train a classifier with one method.

    Writes F.safetensors (the best epoch under PGD-20 on held-out val images), F.last.safetensors (the state to resume
    from) and F.jsonl (the log), and prints one JSON record. The same command resumes after an interruption. The
    flags of a method come last: bsk train --method liet --help. Several GPUs: torchrun --nproc-per-node=N -m bsk
    train ...

    --select test selects the epoch on the first 2,560 test images, as the authors do; test accuracies are then too
    high, and files and tables say best-on-test. --ema also writes F.ema.safetensors (its best epoch) and
    F.ema-last.safetensors. --log-divergence logs, on the first 256 val images, kl_start and kl_ascent, the mean KL
    divergence in nats between the output at x and that after the start or the ascent; and fosc (Wang et al. 2019).

        bsk train --method bs --gamma 1 --beta 10 --step 8/255
        bsk train --method trades --dataset digits --epochs 30 --schedule cyclic
        bsk train --method mycode:my_method --set alpha=0.5
    """
    load_torch()
    from bsk.data.processes import local_device, process_group
    from bsk.data.sources import open_dataset
    from bsk.training.run import run

    CHOICES.kept = RESUME_HINT
    where = local_device(device, threads)
    found = open_dataset(dataset, data)
    checkpoint = out or Path("runs") / f"{found.name}-{flags.method.replace(':', '-')}-{flags.seed}.safetensors"
    with process_group(where) as share, stop_requests(note) as stopping, TrainingProgress(share.rank == 0) as watcher:
        record = run(
            flags,
            found,
            checked_suffix(checkpoint),
            device=where,
            watcher=watcher,
            share=share,
            force=force,
            limit=limit,
            stopping=stopping,
        )
        if share.rank == 0:
            with watcher.aside():
                emit_record(record)
