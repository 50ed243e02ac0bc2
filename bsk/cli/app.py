"""The command line: the commands, and the options that all share."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bsk.cli.compare import compare
from bsk.cli.console import emit, guarded
from bsk.cli.evaluate import attack, evaluate
from bsk.cli.export import export
from bsk.cli.help import WIDEST, SectionedCommand
from bsk.cli.hyper import MethodCommand
from bsk.cli.methods import methods
from bsk.cli.plan import plan
from bsk.cli.plot import plot
from bsk.cli.prepare_data import prepare_data
from bsk.cli.report import report
from bsk.cli.schema import schema
from bsk.cli.starts import starts
from bsk.cli.train import train
from bsk.terminal import CHOICES
from bsk.version import VERSION

COMMANDS = {
    each.__name__.replace("_", "-"): each
    for each in (prepare_data, train, attack, evaluate, compare, starts, plot, report, export, plan, methods, schema)
}


class CommandGroup(TyperGroup):
    """All commands. A command is built when it is asked for, since building the options of all takes 20 ms."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None; an unknown name builds all of them, because typer suggests names from these."""
        for name in [cmd_name] if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.commands[name] = built(name)
        return self.commands.get(cmd_name)


def built(name: str) -> Any:
    """Return a command as typer builds it."""
    command, alone = COMMANDS[name], typer.Typer(add_completion=False, rich_markup_mode=None)
    kind = MethodCommand if command is train else SectionedCommand
    alone.command(name, cls=kind, help=_paragraphs(command))(_with_expanded_paths(command))
    return typer.main.get_command(alone)


app = typer.Typer(
    name="bsk",
    cls=CommandGroup,
    help="Train image classifiers that withstand adversarial perturbations, and measure whether they do.",
    epilog="\b\nbsk prepare-data digits\n"
    "bsk train --dataset digits --epochs 30 --schedule cyclic --out bs.safetensors\n"
    "bsk evaluate bs.safetensors --attack natural,pgd-20 | bsk compare",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDEST},
)


def _paragraphs(command: Callable[..., object]) -> str:
    """Return a command's docstring, with its indented examples marked so that click does not wrap them."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join("\b\n" + p if p.startswith("    ") else p for p in paragraphs)


def _with_expanded_paths(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with ~ expanded in its paths, because a shell leaves a quoted ~ as it is."""

    def expanded(value: Any) -> Any:
        if isinstance(value, list):
            return [expanded(each) for each in value]
        return Path(os.path.expanduser(value)) if isinstance(value, Path) else value

    @functools.wraps(command)
    def run(*words: Any, **flags: Any) -> None:
        command(*words, **{name: expanded(value) for name, value in flags.items()})

    return run


def _version(value: bool) -> None:
    if value:
        emit(f"bsk {VERSION}")
        raise typer.Exit


@app.callback()
def _shared(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
) -> None:
    CHOICES.debug = debug


def main() -> None:
    """Run the command named by the arguments and end the process with its exit code."""
    guarded(lambda: app(standalone_mode=False))
