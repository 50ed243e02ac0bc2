"""Devices: loading torch, choosing a device by name, and defaults that depend on the device."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bsk.compat import cpu_is_fast_in_bf16, keep_freed_memory, without_garbage_collection
from bsk.errors import UsageError
from bsk.values import whole
from bsk.waiting import sleep_later

if TYPE_CHECKING:
    import torch

COMPILE = ("auto", "on", "off")  # choices of --compile
SMALL_IMAGE, LARGE_IMAGE = 16 * 16, 64 * 64  # pixels
ANSWERS = {"cpu": 1}  # steps between two readings of results from the device
_asked_for: list[int] = []  # the number of threads set by a flag, if any


def load_torch(adapts_threads: bool = False) -> None:
    """Import torch without garbage collection, which takes a quarter less time; see `sleep_later` for the flag.

    The import creates a million objects that all stay alive; the collector would traverse them again and again, and
    once more when the process exits.
    """
    if adapts_threads:
        sleep_later()
    with without_garbage_collection():
        import torch  # noqa: F401 - for later imports


def chosen_device(name: str = "auto", threads: int | None = None) -> torch.device:
    """Return the device of that name and set the number of threads; "auto" is a GPU if there is one.

    Raises:
        UsageError: the device is not available.
    """
    import torch

    threads = whole("--threads", threads)
    _asked_for[:] = [] if threads is None else [threads]
    if threads is not None:
        torch.set_num_threads(threads)
    if name == "auto":
        name = "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda" if torch.cuda.is_available() else name
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "cpu":
            keep_freed_memory()
    except Exception as error:
        found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        usable = ", ".join(["auto", "cpu", *(kind for kind, there in found.items() if there)])
        raise UsageError(f"--device {name}: not available here; available: {usable}") from error
    return device


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was asked to; a CPU has."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def threads_chosen() -> bool:
    """Return whether the user chose the number of CPU threads by a flag or in the environment."""
    return bool(_asked_for) or any(os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))


def steps_between_answers(device: torch.device) -> int:
    """Return the number of steps of an attack between two readings from the device; reading from a GPU is slow."""
    return ANSWERS.get(device.type, 8)


def rows_of_a_call(device: torch.device, shape: Sequence[int]) -> int:
    """Return the default number of rows of a model call in an evaluation, for images of this shape (C, H, W).

    On a CPU the arithmetic of 128 images takes longer than the call itself, except for small images. Elsewhere memory
    limits it: a pass of large images has no more pixels than one of 512 images of 64x64, but at least 32 images.
    """
    pixels = math.prod(shape[1:])
    if device.type == "cpu":
        return 128 if pixels > SMALL_IMAGE else 512
    return max(32, min(512, 512 * LARGE_IMAGE // pixels))


def fast_precision(device: torch.device) -> str:
    """Return "bf16" if the device multiplies it fast, else "fp32"."""
    import torch

    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if device.type == "cpu" and cpu_is_fast_in_bf16() else "fp32"


def device_name(device: torch.device) -> str:
    """Return the name of the device for records, e.g. "cpu AVX2" or "cuda NVIDIA H100"."""
    import torch

    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"cpu {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type
