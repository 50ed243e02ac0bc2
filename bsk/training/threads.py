"""One thread for small trainings: more gain nothing, and wait for each other where others share the machine."""

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

BUSY = 0.5  # of the cores, that others have each time one looks: there is a line about it
LOOKS, PAUSE = 5, 0.01  # seconds
SMALL = 1e9  # weights times pixels times images of an update: about its products; the digits have 0.1e9


@contextlib.contextmanager
def enough_threads(model: nn.Module, shape: Sequence[int], images: int, device: torch.device) -> Iterator[None]:
    """Let torch have one thread within the block if an update is small, else as many as it has.

    The last bits of a training depend on the number of threads, so it must not depend on how busy the machine is: the
    network, the image's shape (C, H, W) and the number of images of an update alone decide it, unless the user has.
    """
    before, weights = torch.get_num_threads(), sum(each.numel() for each in model.parameters())
    small = weights * math.prod(shape[1:]) * images < SMALL
    if device.type == "cpu" and small and not threads_chosen():
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def waits_for_others(device: torch.device) -> str:
    """Return a line for who trains with several threads where others leave them too few cores; empty where all is well.

    It is only said: another number of threads would have other last bits, and should not come of who else is there.
    """
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    if device.type != "cpu" or threads == 1 or threads_chosen():
        return ""
    others = min(_others() for _ in range(LOOKS))
    if others < BUSY * cores or others + threads <= cores:
        return ""
    return f"others use {others} of {cores} cores: --threads 1 may be faster than {threads}, with other last bits"


def _others() -> int:
    """Return how many threads but this one want a core just now; 0 where the system does not tell."""
    time.sleep(PAUSE)
    try:
        running, _, _ = Path("/proc/loadavg").read_text().split()[3].partition("/")
    except (OSError, IndexError):
        return 0
    return max(0, int(running) - 1)
