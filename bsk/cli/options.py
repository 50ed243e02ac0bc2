"""The flags that commands share, each spelt once, and the parser of 8/255."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bsk import values
from bsk.errors import UsageError
from bsk.evaluation.flags import SPLITS
from bsk.terminal import CHOICES
from bsk.values import one_of


def number(text: str | float) -> float:
    """Return the value of "0.031" or "8/255"; raise a BadParameter if it is no finite number."""
    try:
        return values.number(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def radii(text: str | float) -> float | list[float]:
    """Return the value of "8/255", or those of "2/255,4/255"; raise a BadParameter if one is no finite number."""
    values = [number(each) for each in str(text).split(",")]
    return values if len(values) > 1 else values[0]


def completing(known: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """Return a shell completion over names; after a comma it completes the next name."""

    def complete(incomplete: str) -> list[str]:
        head, comma, tail = incomplete.rpartition(",")
        return [head + comma + name for name in known() if name.startswith(tail)]

    return complete


DATASETS = ["digits", "cifar10", "cifar100", "tiny-imagenet", "cifar10.1", "cifar10-c", "cifar100-c", "folder"]
SUFFIX = ".safetensors"
CORRUPTED = ["cifar10-c", "cifar100-c"]  # a data file for each corruption and severity
MODELS = [
    "resnet18", "resnet50", "wrn-34-10", "cnn", "resnet18-16", "preact-resnet18", "preact-resnet50", "wrn-28-10",
    "wrn-28-10-silu",
]  # fmt: skip
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
    """Return a flag whose help text states its default in its own words."""
    return typer.Option(*names, help=help, show_default=False, **more)


Dataset = Annotated[
    str, typer.Option(help="Prepared data by name: data/NAME.safetensors.", autocompletion=completing(lambda: DATASETS))
]
DataPath = Annotated[Path | None, option("--data", help="Prepared data by path, instead of --dataset.")]
Eps = Annotated[
    float | None, option(parser=number, metavar="X", help="Radius in pixels of [0, 1], as 8/255 [default: the data's].")
]
Radii = Annotated[
    float | None,
    option(
        "--eps",
        parser=radii,
        metavar="X[,X...]",
        help="Radius in pixels of [0, 1], as 8/255 [default: the data's]; evaluate: several, as 2/255,4/255,8/255.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Threads = Annotated[int | None, option(min=1, help="CPU threads [default: all; fewer where others slow them].")]
Compile = typer.Option(help="torch.compile: on, off, or auto: where the work takes over 5 min of a GPU, 1 h of a CPU.")
Limit = Annotated[int | None, option(min=1, metavar="N", help="Only the first N of a fixed class-balanced order.")]
DatasetOfModel = Annotated[str | None, option("--dataset", help="Prepared data [default: what it was trained on].")]
SplitName = Annotated[str, typer.Option("--split", help=f"{', '.join(SPLITS)}.")]
Quiet = Annotated[bool, option("--quiet", callback=_quiet, help="No progress and no notes on stderr.")]
Json = Annotated[bool, option("--json", callback=_json, help="Records as JSON on a terminal too, as elsewhere.")]
FORMATS = ["table", "tsv", "jsonl", "markdown", "latex"]
Format = Annotated[
    str | None,
    option(
        "--format",
        autocompletion=completing(lambda: FORMATS),
        help="table, tsv, jsonl, markdown or latex [default: table on a terminal, else tsv].",
    ),
]
Force = Annotated[bool, option("--force", help="Replace what stands in the way.")]
Rows = Annotated[
    int | None, option("--batch-size", min=1, help="Rows of a model call [default: 128 on a CPU, else 512].")
]
Attacks = Annotated[
    str,
    typer.Option(
        "--attack",
        metavar="A[,A...]",
        help="natural, fgsm, pgd-K, pgd-KxR (R restarts), cw-K, apgd-ce, apgd-dlr, apgd-t, fab-t, square, rays, "
        "autoattack, autoattack-rand, screen (the first half of autoattack: an upper bound), module:function.",
        autocompletion=completing(lambda: ATTACKS),
    ),
]


def starts_named(names: str) -> list[str]:
    """Return the starts that a flag names, each once; raise a UsageError if one of them is none."""
    return [one_of("start", name, STARTS) for name in dict.fromkeys(names.split(","))]


def checked_suffix(path: Path) -> Path:
    """Return path; raise a UsageError unless it ends in .safetensors."""
    if path.suffix != SUFFIX:
        raise UsageError(f"--out {path}: must end in .safetensors; other formats are not written")
    return path
