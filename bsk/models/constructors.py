"""Networks by name for other people's weights: bsk's own, published ones, and anybody's `module:function`."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from bsk.errors import UsageError
from bsk.models import registry
from bsk.models.architectures import PUBLISHED, SHAPE
from bsk.models.size import Size, sides


def constructed(model: str, classes: int, channels: int, size: Size) -> nn.Module:
    """Return a new network by name, or by calling the function that `module:function` names.

    The function gets `num_classes=classes` if it takes that, else nothing. Its module may lie in the current
    folder; it is imported because the user named it. The global random state is kept.

    Raises:
        UsageError: there is no such model, module or function, or it fails.
    """
    with torch.random.fork_rng(devices=[]):
        if ":" in model:
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
    module_name, _, name = model.partition(":")
    try:
        with _in_the_current_folder():
            function: Callable[..., Any] = getattr(importlib.import_module(module_name), name)
            network = function(num_classes=classes) if _takes(function, "num_classes") else function()
    except (Exception, SystemExit) as error:
        reason = (str(error) or "no message").splitlines()[0][:120]
        raise UsageError(f"--model {model}: {type(error).__name__}: {reason}; check the module and function") from error
    if not isinstance(network, nn.Module):
        found = type(network).__name__
        raise UsageError(f"--model {model}: expected a torch.nn.Module, found {found}; check the module and function")
    # bsk's batches are channels last, on which `x.view(len(x), -1)` fails, as many networks have it
    network.register_forward_pre_hook(lambda _, inputs: tuple(x.contiguous() for x in inputs))
    return network


@contextlib.contextmanager
def _in_the_current_folder() -> Iterator[None]:
    """Let modules be found in the current folder too, and keep what they print out of the data on stdout."""
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.path.remove(folder)


def _takes(function: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions written in C do not say
        return False
    return name in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
