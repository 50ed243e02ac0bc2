"""`bsk methods`: the training methods, their cost and requirements, and which have collapsed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bsk.cli import options as o
from bsk.cli.console import emit, records_of
from bsk.devices import load_torch
from bsk.methods import registry
from bsk.terminal import note


def methods(
    logs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="LOG|-", help="JSONL logs of bsk train [default: counts from this project's own runs]."),
    ] = None,
    format: o.Format = None,
) -> None:
    r"""List the training methods and their costs.

    The table has paper, passes, memory, requirements, and how many runs have collapsed. Each method is run on a toy
    network to count its forward (F) and backward (B) passes per image and update, and the images it stores per training
    image, per batch position, per class and in total. A method that needs the whole batch does not run under torchrun;
    one that needs validation attacks val images as it trains; second order are gradients of gradients.
    A run has collapsed if its log has an alarm; an empty cell means that no run was monitored. In a pipe the table is
    TSV: 1 method, 2 paper, 3 year, 4 forward, 5 backward, ..., 14 about, which says in a line what a method does.

        bsk methods | sort -t$'\t' -k4 -n
        bsk methods runs/*.jsonl
    """
    load_torch()
    from bsk.comparison.survey import TEXT_COLUMNS, cells, count_collapses, recorded_collapses, survey
    from bsk.comparison.tables import checked_format, printed

    chosen = checked_format(format or ("table" if sys.stdout.isatty() else "tsv"))
    counts = count_collapses(records_of("methods", logs)) if logs else recorded_collapses()
    if not counts:
        note("these files have no log of a monitored training, so no run is counted")
    if others := sorted({each.method for each in counts} - {*registry.names()}):
        note(f"methods from outside bsk are not listed: {', '.join(others)}")
    rows = survey(counts)
    runs = "these logs" if logs else "the records of this project"
    caption = f"The methods of bsk, and how many runs collapsed in {runs}."
    emit(printed(rows, chosen, cells(rows), TEXT_COLUMNS, caption))
