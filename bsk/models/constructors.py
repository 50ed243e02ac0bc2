"""Networks by name for other people's weights: bsk's own, published ones, and anybody's `module:function`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bsk.errors import UsageError
from bsk.models import registry
from bsk.models.architectures import PUBLISHED, SHAPE
from bsk.models.size import Size, sides
from bsk.plugins import is_plugin, load, outside


def constructed(model: str, classes: int, channels: int, size: Size) -> nn.Module:
    """Return a new network by name, or by calling the function that `module:function` names.

    The function gets `num_classes=classes` if it takes that, else nothing. Its module may lie in the current
    folder; it is imported because the user named it. The global random state is kept.

    Raises:
        UsageError: there is no such model, module or function, or it fails.
    """
    with torch.random.fork_rng(devices=[]):
        if is_plugin(model):
            return _called(model, classes)
        if model in PUBLISHED:
            if (channels, *sides(size)) != SHAPE:
                raise UsageError(
                    f"--model {model}: is for images {SHAPE}, found {(channels, *sides(size))}; check --data"
                )
            return PUBLISHED[model].build(classes)
        try:
            return registry.network(model, classes, channels, size)
        except UsageError as error:
            raise UsageError(f"{error}; also {', '.join(PUBLISHED)} and module:function") from error


def _called(model: str, classes: int) -> nn.Module:
    """Somebody else's code can fail in any way, even by leaving; its failure is the flag's."""
    function = load(model, "--model").function
    with outside(f"--model {model}", "check the module and function"):
        network = function(num_classes=classes) if _takes(function, "num_classes") else function()
    if not isinstance(network, nn.Module):
        found = type(network).__name__
        raise UsageError(f"--model {model}: expected a torch.nn.Module, found {found}; check the module and function")
    # bsk's batches are channels last, on which `x.view(len(x), -1)` fails, as many networks have it
    network.register_forward_pre_hook(lambda _, inputs: tuple(x.contiguous() for x in inputs))
    return network


def _takes(function: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions written in C do not say
        return False
    return name in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
