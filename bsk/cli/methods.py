"""`bsk methods`: which there are, what they cost and need, and which have collapsed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bsk.cli import options as o
from bsk.cli.console import emit, records_of
from bsk.devices import load_torch


def methods(
    logs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="LOG|-", help="JSONL logs of bsk train [default: this project's own, counted]."),
    ] = None,
    format: o.Format = None,
) -> None:
    r"""List the methods, their papers, passes, memory and needs, and where trainings collapsed.

    Each is run on a toy network to count the passes of one image in one update, F forward and B backward, and the
    images that it keeps: for each training image, each place of a batch, each class, and in all. A method that needs a
    whole batch does not run under torchrun. A training has collapsed where its log has an alarm; where nothing stands
    under collapsed, none was watched. Piped, the table is TSV: 1 method, 2 paper, 3 year, 4 forward, 5 backward, ...

        bsk methods | sort -t$'\t' -k4 -n
        bsk methods runs/*.jsonl
    """
    load_torch()
    from bsk.comparison.survey import TEXT_COLUMNS, cells, count_collapses, recorded_collapses, survey
    from bsk.comparison.tables import checked_format, printed

    chosen = checked_format(format or ("table" if sys.stdout.isatty() else "tsv"))
    rows = survey(count_collapses(records_of("methods", logs)) if logs else recorded_collapses())
    told = f"The methods of bsk, and where they collapsed in {'these logs' if logs else 'the records of this project'}."
    emit(printed(rows, chosen, cells(rows), TEXT_COLUMNS, told))
