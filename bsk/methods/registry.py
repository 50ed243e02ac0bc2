"""The methods by id, and their hyper-parameters, read from the signatures; torch is loaded only to run one."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from bsk.errors import UsageError, nearest
from bsk.perturb import radius
from bsk.perturb.radius import EPS, AtRadius, paper_step
from bsk.plugins import Plugin, is_plugin, load

GIVEN = ("eps", "draws", "memory", "update", "epoch", "progress", "validate")  # what a method can be given; no flags

# fmt: off
RESERVED = {  # flags of a training
    "method", "dataset", "data", "out", "model", "set", "hyper", "epochs", "batch_size", "schedule", "lr",
    "momentum", "weight_decay", "precision", "augment", "select", "log_divergence", "ema", "label_smoothing", "awp",
    "warmup", "on_collapse", "limit", "seed", "device", "threads", "force", "quiet", "progress", "help",
}
# fmt: on


@dataclass(frozen=True)
class Row:
    """Where a method is: a function of its file, and the defaults that its id changes."""

    file: str
    function: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)


def _row(file: str, function: str = "", **changes: Any) -> Row:
    return Row(file, function or file, changes)


METHODS: dict[str, Row] = {
    "natural": _row("natural"),
    "at": _row("adversarial", steps=10, step=paper_step(2 / 255)),
    "fast-at": _row("adversarial"),
    "fast-at-plus": _row("fast_at_plus"),
    "trades": _row("backward_smoothing", "trades"),
    "fast-trades": _row("backward_smoothing", "trades", start="uniform", steps=1, step=EPS),
    "fast-trades-2": _row("backward_smoothing", "trades", start="uniform", steps=2, step=EPS),
    "bs": _row("backward_smoothing"),
    "bs-alone": _row("backward_smoothing", steps=0),
    "bs-at": _row("adversarial", start="backward", step=EPS),
    # what the paper does not have
    "n-fgsm": _row("n_fgsm"),
    "liet": _row("liet"),
    "gradalign": _row("gradalign"),
    "free-at": _row("free_at"),
    "mart": _row("mart"),
    "nuat": _row("nuat"),
    "gat": _row("gat"),
    "fgsm-pgi": _row("fgsm_pgi"),
}


@dataclass(frozen=True)
class Parameter:
    """A hyper-parameter: its default, the type that its annotation names, and what the docstring says of it."""

    name: str
    default: Any
    kind: str = "float"
    help: str = ""


def names() -> list[str]:
    """Return the ids."""
    return list(METHODS)


def checked(name: str) -> str:
    """Return an id, or `module:function`.

    Raises:
        UsageError: there is no such method.
    """
    if not is_plugin(name) and name not in METHODS:
        raise UsageError(f"--method {name}: no such method; {nearest(name, names())}, or module:function")
    return name


@cache
def plugin(name: str) -> Plugin:
    """Return a method from outside; it is imported once."""
    return load(name, "--method")


@cache
def parameters(name: str) -> dict[str, Parameter]:
    """Return the hyper-parameters of a method by name, in the order of its signature.

    Those of bsk's own are read from the source, so that `--help` need not load torch.

    Raises:
        UsageError: there is no such method, or it breaks the contract (`bsk.methods.contract`).
    """
    if is_plugin(name):
        return _from_signature(name, plugin(name).function)
    row = METHODS[checked(name)]
    found = _from_source(_definition(row))
    unknown = row.changes.keys() - found.keys()
    assert not unknown, f"{name}: {row.function} has no {unknown}"
    return {key: replace(each, default=row.changes.get(key, each.default)) for key, each in found.items()}


def summary(name: str) -> str:
    """Return the first sentence that a method says of itself."""
    text = plugin(name).function.__doc__ if is_plugin(name) else ast.get_docstring(_definition(METHODS[checked(name)]))
    return (text or "").strip().partition("\n")[0]


def function(name: str) -> Callable[..., Any]:
    """Return the function of a method."""
    if is_plugin(name):
        return plugin(name).function
    row = METHODS[checked(name)]
    found: Callable[..., Any] = getattr(importlib.import_module(f"bsk.methods.{row.file}"), row.function)
    return found


def resolve(name: str, eps: float, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of each hyper-parameter at the radius eps: what is given, texts parsed, else its default.

    Raises:
        UsageError: a name that the method has not, or a value that does not fit.
    """
    known = parameters(name)
    for key in given:
        if key not in known:
            own = f"it has {', '.join(known)}" if known else "it has no hyper-parameters"
            raise UsageError(f"--{_flag(key)}: {name} has no {key}; {own}")
    values = {key: parsed(each, given[key]) if key in given else each.default for key, each in known.items()}
    return {key: value.at(eps) if isinstance(value, AtRadius) else value for key, value in values.items()}


