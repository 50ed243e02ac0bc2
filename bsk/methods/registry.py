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
from bsk.signature import defaults_of, keywords_of, typed
from bsk.values import above_zero

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
    "fgsm-pgi": _row("fgsm_pgi"),
    "gat": _row("gat"),
}


@dataclass(frozen=True)
class Parameter:
    """A hyper-parameter: its name, its default, what the docstring says of it, and whether it may be None too."""

    name: str
    default: Any
    help: str = ""
    optional: bool = False

    @property
    def flag(self) -> str:
        """Its flag of `bsk train`."""
        return f"--{self.name.replace('_', '-')}"

    def parsed(self, value: Any) -> Any:
        """Return a value, or the text of a flag, in the default's type; "8/255" is a number, "none" is None.

        Raises:
            UsageError: it is of another type, not finite, or below 0; a step or bound must be above 0.
        """
        if self.optional and str(value).lower() == "none":
            return None
        kind = float if self.optional or isinstance(self.default, AtRadius) else None
        found = typed(self.name, value, self.default, kind)
        if isinstance(found, float | int) and not isinstance(found, bool):
            above_zero(or_zero=self.name not in ("step", "bound", "replays"), **{self.name: found})
        return found


def names() -> list[str]:
    """Return the ids."""
    return list(METHODS)


def checked(name: str) -> str:
    """Return an id, or `module:function`.

    Raises:
        UsageError: there is no such method.
    """
    if not is_plugin(name) and name not in METHODS:
        raise UsageError(f"--method {name}: no such method; {nearest(name, names(), 'module:function')}")
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
            raise unknown(name, key)
    values = {key: each.parsed(given[key]) if key in given else each.default for key, each in known.items()}
    return {key: value.at(eps) if isinstance(value, AtRadius) else value for key, value in values.items()}


def unknown(name: str, key: str) -> UsageError:
    """Return the error for a hyper-parameter that a method has not."""
    own = ", ".join(parameters(name)) or "no hyper-parameters"
    return UsageError(f"--{key.replace('_', '-')}: {name} has no {key}; it has {own}")


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
            optional = argument.annotation is not None and _is_optional(ast.unparse(argument.annotation))
            found[argument.arg] = Parameter(argument.arg, value, told.get(argument.arg, ""), optional)
    return found


def _from_signature(name: str, function: Callable[..., Any]) -> dict[str, Parameter]:
    start = f"--method {name}"
    if "eps" not in keywords_of(function):
        raise UsageError(f"{start}: takes no eps; expected def my_method(net, x, y, *, eps, draws, ...)")
    told, annotations, found = _told(inspect.getdoc(function) or ""), inspect.get_annotations(function), {}
    for key, default in defaults_of(function, GIVEN, start).items():
        if key in RESERVED or not isinstance(default, float | int | str | None | AtRadius):
            raise UsageError(f"{start}: {key} = {default!r:.40} cannot be a flag; rename it, or make it a number")
        found[key] = Parameter(key, default, told.get(key, ""), _is_optional(str(annotations.get(key))))
    return found


def _is_optional(annotation: str) -> bool:
    """Say if an annotation is of a number or None: "float | None", "Optional[float]"."""
    return "float" in annotation and ("None" in annotation or "Optional" in annotation)


def _told(docstring: str) -> dict[str, str]:
    """Return what the section Args of a docstring says of each argument."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?)+)", docstring, re.MULTILINE)
    if section is None:
        return {}
    items = re.split(r"^ {4}(\w+): ", section[1], flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, text in zip(items[::2], items[1::2], strict=True)}
