"""The flags that several commands share, and the parser of numbers such as 8/255."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bsk import values
from bsk.evaluation.flags import SPLITS
from bsk.terminal import CHOICES
from bsk.values import one_of


def number(text: str | float) -> float:
    """Return the value of "0.031" or "8/255"; raise a BadParameter unless it is a finite number."""
    try:
        return values.number(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def radii(text: str | float) -> float | list[float]:
    """Return the value of "8/255", or the list of "2/255,4/255"; raise a BadParameter unless all are finite numbers."""
    values = [number(each) for each in str(text).split(",")]
    return values if len(values) > 1 else values[0]


def completing(known: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """Return a shell completion over names, which may be separated by commas."""

    def complete(incomplete: str) -> list[str]:
        head, comma, tail = incomplete.rpartition(",")
        return [head + comma + name for name in known() if name.startswith(tail)]

    return complete


DATASETS = ["digits", "cifar10", "cifar100", "tiny-imagenet", "cifar10.1", "cifar10-c", "cifar100-c", "folder"]
CORRUPTED = ["cifar10-c", "cifar100-c"]  # one data file per corruption and severity
STARTS = ["zero", "uniform", "gaussian", "noise", "bernoulli", "backward"]
ATTACKS = [
    "natural", "fgsm", "pgd-20", "pgd-100", "pgd-50x10", "cw-100", "apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square",
    "rays", "autoattack", "autoattack-rand", "screen",
]  # fmt: skip


def _quiet(value: bool) -> bool:
    CHOICES.quiet = value
    return value


def _json(value: bool) -> bool:
    CHOICES.json = value
    return value


def option(*names: str, help: str, **more: Any) -> Any:
    """Return an option whose help text states its default in its own words."""
    return typer.Option(*names, help=help, show_default=False, **more)


def count(*names: str, help: str, least: int = 1, **more: Any) -> Any:
    """Return an option for a whole number of at least `least`; the number N in its help."""
    return typer.Option(*names, help=help, min=least, metavar="N", **more)


Dataset = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Prepared data, data/NAME.safetensors.", autocompletion=completing(lambda: DATASETS)
    ),
]
DataPath = Annotated[Path | None, option("--data", metavar="F", help="Prepared data by path, instead of --dataset.")]
Eps = Annotated[
    float | None,
    option(parser=number, metavar="X", help="Radius for pixels in [0, 1], as 8/255 [default: the data's]."),
]
Radii = Annotated[
    float | None,
    option(
        "--eps",
        parser=radii,
        metavar="X[,X...]",
        help="Radius for pixels in [0, 1], as 8/255 [default: the model's]; bsk evaluate takes several.",
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")]
Threads = Annotated[
    int | None, count(help="CPU threads [default: all, or fewer on a busy machine].", show_default=False)
]
Compile = typer.Option(
    metavar="WHEN", help="torch.compile: on, off, or auto, for work of more than 5 GPU minutes or 1 CPU hour."
)
Limit = Annotated[int | None, count(help="Only the first N, in a fixed class-balanced order.", show_default=False)]
DatasetOfModel = Annotated[
    str | None,
    option("--dataset", metavar="NAME", help="Prepared data [default: the training data; with --weights cifar10]."),
]
SplitName = Annotated[str, typer.Option("--split", metavar="NAME", help=f"{', '.join(SPLITS[:-1])} or {SPLITS[-1]}.")]
Quiet = Annotated[bool, option("--quiet", callback=_quiet, help="Print no progress and no notes on stderr.")]
Json = Annotated[bool, option("--json", callback=_json, help="Print JSON on a terminal too, as in a pipe.")]
FORMATS = ["table", "tsv", "jsonl", "markdown", "latex"]
Format = Annotated[
    str | None,
    option(
        "--format",
        metavar="NAME",
        autocompletion=completing(lambda: FORMATS),
        help="table, tsv, jsonl, markdown or latex [default: table; tsv in a pipe].",
    ),
]
Force = Annotated[bool, option("--force", help="Replace existing files.")]
Rows = Annotated[
    int | None,
    count("--batch-size", help="Batch size [default: 512; fewer on a CPU or for large images].", show_default=False),
]
Attacks = Annotated[
    str,
    typer.Option(
        "--attack",
        metavar="A[,A...]",
        help="natural, fgsm, pgd-K, pgd-KxR (R restarts), cw-K, apgd-ce, apgd-dlr, apgd-t, fab-t, square, rays, "
        "autoattack, autoattack-rand, screen (apgd-ce and apgd-t alone: an upper bound), module:function.",
        autocompletion=completing(lambda: ATTACKS),
    ),
]


def starts_named(names: str) -> list[str]:
    """Return the starts that a flag names, without duplicates; raise a UsageError for an unknown one."""
    return [one_of("start", name, STARTS) for name in dict.fromkeys(names.split(","))]
