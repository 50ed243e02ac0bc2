"""The flags of `bsk train` that belong to one method: its hyper-parameters, read from its signature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bsk.cli.help import FLAG_COLUMN, SectionedCommand
from bsk.compat import unknown_option
from bsk.contract.parameters import Parameter, unknown
from bsk.errors import UsageError, nearest
from bsk.methods import registry
from bsk.perturb.radius import AtRadius
from bsk.plugins import is_plugin

DEFAULT = "bs"


class MethodCommand(SectionedCommand):
    """A command with an option for each hyper-parameter of the method that `--method` names.

    `--gamma 2` means `--set gamma=2`, so a user's own `module:function` has flags too.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        method = ctx.meta["bsk.method"] = _method(args)
        own = registry.parameters(method)
        try:
            return list(super().parse_args(ctx, list(_as_set(args, own))))
        except Exception as error:
            if (name := unknown_option(error)) is None:
                raise
            known = [flag for each in self.params for flag in each.opts] + [each.flag for each in own.values()]
            raise UsageError(f"{name}: no such option with --method {method}; {nearest(name, known)}") from error

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, then those of the method."""
        super().format_options(ctx, formatter)
        method = ctx.meta["bsk.method"]
        rows = [help_row(each) for each in registry.parameters(method).values()]
        authors, year = ("", None) if is_plugin(method) else registry.source(method)
        source = f" From {authors} ({year}); for its cost see bsk methods." if year else ""
        with formatter.section(f"Options of {method}"):
            formatter.write_text(f"{registry.summary(method).removesuffix('.')}.{source}")
            formatter.write_dl(rows or [("(none)", "")], col_max=FLAG_COLUMN)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete the names of the method's options too."""
        items = super().shell_complete(ctx, incomplete)
        kind = next((type(each) for each in super().shell_complete(ctx, "--")), None)
        own = registry.parameters(ctx.meta["bsk.method"]).values() if incomplete else ()
        return [*items, *(kind(each.flag) for each in own if kind and each.flag.startswith(incomplete))]


def _method(args: list[str]) -> str:
    """Return the method named by the arguments."""
    name = DEFAULT
    for word, after in zip(args, [*args, ""][1:], strict=True):
        if word == "--method":
            name = after
        elif word.startswith("--method="):
            name = word.partition("=")[2]
    return registry.checked(name)


def _as_set(args: list[str], own: dict[str, Parameter]) -> Iterator[str]:
    """Yield the arguments, with each hyper-parameter rewritten as `--set NAME=VALUE`."""
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
            raise unknown(_method(args), own, name)
        else:
            yield word


def help_row(parameter: Parameter) -> tuple[str, str]:
    """Return the flag of a hyper-parameter and its help text."""
    kind, flag = type(parameter.default), parameter.flag
    shown = f"{flag}/--no-{flag[2:]}" if kind is bool else f"{flag} {'NAME' if kind is str else 'X'}"
    return shown, f"{parameter.help} [default: {_default(parameter)}]"


def _default(parameter: Parameter) -> str:
    value = parameter.default
    if isinstance(value, AtRadius):
        return value.words
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value).lower()
