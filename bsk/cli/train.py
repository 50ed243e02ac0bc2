"""`bsk train`: one model by one method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from bsk.cli import options as o
from bsk.cli.console import GOES_ON, emit_record
from bsk.cli.groups import grouped
from bsk.cli.signals import stop_requests
from bsk.devices import chosen_device, load_torch
from bsk.progress import TrainingProgress
from bsk.terminal import CHOICES, note
from bsk.training.flags import TrainingFlags


@grouped
def train(
    dataset: o.Dataset = "cifar10",
    data: o.DataPath = None,
    out: Annotated[Path | None, o.option(help="F.safetensors [default: runs/DATASET-METHOD-SEED.safetensors].")] = None,
    limit: o.Limit = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    *,
    flags: TrainingFlags,
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
    output at x from that after the method's start, and after its whole ascent, on the first 256 val images; and fosc,
    how much the loss could still rise within the ball were it linear there (Wang et al. 2019).

        bsk train --method bs --gamma 1 --beta 10 --step 8/255
        bsk train --method trades --dataset digits --epochs 30 --schedule cyclic
        bsk train --method fast-at --start backward --gamma 2 --out runs/mine.safetensors
        bsk train --method mycode:my_method --set alpha=0.5
    """
    load_torch()
    from bsk.data.processes import local_device, process_group
    from bsk.data.sources import open_dataset
    from bsk.training.run import run

    CHOICES.kept = GOES_ON
    where = local_device(chosen_device(device, threads))
    found = open_dataset(dataset, data)
    checkpoint = out or Path("runs") / f"{found.name}-{flags.method.replace(':', '-')}-{flags.seed}.safetensors"
    with process_group(where) as share, stop_requests(note) as stopping, TrainingProgress(share.rank == 0) as watcher:
        record = run(
            flags,
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
            with watcher.aside():
                emit_record(record)
