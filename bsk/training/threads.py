"""One thread for small trainings: more gain nothing, and wait for each other where others share the machine."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from bsk.devices import threads_chosen

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
