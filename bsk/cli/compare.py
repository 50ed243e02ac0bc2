"""`bsk compare`: from records of evaluations and logs to a table with one row per method and attack."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

from bsk.cli import options as o
from bsk.cli.console import STDIN, emit, records_of
from bsk.errors import InputError, RequirementError, UsageError
from bsk.terminal import note


def compare(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE|-", help="Records of bsk evaluate, and logs of bsk train.")
    ] = None,
    format: o.Format = None,
    out: Annotated[
        list[Path] | None,
        o.option("--out", metavar="F", help="Also write F.txt, .tsv, .jsonl, .md or .tex; may be repeated."),
    ] = None,
    plot: Annotated[
        Path | None, o.option("--plot", metavar="F", help="Draw accuracy against training cost, as F.png or F.svg.")
    ] = None,
    paper: Annotated[
        str | None,
        o.option("--paper", metavar="TABLE", help="Add the paper's numbers: 2, 6/cifar100, section54."),
    ] = None,
    pareto: Annotated[
        bool, o.option("--pareto", help="Mark rows that no other dominates in robust accuracy and passes.")
    ] = False,
    matrix: Annotated[
        bool,
        o.option("--matrix", help="For bsk evaluate --images: saved images against networks."),
    ] = False,
    require: Annotated[
        list[str] | None,
        o.option(
            "--require",
            metavar="CONDITION",
            help="Exit with 5 unless it holds: 'bs.difference_low > 0'; may be repeated.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        o.option("--by", metavar="class|corruption", help="One row per class, or per corruption and severity."),
    ] = None,
    title: Annotated[str | None, o.option("--title", metavar="TEXT", help="Title of the table.")] = None,
    quiet: o.Quiet = False,
) -> None:
    r"""Compare methods in one table.

    One row per method and attack: seeds are pooled, intervals are 95 %, and differences to the first row come with a
    paired exact test. Best epochs, last epochs and weight averages are each compared with the first row of their kind.
    A row with another eps, split, dataset or attack than the first is not compared with it, and says so.
    In a pipe the table is TSV: 1 name, 2 model, 3 eps, 4 natural, 5 robust, ...

    --require uses the columns of --format jsonl: ROW.COLUMN, or COLUMN for every row; NAME@ATTACK.COLUMN or
    NAME@ATTACK@SELECTED.COLUMN where a name has several rows. robust is a point estimate, robust_low and
    difference_low are ends of intervals; tables show p_holm as p. --by class has Wilson intervals, widened over seeds.

        bsk compare results.jsonl | sort -t$'\t' -k5 -nr | head -3
        bsk compare results.jsonl --paper 2 --format markdown
        bsk compare results.jsonl --out table.md --out table.tex --plot f.png
        bsk compare results.jsonl --by corruption
        bsk compare results.jsonl --require 'robust_low > 0.4'
        bsk compare results.jsonl --by class --format jsonl | jq .robust
    """
    from bsk.comparison.tables import checked_format, format_of

    chosen = checked_format(format or ("table" if sys.stdout.isatty() else "tsv"))
    flags = {"--plot": plot, "--paper": paper, "--pareto": pareto, "--require": require, "--title": title}
    if matrix and by:
        raise UsageError(f"--by {by}: cannot be combined with --matrix; leave one out")
    if view := "matrix" if matrix else by:
        _print_view(view, files, chosen, out or [], [flag for flag, given in flags.items() if given])
        return
    _print_rows(files, chosen, {path: format_of(path) for path in out or []}, flags)


def _print_rows(files: list[Path] | None, format: str, outputs: Mapping[Path, str], flags: Mapping[str, Any]) -> None:
    """Print the table of methods, and write its files and its plot; raise a RequirementError at the end."""
    from bsk.comparison.compare import compare as rows_of
    from bsk.comparison.published import published
    from bsk.comparison.requirements import failures, parse
    from bsk.comparison.tables import render
    from bsk.figures.canvas import checked_picture
    from bsk.figures.plots import accuracy_against_cost
    from bsk.records.words import printable

    paper, plot, title = flags["--paper"], flags["--plot"], flags["--title"]
    beside = None if paper is None else published(paper)
    target = None if plot is None else checked_picture(plot, "--plot")
    required = [parse(text) for text in flags["--require"] or []]
    read = count()
    items = (item for item, _ in zip(records_of("compare", files), read, strict=False))
    rows, notices = rows_of(items, beside, title and printable(title), flags["--pareto"])
    if not rows:
        raise InputError(f"{_listed(files)}: no evaluation or log records among {next(read)}; run bsk evaluate")
    for notice in notices + (accuracy_against_cost(rows, target) if target else []):
        note(notice)
    _print(lambda kind: render(rows, kind), format, outputs)
    unmet = [line for each in required for line in failures(each, rows)]
    if unmet:
        raise RequirementError("; ".join(unmet))


def _print_view(view: str, files: list[Path] | None, format: str, out: Sequence[Path], others: Sequence[str]) -> None:
    """Print another view of the records: by class, by corruption, or the matrix of saved images and networks."""
    from bsk.comparison.tables import format_of
    from bsk.comparison.views import VIEWS
    from bsk.values import one_of

    one_of("by", view, list(VIEWS))
    if others:
        raise UsageError(f"{others[0]}: cannot be combined with --{view if view == 'matrix' else 'by'}; leave one out")
    outputs = {path: format_of(path) for path in out}
    make, nothing = VIEWS[view]
    found = make(records_of("compare", files))
    if found is None:
        raise InputError(f"{_listed(files)}: {nothing}")
    for notice in found.notices:
        note(notice)
    _print(found.printed, format, outputs)


def _print(render: Callable[[str], str], format: str, outputs: Mapping[Path, str]) -> None:
    """Write a table to each file in the format of its ending, then print it."""
    from bsk.records.atomic import replacing
    from bsk.records.jsonl import check_no_records

    for path in outputs:
        check_no_records(path)
    for path, kind in outputs.items():
        with replacing(path) as temporary:
            temporary.write_text(render(kind), encoding="utf-8")
    emit(render(format))


def _listed(files: Sequence[Path] | None) -> str:
    return ", ".join("stdin" if path == STDIN else str(path) for path in files or [STDIN])
