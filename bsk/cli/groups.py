"""Commands that take typed groups of flags: each field of a group is a flag."""

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
from bsk.models.names import MODELS
from bsk.signature import pairs
from bsk.training.flags import TrainingFlags


def checked_seed(value: int) -> int:
    """Return a seed; raise a BadParameter unless it fits into 64 bits, as torch requires."""
    if not -(1 << 63) <= value < 1 << 63:
        raise typer.BadParameter(f"{value} has more than 64 bits; choose a smaller number")
    return value


def _numbers(flag: typer.CallbackParam, text: str | None) -> list[float] | None:
    """Return the numbers in a text such as "0.49,0.48,0.45"."""
    try:
        return None if text is None else [values.number(each) for each in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--{flag.name} {text}: expected one number per channel, as 0.49,0.48,0.45") from error


def _lines(flag: typer.CallbackParam, path: Path | None) -> list[str] | None:
    """Return the non-empty lines of a text file."""
    try:
        text = None if path is None else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read class names, one per line; check the path of --class-order") from error
    return None if text is None else [line.strip() for line in text.splitlines() if line.strip()]


_SETTINGS = o.option("--set", metavar="NAME=VALUE", help="An argument of an attack module:function; repeat for more.")
_HYPER = o.option("--set", metavar="NAME=VALUE", help="Set a hyper-parameter; --NAME VALUE does the same.")
_CHANNELS = o.option(metavar="a,b,c", callback=_numbers, help="With --weights: normalisation, one number per channel.")

# the typer option of each field; the type is that of the field unless given here; fields not listed are no flags
FLAGS: dict[type, dict[str, Any]] = {
    ModelFlags: {
        "dataset": o.DatasetOfModel,
        "data": o.DataPath,
        "model": o.option(
            metavar="NAME|module:function",
            help="Network of --weights, or the code of the network in CKPT.",
        ),
        "weights": o.option(metavar="F", help="Weights not trained by bsk: .pt, .pth or .safetensors."),
        "weights_key": o.option(metavar="NAME", help="Which set of weights in the file, e.g. ema."),
        "mean": Annotated[str | None, _CHANNELS],
        "std": Annotated[str | None, _CHANNELS],
        "class_order": Annotated[
            Path | None,
            o.option(
                "--class-order",
                metavar="F",
                callback=_lines,
                help="With --weights: class names, one per line, in output order.",
            ),
        ],
    },
    EvaluationFlags: {
        "split": o.SplitName,
        "limit": o.Limit,
        "eps": o.Radii,
        "largest_first": o.option(
            "--largest-first", help="Several radii: assume that what stands at one stands at smaller ones; faster."
        ),
        "batch_size": o.Rows,
        "checks": o.option("--checks/--no-checks", help="Check for masked gradients and weak attacks [default: on]."),
        "compile": o.Compile,
        "seed": typer.Option(callback=checked_seed, metavar="N", help="Random seed of the attack."),
    },
    AttackFlags: {
        "norm": typer.Option(
            metavar="NAME", help="linf; or l2, l1: for apgd-*, fab-t, square, screen, autoattack (no l1 apgd-dlr)."
        ),
        "step": o.option(parser=o.number, metavar="X", help="Step size for pixels in [0, 1] [default: the attack's]."),
        "start": typer.Option(metavar="NAME", help="Start of pgd and cw: zero or uniform; restarts are uniform."),
        "last_iterate": o.option("--last-iterate", help="Judge the last iterate alone, as the paper does."),
        "early_stop": o.option(
            "--early-stop/--no-early-stop", help="pgd, cw: stop once iterates repeat; no result changes [default: on]."
        ),
        "search": typer.Option(
            metavar="NAME", help="Precision of the attack: fp32, bf16, fp16 or auto; fp32 judges the result."
        ),
        "queries": o.count(help="Queries of square and rays [default: 5000, 10000].", show_default=False),
        "stop_at_eps": o.option("--stop-at-eps", help="rays: accuracy only, no distances; much faster."),
        "audit": o.option(metavar="M", help="autoattack: fab-t and square on M survivors of screen only."),
        "within": o.option(
            parser=o.number, metavar="POINTS", help="As --audit; M follows from the width of the interval in % points."
        ),
        "engine": typer.Option(metavar="NAME", help="bsk, or reference: the authors' AutoAttack; needs pyautoattack."),
        "settings": Annotated[list[str] | None, _SETTINGS],
    },
    TrainingFlags: {
        "method": typer.Option(
            metavar="NAME",
            help=f"One of {', '.join(registry.names())}, or module:function.",
            autocompletion=o.completing(registry.names),
        ),
        "model": o.option(
            metavar="NAME",
            help=f"{', '.join(MODELS[:6])}, ..., or module:function [default: the data's].",
            autocompletion=o.completing(lambda: MODELS),
        ),
        "eps": o.Eps,
        "hyper": Annotated[list[str] | None, _HYPER],
        "init": o.option(metavar="F", help="Initial weights: a checkpoint, or a file for --model."),
        "extra": o.option(metavar="NAME|F", help="Extra training images: the train split of other data."),
        "extra_fraction": o.option(
            parser=o.number, metavar="X", help="Share of extra images in each batch [default: 0.5]."
        ),
        "epochs": o.count(help="Passes over the training images.", show_default=True),
        "batch_size": o.count(help="Images per batch.", show_default=True),
        "schedule": typer.Option(metavar="NAME", help="piecewise, cyclic, cosine or constant."),
        "lr": o.option(parser=o.number, metavar="X", help="Peak learning rate [default: 0.1; cyclic: 0.2]."),
        "momentum": typer.Option(min=0, max=1, metavar="X", help="Momentum of SGD."),
        "weight_decay": typer.Option(min=0, metavar="X", help="Weight decay, on all parameters."),
        "precision": typer.Option(metavar="NAME", help="fp32, bf16, fp16, or auto: bf16 where it is fast."),
        "augment": o.option(metavar="NAME", help="crop-flip, flip or none [default: the data's]."),
        "select": typer.Option(metavar="NAME", help="Split that selects the epoch: val, or test as in the paper."),
        "log_divergence": o.option("--log-divergence", help="Log how far start and ascent move the output."),
        "ema": o.option(min=0, max=1, metavar="DECAY", help="Also save a moving average of the weights, e.g. 0.999."),
        "label_smoothing": o.option(min=0, max=1, metavar="X", help="Label smoothing."),
        "awp": o.option(min=0, metavar="GAMMA", help="Adversarial weight perturbation, e.g. 0.005."),
        "warmup": o.option(min=0, metavar="EPOCHS", help="Linear warm-up of the learning rate."),
        "on_collapse": typer.Option(
            metavar="NAME", help="At catastrophic overfitting: warn, stop (exit code 4) or rollback."
        ),
        "save_every": typer.Option(min=0, metavar="EPOCHS", help="Also save F.epoch-N.safetensors every EPOCHS."),
        "compile": o.Compile,
        "seed": typer.Option(callback=checked_seed, metavar="N", help="Random seed."),
    },
}


SECTIONS: dict[type, dict[str, str]] = {  # of --help: the title, and the flags under it
    ModelFlags: {"Network and data": "dataset data model weights weights_key mean std class_order"},
    EvaluationFlags: {
        "Network and data": "split limit",
        "Attack": "attack eps largest_first target seed",
        "Execution": "batch_size checks compile device threads",
    },
    AttackFlags: {"Attack": " ".join(FLAGS[AttackFlags])},
    TrainingFlags: {
        "Method and network": "method model eps hyper init",
        "Data": "dataset data limit extra extra_fraction augment",
        "Optimisation": "epochs batch_size schedule lr warmup momentum weight_decay label_smoothing awp ema seed",
        "Checkpoints and log": "out select save_every on_collapse log_divergence",
        "Execution": "precision compile device threads",
    },
}


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command in the form that typer reads: the fields of each group are arguments of their own."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if kind in FLAGS}
    sections = [section for kind in groups.values() for section in SECTIONS[kind].items()]
    titles = {flag: title for title, flags in sections for flag in flags.split()}
    order = {flag: place for place, flag in enumerate(titles)}
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            parameters += _flags(groups[parameter.name], titles)
        else:
            annotation = _in_section(hints[parameter.name], None, titles.get(parameter.name))
            parameters.append(parameter.replace(annotation=annotation, kind=inspect.Parameter.KEYWORD_ONLY))

    parameters.sort(key=lambda parameter: order.get(parameter.name, len(order)))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name in {"settings", "hyper"} & values.keys():
            values[name] = pairs(values[name] or [])
        made = {name: kind(**{flag: values.pop(flag) for flag in FLAGS[kind]}) for name, kind in groups.items()}
        command(**values, **made)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _flags(group: type, titles: dict[str, str]) -> list[inspect.Parameter]:
    defaults = {each.name: None if each.default is MISSING else each.default for each in fields(group)}
    types, kind = get_type_hints(group), inspect.Parameter.KEYWORD_ONLY
    annotations = {name: _in_section(flag, types[name], titles[name]) for name, flag in FLAGS[group].items()}
    return [inspect.Parameter(name, kind, default=defaults[name], annotation=annotations[name]) for name in annotations]


def _in_section(flag: Any, kind: Any, section: str | None) -> Any:
    """Return the annotation of a flag with its section of --help; the flag itself may belong to other commands too."""
    info = flag if isinstance(flag, OptionInfo) else get_args(flag)[1]
    if not isinstance(info, OptionInfo) or section is None:
        return flag
    mine = copy.copy(info)
    mine.rich_help_panel = section
    return Annotated[kind if isinstance(flag, OptionInfo) else get_args(flag)[0], mine]
