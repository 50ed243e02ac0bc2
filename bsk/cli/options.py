"""The flags that commands share, each spelt once, and the parser of 8/255."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bsk.cli.console import CHOICES
from bsk.compat import keep_freed_memory, objects_that_stay
from bsk.errors import UsageError, nearest

if TYPE_CHECKING:
    import torch

    from bsk.data.store import DataFile


def number(text: str | float) -> float:
    """Return the value of "0.031" or "8/255".

    Raises:
        typer.BadParameter: it is no finite number.
    """
    try:
        top, slash, bottom = str(text).partition("/")
        value = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise typer.BadParameter(f"{text} is not a number; write 0.031 or 8/255")
    return value


def completing(known: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """Return a shell completion over names; after a comma it completes the next name."""

    def complete(incomplete: str) -> list[str]:
        head, comma, tail = incomplete.rpartition(",")
        return [head + comma + name for name in known() if name.startswith(tail)]

    return complete


DATASETS = ["digits", "cifar10", "cifar100", "tiny-imagenet", "folder"]
MODELS = ["resnet18", "resnet50", "wrn-34-10", "cnn", "resnet18-16"]
STARTS = ["zero", "uniform", "gaussian", "noise", "bernoulli", "backward"]
ATTACKS = [
    "natural",
    "fgsm",
    "pgd-20",
    "pgd-100",
    "pgd-50x10",
    "cw-100",
    "apgd-ce",
    "apgd-dlr",
    "apgd-t",
    "fab-t",
    "square",
    "rays",
    "autoattack",
    "autoattack-rand",
    "screen",
]


def _quiet(value: bool) -> bool:
    CHOICES.quiet = value
    return value


def checked_seed(value: int) -> int:
    """Return a seed that fits into 64 bits, as torch takes them."""
    if not -(1 << 63) <= value < 1 << 63:
        raise typer.BadParameter(f"{value} has more than 64 bits; choose a smaller one")
    return value


def option(*names: str, help: str, **more: Any) -> Any:
    """Return a flag whose help text states its default in its own words."""
    return typer.Option(*names, help=help, show_default=False, **more)


Dataset = Annotated[
    str,
    typer.Option(help="Prepared data by name: data/NAME.safetensors.", autocompletion=completing(lambda: DATASETS)),
]
DataPath = Annotated[Path | None, option("--data", help="Prepared data by path, instead of --dataset.")]
Eps = Annotated[
    float | None, option(parser=number, metavar="X", help="Radius in pixels of [0, 1], as 8/255 [default: the data's].")
]
Step = Annotated[
    float | None, option(parser=number, metavar="X", help="Step size in pixels [default: the method's or attack's].")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Threads = Annotated[int | None, option(min=1, help="CPU threads [default: all].")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images at a time.")]
Limit = Annotated[int | None, option(min=1, metavar="N", help="Only the first N of a fixed class-balanced order.")]
Seed = Annotated[int, typer.Option(callback=checked_seed, help="Of every random number.")]
Quiet = Annotated[bool, option("--quiet", callback=_quiet, help="No progress and no notes on stderr.")]
Force = Annotated[bool, option("--force", help="Replace what stands in the way.")]
Attacks = Annotated[
    str,
    typer.Option(
        "--attack",
        metavar="A[,A...]",
        help="natural, fgsm, pgd-K, pgd-KxR (R restarts), cw-K, apgd-ce, apgd-dlr, apgd-t, fab-t, square, rays, "
        "autoattack, autoattack-rand, screen (the first half of autoattack: an upper bound).",
        autocompletion=completing(lambda: ATTACKS),
    ),
]
LastIterate = Annotated[
    bool, option("--last-iterate", help="Judge only the last iterate, as the paper does (default: any iterate).")
]
Start = Annotated[str, typer.Option(help="Of the first restart of pgd and cw: zero (the image itself) or uniform.")]
Norm = Annotated[str, typer.Option(help="linf, or l2 (for apgd, fab-t, square and autoattack); eps is in that norm.")]
Queries = Annotated[int | None, option(min=1, help="Of square and rays [default: 5000 and 10000].")]
StopAtEps = Annotated[bool, option("--stop-at-eps", help="rays: accuracy alone, not the distance; much faster.")]
Rows = Annotated[
    int | None, option("--batch-size", min=1, help="Rows of a model call [default: 128 on a CPU, else 512].")
]
Model = Annotated[
    str | None,
    option("--model", metavar="NAME|module:function", help="Of --weights: a name, or code that makes the network."),
]
Weights = Annotated[
    Path | None, option("--weights", metavar="F", help="Another's .pt, .pth or .safetensors, instead of CKPT.")
]
Mean = Annotated[str | None, option("--mean", metavar="a,b,c", help="Of --weights: its normalisation.")]
Std = Annotated[str | None, option("--std", metavar="a,b,c", help="Of --weights: its normalisation.")]
ENGINES = ["bsk", "reference"]
Engine = Annotated[
    str,
    typer.Option(help="bsk, or reference: the authors' code of AutoAttack (pip install 'bsk[reference]'), as it is."),
]
Checks = Annotated[
    bool, option("--checks/--no-checks", help="Examine the model for signs that it cannot be believed [default: do].")
]


def data_path(dataset: str) -> Path:
    """Return where prepared data of a name is."""
    return Path("data") / f"{dataset}.safetensors"


def open_dataset(dataset: str, path: Path | None) -> DataFile:
    """Return the prepared data that the flags name.

    Raises:
        InputError: it is not there, or not what it should be.
        UsageError: there is no data set of that name.
    """
    from bsk.data.store import open_data
    from bsk.errors import InputError

    found = path or data_path(dataset)
    if path is None and not found.exists():
        if dataset not in DATASETS:
            raise UsageError(f"--dataset {dataset}: no {found}; {nearest(dataset, DATASETS)}")
        raise InputError(f"{found}: no such file; run bsk prepare-data {dataset}")
    return open_data(found)


def rows_of_a_call(device: torch.device) -> int:
    """Return how many rows a model call of an evaluation has by default."""
    return 128 if device.type == "cpu" else 512


def load_torch() -> None:
    """Import torch in a quarter less time: Python's collector of garbage rests, and never looks at what came of it.

    A million objects come, and all stay: it would look at them again and again, and once more as the process ends.
    """
    with objects_that_stay():
        import torch  # noqa: F401 - for those who import it next


def chosen_device(name: str, threads: int | None) -> torch.device:
    """Return the device that the flags name, and set the number of threads.

    Raises:
        UsageError: there is no such device here.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if name == "auto":
        name = "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda" if torch.cuda.is_available() else name
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "cpu":
            keep_freed_memory()
    except Exception as error:
        raise UsageError(f"--device {name}: not available here; use auto, cpu, cuda or mps") from error
    return device


