"""Several processes on one training: started by torchrun, one share of every batch each."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bsk.data.batches import Share

PATIENCE = datetime.timedelta(days=7)  # one process may have a long attack to end while the others wait


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[Share]:
    """Join the processes that torchrun started, if it did; NCCL on GPUs, gloo elsewhere."""
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield Share()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Share(dist.get_rank(), dist.get_world_size())
    except BaseException:
        dist.destroy_process_group()  # the others may be elsewhere: nothing to wait for
        raise
    leave_group()


def leave_group() -> None:
    """Wait for all processes and leave the group.

    A thread of gloo may let go of the last sum's tensor after the sum is there; if Python is ending by then,
    the process aborts. A barrier has no such tensor.
    """
    dist.barrier()
    dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """Return this process's own GPU, if GPUs are meant and torchrun started several processes."""
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


def sum_gradients(model: nn.Module, share: Share) -> None:
    """Add up the gradients of all processes, in one message."""
    if share.world == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, summed in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))


def sum_over_processes(values: Tensor, share: Share) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if share.world > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def agree(code: int, share: Share, device: torch.device) -> int:
    """Return the largest of all processes' codes, so that all save or stop at the same step."""
    if share.world == 1:
        return code
    codes = torch.tensor(code, device=device)
    dist.all_reduce(codes, dist.ReduceOp.MAX)
    return int(codes)
