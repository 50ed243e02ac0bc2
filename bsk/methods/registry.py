"""The methods by id, and their hyper-parameters as read from the signatures; torch is imported only to run a method."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from bsk.contract.parameters import Parameter, from_signature, from_source
from bsk.errors import UsageError, nearest
from bsk.perturb.radius import ABNORMAL_N, EPS, paper_step
from bsk.plugins import Plugin, is_plugin, load


@dataclass(frozen=True)
class Row:
    """Where a method is defined, the defaults that its id changes, its authors, and whether it needs `--extra`."""

    file: str
    function: str
    changes: Mapping[str, Any]
    source: str = ""
    extra: bool = False


def _row(file: str, function: str = "", source: str = "", extra: bool = False, **changes: Any) -> Row:
    return Row(file, function or file, changes, source, extra)


_THIS, _WONG = "Chen et al. (2022)", "Wong et al. (2020)"

METHODS: dict[str, Row] = {
    "natural": _row("adversarial", "natural"),
    "at": _row("adversarial", steps=10, step=paper_step(2 / 255)),
    "fast-at": _row("adversarial", source=_WONG),
    "fast-at-plus": _row("fast_at_plus"),
    "trades": _row("backward_smoothing", "trades"),
    "fast-trades": _row("backward_smoothing", "trades", _THIS, start="uniform", steps=1, step=EPS),
    "fast-trades-2": _row("backward_smoothing", "trades", _THIS, start="uniform", steps=2, step=EPS),
    "bs": _row("backward_smoothing"),
    "bs-alone": _row("backward_smoothing", steps=0),
    "bs-at": _row("adversarial", source=_THIS, start="backward", step=EPS),
    # not in the paper
    "n-fgsm": _row("n_fgsm"),
    "liet": _row("liet"),
    "gradalign": _row("linearity", "gradalign"),
    "free-at": _row("free_at"),
    "mart": _row("mart"),
    "nuat": _row("guided", "nuat"),
    "fgsm-pgi": _row("priors", "fgsm_pgi"),
    "gat": _row("guided", "gat"),
    "fgsm-mep": _row("priors", "fgsm_pgi"),
    "zero-grad": _row("zero_grad"),
    "multi-grad": _row("zero_grad", "multi_grad"),
    "ssat": _row("ssat"),
    "rs-cs": _row("rs_cs"),
    "elle": _row("linearity", "elle"),
    "rs-aaer": _row("aaer"),
    "n-aaer": _row("aaer", noise=2.0, step=EPS, beta=ABNORMAL_N, bound=None),
    "uap": _row("priors", "uap"),
    "cuap": _row("priors", "uap", classwise=True),
    "pco": _row("priors", "pco"),
    "atas": _row("priors", "atas"),
    "llr": _row("linearity", "llr"),
    "dynamic-at": _row("dynamic_at"),
    "rst": _row("backward_smoothing", "trades", "Carmon et al. (2019)", extra=True),
}

# In a line, what an id is whose function has other ids too.
ABOUT = {
    "fast-at": "Cross entropy after one step from a uniform random start.",
    "bs-at": "Cross entropy after one step from the backward start.",
    "fast-trades": "The TRADES loss after one step from a uniform random start.",
    "fast-trades-2": "The TRADES loss after two steps from a uniform random start.",
    "bs-alone": "The TRADES loss at the backward start, without ascent.",
    "rst": "Robust self-training: TRADES on labelled images and on pseudo-labelled ones, given by --extra.",
    "fgsm-mep": "Another name of fgsm-pgi: the last of the three priors of its paper.",
    "n-aaer": "rs-aaer after twice the noise, without projection.",
    "cuap": "uap with one perturbation per class.",
}


def names() -> list[str]:
    """Return the ids."""
    return list(METHODS)


def checked(name: str) -> str:
    """Return `name` if it is an id or `module:function`.

    Raises:
        UsageError: there is no such method.
    """
    if not is_plugin(name) and name not in METHODS:
        raise UsageError(f"--method {name}: no such method; {nearest(name, names(), 'module:function')}")
    return name


@cache
def plugin(name: str) -> Plugin:
    """Return a method from a plugin, which is imported only once."""
    return load(name, "--method")


@cache
def parameters(name: str) -> dict[str, Parameter]:
    """Return the hyper-parameters of a method, by name, in the order of its signature.

    Those of bsk's own methods are read from the source, so that `--help` need not import torch.

    Raises:
        UsageError: there is no such method, or it breaks the contract (`bsk.contract.method`).
    """
    if is_plugin(name):
        return from_signature(name, plugin(name).function)
    row = METHODS[checked(name)]
    found = from_source(_definition(row))
    assert row.changes.keys() <= found.keys(), f"{name} changes what {row.function} does not have"
    return {key: replace(each, default=row.changes.get(key, each.default)) for key, each in found.items()}


def summary(name: str) -> str:
    """Return in a line what a method is, by default the first line of its docstring."""
    if name in ABOUT:
        return ABOUT[name]
    text = plugin(name).function.__doc__ if is_plugin(name) else ast.get_docstring(_definition(METHODS[checked(name)]))
    return (text or "").strip().partition("\n")[0]


def source(name: str) -> tuple[str, int | None]:
    """Return the authors and the year of the paper behind one of bsk's own methods."""
    row = METHODS[checked(name)]
    text = row.source or (ast.get_docstring(_definition(row)) or "").partition("Source: ")[2]
    found = re.match(r"(.+?) \((\d{4})\)", text)
    return (found[1], int(found[2])) if found else ("", None)


def needs_extra(name: str) -> bool:
    """Return whether a method needs extra training images."""
    return name in METHODS and METHODS[name].extra


def function(name: str) -> Callable[..., Any]:
    """Return the function of a method."""
    if is_plugin(name):
        return plugin(name).function
    row = METHODS[checked(name)]
    found: Callable[..., Any] = getattr(importlib.import_module(f"bsk.methods.{row.file}"), row.function)
    return found


def _definition(row: Row) -> ast.FunctionDef:
    tree = ast.parse(Path(__file__).with_name(f"{row.file}.py").read_text(encoding="utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == row.function)
