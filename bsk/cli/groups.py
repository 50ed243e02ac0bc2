"""Commands whose arguments come in typed groups: each field of a group is a flag of its own."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from bsk import values
from bsk.attacks.flags import AttackFlags
from bsk.cli import options as o
from bsk.errors import InputError, UsageError
from bsk.evaluation.flags import EvaluationFlags, ModelFlags
from bsk.methods import registry
from bsk.signature import pairs
from bsk.training.flags import TrainingFlags


def checked_seed(value: int) -> int:
    """Return a seed that fits into 64 bits, as torch takes them."""
    if not -(1 << 63) <= value < 1 << 63:
        raise typer.BadParameter(f"{value} has more than 64 bits; choose a smaller one")
    return value


def _numbers(flag: typer.CallbackParam, text: str | None) -> list[float] | None:
    """Return the numbers of "0.49,0.48,0.45"."""
    try:
        return None if text is None else [values.number(each) for each in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--{flag.name} {text}: expected a number a channel, as 0.49,0.48,0.45") from error


def _lines(flag: typer.CallbackParam, path: Path | None) -> list[str] | None:
    """Return the lines of a text file that are not empty."""
    try:
        text = None if path is None else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read a class a line; check the path of --class-order") from error
    return None if text is None else [line.strip() for line in text.splitlines() if line.strip()]


_SETTINGS = o.option(
    "--set", metavar="NAME=VALUE", help="Of code from outside (module:function): one of its arguments; once for each."
)
_HYPER = o.option("--set", metavar="NAME=VALUE", help="A hyper-parameter of the method; it is a flag of its own too.")
_CHANNELS = o.option(metavar="a,b,c", callback=_numbers, help="Of --weights: its normalisation.")

# what typer shows and checks of each field, which gives the type unless it stands here; other fields are no flags
FLAGS: dict[type, dict[str, Any]] = {
    ModelFlags: {
        "dataset": o.DatasetOfModel,
        "data": o.DataPath,
        "model": o.option(
            metavar="NAME|module:function",
            help="Of --weights: a name, or code that makes the network; of CKPT: that code, if it was trained so.",
        ),
        "weights": o.option(metavar="F", help="Another's .pt, .pth or .safetensors, instead of CKPT."),
        "weights_key": o.option(metavar="NAME", help="Of --weights: which set, as ema, where the file has several."),
        "mean": Annotated[str | None, _CHANNELS],
        "std": Annotated[str | None, _CHANNELS],
        "class_order": Annotated[
            Path | None,
            o.option("--class-order", metavar="F", callback=_lines, help="Of --weights: its classes, one a line."),
        ],
    },
    EvaluationFlags: {
        "split": o.SplitName,
        "limit": o.Limit,
        "eps": o.Radii,
        "batch_size": o.Rows,
        "checks": o.option(
            "--checks/--no-checks", help="Examine the model for signs that it cannot be believed [default: do]."
        ),
        "compile": o.Compile,
        "seed": typer.Option(callback=checked_seed, help="Random seed of the attack."),
    },
    AttackFlags: {
        "norm": typer.Option(
            help="linf, l2 or l1: apgd-ce, apgd-t, fab-t, square, screen, autoattack (apgd-dlr: no l1)."
        ),
        "step": o.option(parser=o.number, metavar="X", help="Step size in pixels [default: the method's or attack's]."),
        "start": typer.Option(help="Of the first restart of pgd and cw: zero (the image itself) or uniform."),
        "last_iterate": o.option(
            "--last-iterate", help="Judge only the last iterate, as the paper does (default: any iterate)."
        ),
        "early_stop": o.option(
            "--early-stop/--no-early-stop", help="pgd, cw: stop where an iterate repeats; same verdicts [default: do]."
        ),
        "search": typer.Option(
            help="Precision to search in: fp32, bf16, fp16, or auto, what is fast here; fp32 judges what is found."
        ),
        "queries": o.option(min=1, help="Of square and rays [default: 5000 and 10000]."),
        "stop_at_eps": o.option("--stop-at-eps", help="rays: accuracy alone, not the distance; much faster."),
        "audit": o.option(
            metavar="M", help="autoattack: screen on all, the rest on M survivors; an estimate and its exact interval."
        ),
        "within": o.option(
            parser=o.number, metavar="POINTS", help="autoattack: as many as make that interval so narrow, as 0.25."
        ),
        "engine": typer.Option(
            help="bsk, or reference: the authors' code of AutoAttack (pip install 'bsk[reference]'), as it is."
        ),
        "settings": Annotated[list[str] | None, _SETTINGS],
    },
    TrainingFlags: {
        "method": typer.Option(
            help=f"One of {', '.join(registry.names())}, or module:function.",
            autocompletion=o.completing(registry.names),
        ),
        "model": o.option(
            help=f"{', '.join(o.MODELS)}, ..., or module:function [default: the data's].",
            autocompletion=o.completing(lambda: o.MODELS),
        ),
        "eps": o.Eps,
        "hyper": Annotated[list[str] | None, _HYPER],
        "init": o.option(metavar="F", help="Begin with these weights: a checkpoint, or another's for --model."),
        "extra": o.option(metavar="NAME|F", help="More images to train with: another prepared file's train split."),
        "extra_fraction": o.option(
            parser=o.number, metavar="X", help="Their share of every batch [default: 0.5]; epochs stay as long."
        ),
        "epochs": typer.Option(min=1, help="Passes over the training images."),
        "batch_size": typer.Option(min=1, help="Images at a time."),
        "schedule": typer.Option(help="piecewise, cyclic, cosine or constant, by iteration."),
        "lr": o.option(parser=o.number, metavar="X", help="Peak learning rate [default: 0.1, cyclic 0.2]."),
        "momentum": typer.Option(min=0, max=1, help="Momentum of SGD."),
        "weight_decay": typer.Option(min=0, help="Weight decay of SGD, on all parameters."),
        "precision": typer.Option(help="auto, fp32, bf16 or fp16; auto is bf16 where it is fast."),
        "augment": o.option(help="crop-flip, flip or none [default: the data's]."),
        "select": typer.Option(help="The split that selects the epoch: val, or test, the paper's own protocol."),
        "log_divergence": o.option(
            "--log-divergence", help="Log each epoch how far start and ascent move the output; nothing else changes."
        ),
        "ema": o.option(min=0, max=1, metavar="DECAY", help="Save a moving average of the weights too, e.g. 0.999."),
        "label_smoothing": o.option(min=0, max=1, metavar="X", help="Of the labels, in training."),
        "awp": o.option(
            min=0, metavar="GAMMA", help="Adversarial weight perturbation, e.g. 0.005; costs one more outer loss."
        ),
        "warmup": o.option(min=0, metavar="EPOCHS", help="Let the learning rate rise at first."),
        "on_collapse": typer.Option(
            help="At catastrophic overfitting: warn, stop (exit 4), or rollback to the last good weights."
        ),
        "save_every": typer.Option(
            min=0, metavar="EPOCHS", help="Keep the weights of every so many epochs too, as F.epoch-N.safetensors."
        ),
        "compile": o.Compile,
        "seed": typer.Option(callback=checked_seed, help="Random seed."),
    },
}


SECTIONS = {  # of --help
    ModelFlags: "Network and data",
    EvaluationFlags: "Examples",
    AttackFlags: "Attack",
    TrainingFlags: "Training",
}


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command as typer can read it: each argument that is a group becomes its fields."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if kind in FLAGS}
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            parameters += _flags(groups[parameter.name])
        else:
            annotation = hints[parameter.name]
            parameters.append(parameter.replace(annotation=annotation, kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name in {"settings", "hyper"} & values.keys():
            values[name] = pairs(values[name] or [])
        made = {name: kind(**{flag: values.pop(flag) for flag in FLAGS[kind]}) for name, kind in groups.items()}
        command(**values, **made)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _flags(group: type) -> list[inspect.Parameter]:
    defaults = {each.name: None if each.default is MISSING else each.default for each in fields(group)}
    types, kind, section = get_type_hints(group), inspect.Parameter.KEYWORD_ONLY, SECTIONS[group]
    annotations = {name: _in_section(flag, types[name], section) for name, flag in FLAGS[group].items()}
    return [inspect.Parameter(name, kind, default=defaults[name], annotation=annotations[name]) for name in annotations]


def _in_section(flag: Any, kind: Any, section: str) -> Any:
    """Return the annotation of a flag, which may stand in other groups too, with its section of --help."""
    info = flag if isinstance(flag, OptionInfo) else get_args(flag)[1]
    mine = copy.copy(info)
    mine.rich_help_panel = section
    return Annotated[kind if isinstance(flag, OptionInfo) else get_args(flag)[0], mine]