def numbers(flag: str, text: str | None) -> list[float] | None:
    """Return the numbers of "0.49,0.48,0.45".

    Raises:
        UsageError: one of them is none.
    """
    try:
        return None if text is None else [number(each) for each in text.split(",")]
    except typer.BadParameter as error:
        raise UsageError(f"--{flag} {text}: expected a number a channel, as 0.49,0.48,0.45") from error


def checked_eps(eps: float, zero: bool = False, norm: str = "linf") -> float:
    """Return eps if it is a radius: above 0 (or 0 where that means something) and, by Linf, at most 1."""
    most = 1 if norm == "linf" else math.inf
    if not (0 <= eps <= most if zero else 0 < eps <= most):
        raise UsageError(f"--eps {eps:g}: must be between 0 and 1, in pixels of [0, 1]; write 8/255 for 8 grey levels")
    return eps


def one_of(flag: str, value: str, known: Iterable[str]) -> str:
    """Return value if it is one of the known names.

    Raises:
        UsageError: it is not; the message has the nearest one.
    """
    if value not in (names := list(known)):
        raise UsageError(f"--{flag} {value}: no such {flag}; {nearest(value, names)}")
    return value


def starts_named(names: str) -> list[str]:
    """Return the starts that a flag names, each once.

    Raises:
        UsageError: one of them is none; the message has the nearest one.
    """
    return [one_of("start", name, STARTS) for name in dict.fromkeys(names.split(","))]


def above_zero(or_zero: bool = False, **values: float) -> None:
    """Raise a usage error for the first value that is below zero, infinite, or zero unless that is allowed."""
    for flag, value in values.items():
        if not (0 <= value < math.inf) or (value == 0 and not or_zero):
            least = "at least" if or_zero else "above"
            raise UsageError(f"--{flag.replace('_', '-')} {value:g}: must be finite and {least} 0")


def checked_suffix(path: Path) -> Path:
    """Return path if it ends in .safetensors.

    Raises:
        UsageError: it does not.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"--out {path}: must end in .safetensors; other formats are not written")
    return path
