"""`bsk plan`: estimate the cost of a list of jobs on this device before running them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from bsk.cli import options as o
from bsk.cli.console import emit
from bsk.cli.prices import COLUMNS, JOBS, Job, Prices
from bsk.devices import chosen_device, load_torch
from bsk.errors import InputError, UsageError
from bsk.terminal import note


def plan(
    context: typer.Context,
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE|-", help="The output of make jobs-TABLE.")] = None,
    device: o.Device = "auto",
    quiet: o.Quiet = False,
) -> None:
    """Estimate the cost of jobs on this device.

    Reads one job per line: command, output file and flags, separated by tabs, and a fourth column `changed` if the
    output was made with other flags. Prints whether each job is done, its passes, hours and disk space; the last line
    is the total of the remaining jobs, run one after another. A few passes of each network and precision are timed.
    Evaluations are rough estimates: how many examples an attack breaks early is not known in advance.

        make plan-table8 SCALE=paper
        make jobs-table8 | bsk plan --device cuda
    """
    jobs = list(_jobs(_lines(files), context.find_root()))
    if not jobs:
        raise UsageError("plan: no jobs; pipe in the output of make jobs-table8")
    load_torch()
    prices = Prices(chosen_device(device, None))
    missing = {name for job in jobs if (name := prices.assumed(job))}
    for name in sorted(missing):
        note(f"{name}: not prepared yet; assuming the official number of images")
    lines = [prices.line(job) for job in jobs if job.command != "prepare-data"]
    left = [round(sum(line[column] for line in lines if not line["done"]), 5) for column in COLUMNS[3:]]
    todo = f"{sum(not line['done'] for line in lines)} of {len(lines)}"
    lines.append(dict(zip(COLUMNS, ("left", todo, False, *left), strict=True)))
    cells = [COLUMNS, *(line.values() for line in lines)]
    emit(_table(lines) if sys.stdout.isatty() else "\n".join("\t".join(map(str, line)) for line in cells))


def _lines(files: list[Path] | None) -> Iterator[str]:
    if not files and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError("plan: no jobs; pipe in the output of make jobs-table8")
    for path in files or [Path("-")]:
        if str(path) == "-":
            yield from sys.stdin
            continue
        try:
            yield from path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot read; give the output of make jobs-table8") from error


def _jobs(lines: Iterable[str], root: Any) -> Iterator[Job]:
    """Yield each job once, its flags parsed as the command itself parses them.

    Raises:
        UsageError: a line is not a job, or its flags cannot be split as a shell would.
        typer.BadParameter and its like: the command would reject the flags.
    """
    seen = set()
    for line in lines:
        command, target, flags, changed = [*line.rstrip("\n").split("\t"), "", "", ""][:4]
        if command not in JOBS:
            raise UsageError(f"plan: {command[:40]!r} is not a job; expected the output of make jobs-table8")
        if target not in seen:
            seen.add(target)
            parser = root.command.get_command(root, command)
            context = parser.make_context(command, _words(target, flags), help_option_names=[])
            yield Job(command, target, context.params, changed == "changed")


def _words(target: str, flags: str) -> list[str]:
    try:
        return shlex.split(flags)
    except ValueError as error:
        raise UsageError(f"plan: {target}: {str(error).lower()} in {flags[:60]!r}; quote it as for a shell") from error


def _table(lines: list[dict[str, Any]]) -> str:
    from bsk.comparison.tables import aligned
    from bsk.records.words import many

    rows = [["job", "target", "done", "passes", "hours", "MB"]]
    for line in lines:
        passes = many(line["forward_passes"] + line["backward_passes"])
        done = "yes" if line["done"] else ""
        rows.append([line["job"], line["target"], done, passes, f"{line['hours']:.2f}", f"{line['megabytes']:.0f}"])
    return "\n".join(line.rstrip() for line in aligned(rows, rows[0][:3]))
