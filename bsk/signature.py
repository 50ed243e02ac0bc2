"""Hyper-parameters of plugins: the keyword arguments of a function with their defaults, and values set for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from bsk.errors import UsageError, nearest
from bsk.values import exact, number, plain

POSITIONS = 3  # positional arguments of methods and attacks: network or model, images, labels
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def defaults_of(function: Callable[..., Any], given: Collection[str], start: str) -> dict[str, Any]:
    """Return the hyper-parameters of a function with their defaults, in order.

    Args:
        function: takes its first three arguments by position, the others by keyword.
        given: names of keyword arguments that bsk supplies, which need no default.
        start: what messages begin with, flag and name.

    Raises:
        UsageError: a keyword argument that bsk does not supply has no default.
    """
    keywords = keywords_of(function)
    for name, default in keywords.items():
        if default is inspect.Parameter.empty and name not in given:
            raise UsageError(f"{start}: its argument {name} has no default; give it one, so that it can be left out")
    return {name: plain(default) for name, default in keywords.items() if name not in given}


def keywords_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments after the first three, with their defaults or `inspect.Parameter.empty`."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some functions written in C have no signature
        return {}
    return {
        each.name: each.default
        for place, each in enumerate(parameters)
        if each.kind is each.KEYWORD_ONLY or (each.kind is each.POSITIONAL_OR_KEYWORD and place >= POSITIONS)
    }


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """Return the settings "alpha=0.5" etc. as a dict from name to text.

    Raises:
        UsageError: a text has no name or no value, or a name occurs twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals):
            raise UsageError(f"--set {text}: expected NAME=VALUE; write alpha=0.5")
        if name in found:
            raise UsageError(f"--set {text}: {name} is set twice; set it once")
        found[name] = value
    return found


def chosen(defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults updated with the settings, each converted to the type of its default.

    Raises:
        UsageError: there is no such name, or the value has the wrong type.
    """
    for name in settings:
        if name not in defaults:
            known = nearest(name, list(defaults)) if defaults else "the function has none"
            raise UsageError(f"--set {name}: no such argument; {known}")
    return {**defaults, **{name: typed(name, value, defaults[name]) for name, value in settings.items()}}


def typed(name: str, value: Any, default: Any, kind: type | None = None) -> Any:
    """Return a value, or the value of a text, in the type of `default` or `kind`.

    A default of None accepts numbers and text.

    Raises:
        UsageError: the value has another type.
    """
    kind = kind or type(default)
    value = exact(value)
    try:
        if kind is type(None):
            return _guessed(value) if isinstance(value, str) else value
        if isinstance(value, str):
            return _PARSERS[kind](value)
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            raise ValueError
    except (KeyError, ValueError) as error:
        expected = KINDS.get(kind, f"a {kind.__name__}, which can be set from Python only")
        raise UsageError(f"--set {name}={value}: expected {expected}, like its default {default!r}") from error
    return value


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _guessed(text: str) -> float | str | None:
    try:
        return None if text.lower() == "none" else number(text)
    except ValueError:
        return text


_PARSERS: dict[type, Callable[[str], Any]] = {bool: _truth, int: int, float: number, str: str}
