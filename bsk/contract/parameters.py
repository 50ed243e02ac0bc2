"""The hyper-parameters of a method: the keyword arguments that training does not supply."""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bsk.errors import UsageError
from bsk.perturb import radius
from bsk.perturb.radius import AtRadius
from bsk.signature import defaults_of, keywords_of, typed
from bsk.values import above_zero, pixel_step

GIVEN = (
    "eps",
    "draws",
    "memory",
    "update",
    "epoch",
    "progress",
    "validate",
)  # supplied by training: not flags

# fmt: off
RESERVED = {  # other flags of `bsk train`
    "method", "dataset", "data", "out", "model", "set", "hyper", "epochs", "batch_size", "schedule", "lr",
    "momentum", "weight_decay", "precision", "augment", "select", "log_divergence", "ema", "label_smoothing", "awp",
    "warmup", "on_collapse", "save_every", "limit", "seed", "device", "threads", "force", "json", "quiet", "progress",
    "help", "init", "extra", "extra_fraction", "compile",
}
# fmt: on
POSITIVE = ("step", "bound", "replays", "every", "rescue_every", "reset", "samples", "checks", "until")
SHARES = ("share",)  # hyper-parameters from 0 to 1


@dataclass(frozen=True)
class Parameter:
    """A hyper-parameter: its name, its default, its help text, and whether it may also be None."""

    name: str
    default: Any
    help: str = ""
    optional: bool = False

    @property
    def flag(self) -> str:
        """Its flag in `bsk train`."""
        return f"--{self.name.replace('_', '-')}"

    def parsed(self, value: Any) -> Any:
        """Return a value, or the text of a flag, converted to the type of the default.

        "8/255" is a number, "none" is None.

        Raises:
            UsageError: the value has another type, is not finite, or is out of range.
        """
        if self.optional and str(value).lower() == "none":
            return None
        kind = float if self.optional or isinstance(self.default, AtRadius) else None
        found = typed(self.name, value, self.default, kind)
        if isinstance(found, float | int) and not isinstance(found, bool):
            usual = self.default if isinstance(self.default, float | int) else 1.0
            if usual >= 0:  # the default of someone else's method may be negative
                above_zero(or_zero=self.name not in POSITIVE or usual == 0, **{self.name: found})
            if self.name == "step" and isinstance(self.default, AtRadius):
                pixel_step(found)
            if self.name in SHARES and 0 <= usual <= 1 < found:
                raise UsageError(f"{self.flag} {found:g}: must be at most 1")
        return found


def resolve(method: str, known: Mapping[str, Parameter], eps: float, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of each hyper-parameter at the radius eps: the given one, parsed if it is text, or the default.

    Args:
        method: what the message calls the method.
        known: its hyper-parameters.
        eps: the radius.
        given: values by name.

    Raises:
        UsageError: the method has no hyper-parameter of that name, or a value is invalid.
    """
    for key in given:
        if key not in known:
            raise unknown(method, known, key)
    values = {key: each.parsed(given[key]) if key in given else each.default for key, each in known.items()}
    return {key: value.at(eps) if isinstance(value, AtRadius) else value for key, value in values.items()}


def unknown(method: str, known: Mapping[str, Parameter], key: str) -> UsageError:
    """Return the error for a hyper-parameter that a method does not have, with the nearest flag of all trainings."""
    import difflib

    own = ", ".join(known) or "no hyper-parameters"
    close = difflib.get_close_matches(key, RESERVED - {key}, n=1, cutoff=0.8)
    advice = f"; did you mean {close[0]}?" if close else ""
    return UsageError(f"--{key.replace('_', '-')}: {method} has no {key}; it has {own}{advice}")


def from_source(definition: ast.FunctionDef) -> dict[str, Parameter]:
    """Return the hyper-parameters of one of bsk's own functions, read from its source.

    Its defaults may use numbers and the names in `bsk.perturb.radius`.
    """
    texts = _argument_help(ast.get_docstring(definition) or "")
    found = {}
    for argument, default in zip(definition.args.kwonlyargs, definition.args.kw_defaults, strict=True):
        if default is not None:
            value = eval(compile(ast.Expression(default), "default", "eval"), vars(radius))
            optional = argument.annotation is not None and _is_optional(ast.unparse(argument.annotation))
            found[argument.arg] = Parameter(argument.arg, value, texts.get(argument.arg, ""), optional)
    return found


def from_signature(name: str, function: Callable[..., Any]) -> dict[str, Parameter]:
    """Return the hyper-parameters of a plugin function.

    Raises:
        UsageError: it breaks the contract.
    """
    start = f"--method {name}"
    if "eps" not in keywords_of(function):
        raise UsageError(f"{start}: takes no eps; expected def my_method(net, x, y, *, eps, draws, ...)")
    texts, annotations, found = _argument_help(inspect.getdoc(function) or ""), inspect.get_annotations(function), {}
    for key, default in defaults_of(function, GIVEN, start).items():
        infinite = isinstance(default, float) and not math.isfinite(default)
        if key in RESERVED or infinite or not isinstance(default, float | int | str | None | AtRadius):
            advice = "make it finite" if infinite else "rename it, or make it a number"
            raise UsageError(f"{start}: {key} = {default!r:.40} cannot be a flag; {advice}")
        if key == "replays" and (not isinstance(default, int) or default < 1):
            raise UsageError(f"{start}: replays = {default!r:.40}: expected a whole number of at least 1")
        found[key] = Parameter(key, default, texts.get(key, ""), _is_optional(str(annotations.get(key))))
    return found


def _is_optional(annotation: str) -> bool:
    """Return whether an annotation means a number or None: "float | None", "Optional[float]"."""
    return "float" in annotation and ("None" in annotation or "Optional" in annotation)


def _argument_help(docstring: str) -> dict[str, str]:
    """Return the description of each argument in the Args section of a docstring."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?)+)", docstring, re.MULTILINE)
    if section is None:
        return {}
    items = re.split(r"^ {4}(\w+): ", section[1], flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, text in zip(items[::2], items[1::2], strict=True)}
