"""`bsk compare`: records of evaluations and logs in, one row per method and attack out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from bsk.cli import options as o
from bsk.cli.console import STDIN, emit, records_of
from bsk.errors import InputError, RequirementError, UsageError
from bsk.terminal import note


def compare(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE|-", help="JSONL of bsk evaluate, and logs of bsk train.")
    ] = None,
    format: o.Format = None,
    out: Annotated[
        list[Path] | None, o.option("--out", help="Write it also to F.txt, .tsv, .jsonl, .md or .tex; once for each.")
    ] = None,
    plot: Annotated[
        Path | None, o.option("--plot", help="Draw accuracy against training cost into F.png or F.svg.")
    ] = None,
    paper: Annotated[
        str | None,
        o.option("--paper", metavar="TABLE[/DATASET]", help="The paper's numbers beside: 2, 6/cifar100, section54."),
    ] = None,
    pareto: Annotated[
        bool, o.option("--pareto", help="Mark the rows that no other beats in both robust accuracy and passes.")
    ] = False,
    matrix: Annotated[
        bool,
        o.option("--matrix", help="Of bsk evaluate --images: how each file's images fare on each network."),
    ] = False,
    require: Annotated[
        list[str] | None,
        o.option(
            "--require", metavar="CONDITION", help="Exit with 5 unless it holds: 'bs.robust - fast-at.robust > 0'."
        ),
    ] = None,
    by: Annotated[
        str | None,
        o.option("--by", metavar="class|corruption", help="A row for each class, or for each corruption by severity."),
    ] = None,
    title: Annotated[str | None, o.option("--title", help="Of the table, in its caption and last column.")] = None,
    quiet: o.Quiet = False,
) -> None:
    r"""Compare methods in one table.

    Seeds are pooled, intervals are of 95 %, differences to the first row come with a paired exact test. The best epoch,
    the last one and the averages of both are compared each with the first of their own kind.

    One row per method and attack. Rows of another eps, split, data or attack than the first are not compared
    with it, and say so. Piped, the table is TSV: 1 name, 2 model, 3 eps, 4 natural, 5 robust, ...

    A condition of --require is about the table's columns, as bsk compare --format jsonl has them: ROW.COLUMN, or COLUMN
    alone for every row; NAME@ATTACK.COLUMN or NAME@ATTACK@SELECTED.COLUMN where a name has several rows.

    With --by class there is a row a method, attack and class, with Wilson intervals, or of several seeds wider ones.

        bsk compare results.jsonl | sort -t$'\t' -k5 -nr | head -3
        bsk compare results.jsonl --paper 2 --format markdown
        bsk compare results.jsonl --out table.md --out table.tex --plot figure.png
        bsk compare transfer.jsonl --matrix
        bsk compare results.jsonl --by corruption
        bsk compare results.jsonl --require 'robust_low > 0.4' --require 'bs.difference_low > 0'
        bsk compare results.jsonl --by class --format jsonl | jq -s 'min_by(.robust)'
    """
    from bsk.comparison.compare import compare as rows_of
    from bsk.comparison.published import published
    from bsk.comparison.requirements import failures, parse
    from bsk.comparison.tables import checked_format, format_of, render
    from bsk.figures.canvas import checked_picture
    from bsk.figures.plots import accuracy_against_cost
    from bsk.records.atomic import replacing
    from bsk.records.words import printable

    chosen = checked_format(format or ("table" if sys.stdout.isatty() else "tsv"))
    if view := "matrix" if matrix else by:
        others = {"--plot": plot, "--paper": paper, "--pareto": pareto, "--require": require, "--title": title}
        return _tell(view, files, chosen, out or [], [flag for flag, given in others.items() if given])
    beside = None if paper is None else published(paper)
    texts = {path: format_of(path) for path in out or []}
    target = None if plot is None else checked_picture(plot, "--plot")
    required = [parse(text) for text in require or []]
    read = count()
    items = (item for item, _ in zip(records_of("compare", files), read, strict=False))
    rows, notices = rows_of(items, beside, title and printable(title), pareto)
    if not rows:
        names = ", ".join("stdin" if path == STDIN else str(path) for path in files or [STDIN])
        raise InputError(f"{names}: no evaluation or log records among {next(read)}; run bsk evaluate")
    for notice in notices + (accuracy_against_cost(rows, target) if target else []):
        note(notice)
    for path, kind in texts.items():
        with replacing(path) as temporary:
            temporary.write_text(render(rows, kind), encoding="utf-8")
    emit(render(rows, chosen))
    unmet = [line for each in required for line in failures(each, rows)]
    if unmet:
        raise RequirementError("; ".join(unmet))


def _tell(view: str, files: list[Path] | None, format: str, out: Sequence[Path], others: Sequence[str]) -> None:
    """Print a table of other rows, and write it to files by their endings."""
    from bsk.comparison.tables import format_of
    from bsk.comparison.views import VIEWS
    from bsk.records.atomic import replacing
    from bsk.values import one_of

    one_of("by", view, list(VIEWS))
    if others:
        raise UsageError(f"{others[0]}: does not go with --{view if view == 'matrix' else 'by'}; leave one out")
    texts = {path: format_of(path) for path in out}
    make, nothing = VIEWS[view]
    found = make(records_of("compare", files))
    if found is None:
        names = ", ".join("stdin" if path == STDIN else str(path) for path in files or [STDIN])
        raise InputError(f"{names}: {nothing}")
    for notice in found.notices:
        note(notice)
    for path, kind in texts.items():
        with replacing(path) as temporary:
            temporary.write_text(found.printed(kind), encoding="utf-8")
    emit(found.printed(format))
