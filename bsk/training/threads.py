"""The number of threads: small trainings gain nothing from several, which wait for each other on a shared machine."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from bsk.devices import threads_chosen

BUSY = 0.5  # fraction of the cores used by others from which a notice is printed
SAMPLES, PAUSE = 5, 0.01  # number of samples, and seconds between them
SMALL = 1e9  # weights * pixels * images per update, roughly its multiplications; the digits have 0.1e9


@contextlib.contextmanager
def enough_threads(model: nn.Module, shape: Sequence[int], images: int, device: torch.device) -> Iterator[None]:
    """Use one thread within the block if an update is small, and otherwise leave the number of threads unchanged.

    The last bits of a training depend on the number of threads, so it must not depend on how busy the machine is. Only
    the network, the image shape (C, H, W) and the number of images per update decide, unless the user has chosen.
    """
    before, weights = torch.get_num_threads(), sum(each.numel() for each in model.parameters())
    small = weights * math.prod(shape[1:]) * images < SMALL
    if device.type == "cpu" and small and not threads_chosen():
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def shared_machine_notice(device: torch.device) -> str:
    """Return a notice if others leave too few cores for the threads of this training, or "".

    It is only a notice: another number of threads would change the last bits, which must not depend on other users.
    """
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    if device.type != "cpu" or threads == 1 or threads_chosen():
        return ""
    others = min(_other_threads() for _ in range(SAMPLES))
    if others < BUSY * cores or others + threads <= cores:
        return ""
    return f"others use {others} of {cores} cores: --threads 1 may be faster than {threads}, but changes the last bits"


def _other_threads() -> int:
    """Return the number of other threads that are running right now, or 0 if the system does not tell."""
    time.sleep(PAUSE)
    try:
        running, _, _ = Path("/proc/loadavg").read_text().split()[3].partition("/")
    except (OSError, IndexError):
        return 0
    return max(0, int(running) - 1)
