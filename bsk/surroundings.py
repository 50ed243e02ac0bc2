"""What the caller has set in torch, and what bsk computes with instead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from bsk.compat import usual_products

_AUTOCAST = ("cpu", "cuda", "mps", "xpu")
_AUTOCAST_DTYPES = {"cpu": torch.bfloat16, "cuda": torch.float16}  # of a block that names none


@contextlib.contextmanager
def usual_torch() -> Iterator[None]:
    """Compute within the block, or within a function that this decorates, as a new process does.

    Gradients are on, tensors are fp32 and on the CPU unless a type and a device are named, autocast is off, and fp32 is
    multiplied as by default, whatever the caller's blocks and settings are. Otherwise a training within
    `torch.autocast` would be one with stale weights, and its record would say fp32.
    """
    dtype = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(usual_products())
        device = torch.get_default_device()
        if device.type != "cpu":
            torch.set_default_device(None)
            if torch.get_default_device().type == "cpu":
                stack.callback(torch.set_default_device, device)
            else:  # of a block
                stack.enter_context(torch.device("cpu"))
        for kind in _AUTOCAST:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        # Within the caller's block torch would not empty the cache after a block of the network's own.
        stack.callback(torch.set_autocast_cache_enabled, torch.is_autocast_cache_enabled())
        torch.set_autocast_cache_enabled(False)
        for kind, usual in _AUTOCAST_DTYPES.items():
            stack.callback(torch.set_autocast_dtype, kind, torch.get_autocast_dtype(kind))
            torch.set_autocast_dtype(kind, usual)
        yield
