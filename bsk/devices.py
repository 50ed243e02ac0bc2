"""Where the work is done: torch, a device by name, and how much of it goes at once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bsk.compat import cpu_multiplies_bf16, keep_freed_memory, objects_that_stay
from bsk.errors import UsageError

if TYPE_CHECKING:
    import torch

COMPILE = ("auto", "on", "off")  # what may be chosen of torch.compile
ANSWERS = {"cpu": 1}  # steps until one asks for what came of them
_asked_for: list[int] = []  # the threads that a flag named, if any


def load_torch() -> None:
    """Import torch in a quarter less time: Python's collector of garbage rests, and never looks at what came of it.

    A million objects come, and all stay: it would look at them again and again, and once more as the process ends.
    """
    with objects_that_stay():
        import torch  # noqa: F401 - for those who import it next


def chosen_device(name: str = "auto", threads: int | None = None) -> torch.device:
    """Return the device of that name, and set the number of threads; "auto" is a GPU where there is one.

    Raises:
        UsageError: there is no such device here.
    """
    import torch

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
        raise UsageError(f"--device {name}: not available here; use auto, cpu, cuda or mps") from error
    return device


def threads_chosen() -> bool:
    """Say if the user chose the number of CPU threads: by a flag, or in the environment."""
    return bool(_asked_for) or any(os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))


def steps_between_answers(device: torch.device) -> int:
    """Return how many steps an attack takes before it asks the device what came of them: to ask a GPU is to wait."""
    return ANSWERS.get(device.type, 8)


def rows_of_a_call(device: torch.device) -> int:
    """Return how many rows a model call of an evaluation has by default."""
    return 128 if device.type == "cpu" else 512


def fast_precision(device: torch.device) -> str:
    """Return "bf16" where the device multiplies it fast, else "fp32"."""
    import torch

    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if device.type == "cpu" and cpu_multiplies_bf16() else "fp32"


def device_name(device: torch.device) -> str:
    """Return what the numbers were computed on, e.g. "cpu AVX2" or "cuda NVIDIA H100"."""
    import torch

    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"cpu {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type
