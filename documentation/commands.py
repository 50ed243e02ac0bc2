"""The page of the command line, generated from the commands' help."""

from __future__ import annotations

import re
from typing import Any

from bsk.cli.app import COMMANDS, built
from bsk.cli.hyper import help_row
from bsk.methods import registry

HEAD = """\
# Commands

This page is generated from `bsk COMMAND --help`. Data goes to stdout, everything else to stderr. Records are JSON. On a
terminal each is one readable line, unless `--json` is given. A number is written `8/255` or `0.031`. A radius is in
pixels of [0, 1].

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a bug |
| 2 | wrong usage |
| 3 | an input is missing, corrupt or does not match |
| 4 | the training diverged, or stopped because it collapsed |
| 5 | a condition of `--require` does not hold |
| 130, 143 | stopped by Ctrl-C or SIGTERM; the work so far is saved |
| 141 | the reader of a pipe has closed it |
"""


def page() -> str:
    """Return the page in Markdown."""
    parts = [HEAD, *(_command(name, built(name)) for name in sorted(COMMANDS)), _methods()]
    return "\n".join(parts)


def _command(name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    arguments = [each.metavar or each.name.upper() for each in command.params if each.param_type_name == "argument"]
    records = [record for each in command.params if (record := each.get_help_record(context))]
    rows = [(re.sub(r" <\S+>$", "", flag), text) for flag, text in records]
    usage = " ".join([f"    bsk {name} [OPTIONS]", *arguments])
    return "\n".join([f"## {name}\n", usage, "", _told_of(command.help), "", _table("flag", "meaning", rows), ""])


def _told_of(help: str) -> str:
    """Return a command's help as Markdown; paragraphs that must not be wrapped become code blocks."""
    paragraphs = [re.sub(r"^\x08\n", "", each) for each in help.split("\n\n")]
    return "\n\n".join(each if each.startswith("    ") else _escaped(" ".join(each.split())) for each in paragraphs)


def _methods() -> str:
    parts = ["## The flags of each method\n"]
    for name in registry.names():
        rows = [help_row(each) for each in registry.parameters(name).values()]
        told = _escaped(registry.summary(name))
        parts += [f"### {name}\n", told, "", _table("flag", "meaning", rows) if rows else "It has no flags.", ""]
    return "\n".join(parts)


def _table(left: str, right: str, rows: list[tuple[str, str]]) -> str:
    lines = [f"| `{flag.replace('|', chr(92) + '|')}` | {_escaped(' '.join(told.split()))} |" for flag, told in rows]
    return "\n".join([f"| {left} | {right} |", "|---|---|", *lines])


def _escaped(text: str) -> str:
    return re.sub(r"([\\|<*\[\]_])", r"\\\1", text)
