"""Train image classifiers that withstand adversarial perturbations, and measure whether they do.

An implementation of "Efficient Robust Training via Backward Smoothing" (Chen, Cheng, Gan, Gu, Liu). See `bsk.api`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bsk.version import VERSION as __version__
from bsk.waiting import sleep_soon

sleep_soon()  # before torch is loaded, which reads the setting once

if TYPE_CHECKING:
    from bsk.api import Evaluation, attack, compare, evaluate, load, prepare
    from bsk.contract.method import Losses
    from bsk.data.arrays import from_arrays
    from bsk.training.api import train

__all__ = [
    "Evaluation",
    "Losses",
    "__version__",
    "attack",
    "compare",
    "evaluate",
    "from_arrays",
    "load",
    "prepare",
    "train",
]
_MODULES = {"train": "bsk.training.api", "from_arrays": "bsk.data.arrays", "Losses": "bsk.contract.method"}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `import bsk` does not import torch."""
    if name not in __all__:
        raise AttributeError(f"module 'bsk' has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "bsk.api")), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
