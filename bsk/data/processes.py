"""Distributed runs: processes started by torchrun, each with its part of every batch."""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
import time
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bsk.data.batches import Share
from bsk.devices import chosen_device
from bsk.errors import InputError, UsageError, first_line
from bsk.terminal import note

RENDEZVOUS, TELL = 300.0, 5.0  # seconds to wait for all processes, and until a notice says so
PATIENCE = datetime.timedelta(days=7)  # a process may finish a long attack while the others wait


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[Share]:
    """Join the process group if torchrun started several processes: NCCL for tensors on GPUs, gloo for those on CPUs.

    Raises:
        UsageError: the environment variables of torchrun are incomplete or invalid, or the device is for one process.
        InputError: not all processes join.
    """
    world = _world()
    if world == 1:
        yield Share()
        return
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"WORLD_SIZE={world}: a device {device.type} works for one process only; use --device cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # a barrier uses the current one
    _meet(device, world)
    try:
        yield Share(dist.get_rank(), dist.get_world_size())
    except BaseException:
        dist.destroy_process_group()  # without a barrier, because the others may not reach it
        raise
    leave_group()


def _world() -> int:
    """Return the number of processes; for a single one the other environment variables do not matter."""
    said = {name: os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")}
    advice = "start the processes with torchrun, or unset WORLD_SIZE and RANK for a single one"
    for name, least in (("WORLD_SIZE", 1), ("RANK", 0)):
        if said[name] and not (said[name].isdecimal() and int(said[name]) >= least):
            raise UsageError(f"{name}={said[name][:40]}: expected a whole number from {least}; {advice}")
    world = int(said["WORLD_SIZE"] or 1)
    if world > 1 and (missing := [name for name, value in said.items() if not value]):
        raise UsageError(f"WORLD_SIZE={world} without {', '.join(missing)}; {advice}")
    if int(said["RANK"] or 0) >= world:
        raise UsageError(f"RANK={said['RANK']}: expected below WORLD_SIZE={world}; {advice}")
    return world


def _meet(device: torch.device, world: int) -> None:
    """Wait until all processes have joined, in a thread, so that signals are handled meanwhile."""
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    failed: list[Exception] = []

    def join() -> None:
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device)  # of this thread
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        except Exception as error:  # the network can fail in any way
            failed.append(error)

    thread = threading.Thread(target=join, daemon=True)
    thread.start()
    start, announced = time.monotonic(), False
    while thread.is_alive() and time.monotonic() - start < RENDEZVOUS:
        thread.join(0.1)
        if not announced and time.monotonic() - start > TELL:
            announced = True
            note(f"waiting at {place} for {world} processes, for up to {RENDEZVOUS / 60:.0f} minutes")
    if failed or thread.is_alive():
        reason = first_line(failed[0]) if failed else f"no {world} in {RENDEZVOUS / 60:.0f} minutes"
        raise InputError(f"{place}: not all processes joined ({reason}); start all of them with torchrun")


def leave_group() -> None:
    """Wait for all processes and leave the group.

    A gloo thread may release the tensor of the last reduction late; if Python is exiting by then, the process aborts.
    A barrier has no such tensor.
    """
    dist.barrier()
    dist.destroy_process_group()


def local_device(name: str, threads: int | None) -> torch.device:
    """Return `chosen_device`, or the GPU of this process if a launcher started several.

    torchrun numbers the processes of a machine, in LOCAL_RANK, and shows all GPUs to each. A scheduler may show each
    process its own GPU only, or start each with its own `--device cuda:N`.

    Raises:
        UsageError: the device is not available, there are more processes than GPUs, or it is unknown whose is which.
    """
    if _world() > 1 and (name == "auto" or name.startswith("cuda")) and torch.cuda.is_available():
        name = f"cuda:{_own_gpu(name.partition(':')[2], torch.cuda.device_count())}"
    return chosen_device(name, threads)


def _own_gpu(asked: str, gpus: int) -> str:
    """Return the number of this process's GPU among those that it sees."""
    rank, processes = (os.environ.get(name, "") for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    if processes.isdecimal() and int(processes) > gpus or rank.isdecimal() and int(rank) >= gpus > 1:
        raise UsageError(f"{processes or int(rank) + 1} processes on this machine, {gpus} GPUs; start fewer processes")
    if gpus == 1:
        return "0"
    if not rank.isdecimal() and not asked:
        raise UsageError(f"{gpus} GPUs and no LOCAL_RANK; start the processes with torchrun, or with --device cuda:N")
    return rank if rank.isdecimal() else asked


def sum_gradients(model: nn.Module, share: Share) -> None:
    """Sum the gradients of all processes with one reduction.

    A weight may have none in some processes, as under stochastic depth; where no process has one, it remains None.
    """
    if share.world == 1:
        return
    weights = [each for each in model.parameters() if each.requires_grad]
    found = [weight.new_zeros(()) if weight.grad is None else weight.new_ones(()) for weight in weights]
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in weights]
    flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), torch.stack(found)])
    dist.all_reduce(flat)
    *sums, count = torch.split(flat, [*(each.numel() for each in gradients), len(weights)])
    for i, (weight, gradient, summed) in enumerate(zip(weights, gradients, sums, strict=True)):
        if weight.grad is not None or bool(count[i]):  # read only where it decides, since a GPU waits for it
            weight.grad = gradient.copy_(summed.view_as(gradient))


def share_statistics(model: nn.Module, share: Share) -> None:
    """Copy the statistics of the first process to all with one broadcast, as DDP does.

    Batch norm estimates them from a process's own images. They must agree: the first process's are saved, and every
    process perturbs, validates and selects with its own.
    """
    buffers = [each for each in model.buffers() if each.is_floating_point()]
    if share.world == 1 or not buffers:
        return
    flat = torch.cat([each.reshape(-1) for each in buffers])
    dist.broadcast(flat, 0)
    for own, first in zip(buffers, torch.split(flat, [each.numel() for each in buffers]), strict=True):
        own.copy_(first.view_as(own))


def agree_on(step: int, share: Share) -> None:
    """Raise in every process unless all are at the same update.

    Raises:
        InputError: they are not, for example because they see different folders.
    """
    most, least = agree(step, share), -agree(-step, share)
    if most != least:
        found = f"the processes would go on from different updates, {least} to {most}"
        raise InputError(f"{found}; give all of them the same files, in a folder that they share")


def sum_over_processes(values: Tensor, share: Share) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if share.world > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def agree(code: int, share: Share) -> int:
    """Return the largest of all processes' codes, so that all save or stop at the same step; no GPU is waited for."""
    if share.world == 1:
        return code
    codes = torch.tensor(code)
    dist.all_reduce(codes, dist.ReduceOp.MAX)
    return int(codes)
