"""The flags of `bsk train` that belong to a method: its hyper-parameters, read from its signature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bsk.cli.help import SectionedCommand
from bsk.contract.parameters import Parameter
from bsk.errors import UsageError
from bsk.methods import registry
from bsk.perturb.radius import AtRadius
from bsk.plugins import is_plugin

DEFAULT = "bs"


class MethodCommand(SectionedCommand):
    """A command with an option for each hyper-parameter of the method that `--method` names.

    `--gamma 2` is another way to write `--set gamma=2`, so that a method from outside has flags too.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        ctx.meta["bsk.method"] = _method(args)
        return list(super().parse_args(ctx, list(_as_set(args, registry.parameters(_method(args))))))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, then those of the method."""
        super().format_options(ctx, formatter)
        method = ctx.meta["bsk.method"]
        rows = [_told(each) for each in registry.parameters(method).values()]
        with formatter.section(f"Options of {method}: {registry.summary(method).removesuffix('.')}"):
            authors, year = ("", None) if is_plugin(method) else registry.source(method)
            if year:
                formatter.write_text(f"From {authors} ({year}); bsk methods has what it costs and needs.")
            formatter.write_dl(rows or [("(none)", "")])

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete the names of the method's options too."""
        items = super().shell_complete(ctx, incomplete)
        kind = next((type(each) for each in super().shell_complete(ctx, "--")), None)
        own = registry.parameters(ctx.meta["bsk.method"]).values() if incomplete else ()
        return [*items, *(kind(each.flag) for each in own if kind and each.flag.startswith(incomplete))]


def _method(args: list[str]) -> str:
    """Return the method that the arguments name."""
    name = DEFAULT
    for word, after in zip(args, [*args, ""][1:], strict=True):
        if word == "--method":
            name = after
        elif word.startswith("--method="):
            name = word.partition("=")[2]
    return registry.checked(name)


def _as_set(args: list[str], own: dict[str, Parameter]) -> Iterator[str]:
    """Yield the arguments, those that are hyper-parameters as `--set NAME=VALUE`."""
    foreign = {name for method in registry.names() for name in registry.parameters(method)} - own.keys()
    words = iter(args)
    for word in words:
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_") if flag.startswith("--") else ""
        switched_off = name.startswith("no_") and isinstance(own.get(name[3:], Parameter("", 0)).default, bool)
        if name in own:
            if not equals:
                value = "true" if isinstance(own[name].default, bool) else next(words, "")
            if not value:
                raise UsageError(f"{flag}: expected a value, as {flag} {_default(own[name])}")
            yield from ("--set", f"{name}={value}")
        elif switched_off and not equals:
            yield from ("--set", f"{name[3:]}=false")
        elif name in foreign:
            raise registry.unknown(_method(args), name)
        else:
            yield word


def _told(parameter: Parameter) -> tuple[str, str]:
    kind, flag = type(parameter.default), parameter.flag
    shown = f"{flag}/--no-{flag[2:]}" if kind is bool else f"{flag} {'NAME' if kind is str else 'X'}"
    return shown, f"{parameter.help} [default: {_default(parameter)}]"


def _default(parameter: Parameter) -> str:
    value = parameter.default
    if isinstance(value, AtRadius):
        return value.words
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value).lower()