def parsed(parameter: Parameter, value: Any) -> Any:
    """Return a value, or the text of a flag, in a hyper-parameter's type; "8/255" is a number, "none" is None.

    Raises:
        UsageError: it is of another type, not finite, or out of range: numbers are at least 0, a step or bound above.
    """
    start = f"--{_flag(parameter.name)} {value}"
    if "None" in parameter.kind and (value is None or value == "none"):
        return None
    if "bool" in parameter.kind:
        if str(value).lower() not in ("true", "false"):
            raise UsageError(f"{start}: expected true or false")
        return str(value).lower() == "true"
    if "str" in parameter.kind:
        return str(value)
    number = radius.number(value)
    if number is None or isinstance(value, bool):
        raise UsageError(f"{start}: is not a number; write 0.031 or 8/255")
    above = parameter.name in ("step", "bound", "replays")
    if number < 0 or (above and number == 0):
        raise UsageError(f"{start}: must be finite and {'above' if above else 'at least'} 0")
    if parameter.kind.startswith("int"):
        if number != int(number):
            raise UsageError(f"{start}: expected a whole number")
        return int(number)
    return number


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _definition(row: Row) -> ast.FunctionDef:
    tree = ast.parse(Path(__file__).with_name(f"{row.file}.py").read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == row.function]
    return found[0]


def _from_source(definition: ast.FunctionDef) -> dict[str, Parameter]:
    """Return the keyword arguments of bsk's own function; defaults are written with numbers and names of `radius`."""
    told = _told(ast.get_docstring(definition) or "")
    found = {}
    for argument, default in zip(definition.args.kwonlyargs, definition.args.kw_defaults, strict=True):
        if default is not None:
            value = eval(compile(ast.Expression(default), "default", "eval"), vars(radius))
            kind = ast.unparse(argument.annotation) if argument.annotation else "float"
            found[argument.arg] = Parameter(argument.arg, value, kind, told.get(argument.arg, ""))
    return found


def _from_signature(name: str, function: Callable[..., Any]) -> dict[str, Parameter]:
    expected = "expected function(net, x, y, *, eps, draws, ...)"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--method {name}: has no signature to read; {expected}") from error
    if "eps" not in signature.parameters:
        raise UsageError(f"--method {name}: takes no eps; {expected}")
    told = _told(inspect.getdoc(function) or "")
    found = {}
    for each in list(signature.parameters.values())[3:]:
        if each.name in GIVEN or each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL):
            continue
        if each.default is each.empty:
            raise UsageError(f"--method {name}: {each.name} has no default, which a hyper-parameter needs")
        kind = type(each.default).__name__ if each.default is not None else "float | None"
        if each.name in RESERVED or kind.partition(" ")[0] not in ("int", "float", "bool", "str", "AtRadius"):
            raise UsageError(f"--method {name}: {each.name} = {each.default!r:.40} cannot be a flag; choose another")
        found[each.name] = Parameter(each.name, each.default, kind, told.get(each.name, ""))
    return found


def _told(docstring: str) -> dict[str, str]:
    """Return what the section Args of a docstring says of each argument."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?)+)", docstring, re.MULTILINE)
    if section is None:
        return {}
    items = re.split(r"^ {4}(\w+): ", section[1], flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, text in zip(items[::2], items[1::2], strict=True)}
