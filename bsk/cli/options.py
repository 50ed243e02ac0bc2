"""The flags that commands share, each spelt once, and the parser of 8/255."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bsk import values
from bsk.errors import UsageError
from bsk.evaluation.flags import SPLITS
from bsk.methods import registry
from bsk.terminal import CHOICES
from bsk.values import one_of


def number(text: str | float) -> float:
    """Return the value of "0.031" or "8/255".

    Raises:
        typer.BadParameter: it is no finite number.
    """
    try:
        return values.number(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


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


def _numbers(flag: typer.CallbackParam, text: str | None) -> list[float] | None:
    """Return the numbers of "0.49,0.48,0.45".

    Raises:
        UsageError: one of them is none.
    """
    try:
        return None if text is None else [values.number(each) for each in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--{flag.name} {text}: expected a number a channel, as 0.49,0.48,0.45") from error


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
Method = Annotated[
    str,
    typer.Option(
        help=f"One of {', '.join(registry.names())}, or module:function.", autocompletion=completing(registry.names)
    ),
]
TrainedModel = Annotated[
    str | None,
    option(
        "--model",
        help="resnet18, resnet18-W, ..., or module:function [default: the data's].",
        autocompletion=completing(lambda: MODELS),
    ),
]
Hyper = Annotated[
    list[str] | None,
    option("--set", metavar="NAME=VALUE", help="A hyper-parameter of the method; it is a flag of its own too."),
]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training images.")]
Schedule = Annotated[str, typer.Option(help="piecewise, cyclic or cosine, by iteration.")]
Lr = Annotated[
    float | None, option("--lr", parser=number, metavar="X", help="Peak learning rate [default: 0.1, cyclic 0.2].")
]
Momentum = Annotated[float, typer.Option(min=0, max=1, help="Of SGD.")]
WeightDecay = Annotated[float, typer.Option(min=0, help="Of SGD, on all parameters.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16; auto is bf16 where it is fast.")]
Augment = Annotated[str | None, option("--augment", help="crop-flip, flip or none [default: the data's].")]
Select = Annotated[str, typer.Option(help="The split that selects the epoch: val, or test, the paper's own protocol.")]
LogDivergence = Annotated[
    bool,
    option("--log-divergence", help="Log each epoch how far start and ascent move the output; nothing else changes."),
]
Ema = Annotated[
    float, option("--ema", min=0, max=1, metavar="DECAY", help="Save a moving average of the weights too, e.g. 0.999.")
]
LabelSmoothing = Annotated[
    float, option("--label-smoothing", min=0, max=1, metavar="X", help="Of the labels, in training.")
]
Awp = Annotated[
    float,
    option(
        "--awp", min=0, metavar="GAMMA", help="Adversarial weight perturbation, e.g. 0.005; takes the outer loss twice."
    ),
]
Warmup = Annotated[float, option("--warmup", min=0, metavar="EPOCHS", help="Let the learning rate rise at first.")]
OnCollapse = Annotated[
    str, typer.Option(help="At catastrophic overfitting: warn, stop (exit 4), or rollback to the last good weights.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images at a time.")]
Limit = Annotated[int | None, option(min=1, metavar="N", help="Only the first N of a fixed class-balanced order.")]
AttackSeed = Annotated[int, typer.Option("--seed", callback=checked_seed, help="Of the attack's random numbers.")]
DatasetOfModel = Annotated[str | None, option("--dataset", help="Prepared data [default: what it was trained on].")]
SplitName = Annotated[str, typer.Option("--split", help=f"{', '.join(SPLITS)}.")]
Settings = Annotated[
    list[str] | None,
    option(
        "--set",
        metavar="NAME=VALUE",
        help="Of code from outside (module:function): one of its arguments; once for each.",
    ),
]
Seed = Annotated[int, typer.Option(callback=checked_seed, help="Of every random number.")]
Quiet = Annotated[bool, option("--quiet", callback=_quiet, help="No progress and no notes on stderr.")]
Force = Annotated[bool, option("--force", help="Replace what stands in the way.")]
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
    option(
        "--model",
        metavar="NAME|module:function",
        help="Of --weights: a name, or code that makes the network; of CKPT: that code, if it was trained so.",
    ),
]
Weights = Annotated[
    Path | None, option("--weights", metavar="F", help="Another's .pt, .pth or .safetensors, instead of CKPT.")
]
Mean = Annotated[
    str | None, option("--mean", metavar="a,b,c", callback=_numbers, help="Of --weights: its normalisation.")
]
Std = Annotated[
    str | None, option("--std", metavar="a,b,c", callback=_numbers, help="Of --weights: its normalisation.")
]
Engine = Annotated[
    str,
    typer.Option(help="bsk, or reference: the authors' code of AutoAttack (pip install 'bsk[reference]'), as it is."),
]
Checks = Annotated[
    bool, option("--checks/--no-checks", help="Examine the model for signs that it cannot be believed [default: do].")
]


def starts_named(names: str) -> list[str]:
    """Return the starts that a flag names, each once.

    Raises:
        UsageError: one of them is none; the message has the nearest one.
    """
    return [one_of("start", name, STARTS) for name in dict.fromkeys(names.split(","))]


def checked_suffix(path: Path) -> Path:
    """Return path if it ends in .safetensors.

    Raises:
        UsageError: it does not.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"--out {path}: must end in .safetensors; other formats are not written")
    return path
