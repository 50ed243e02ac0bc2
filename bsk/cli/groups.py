"""Commands whose arguments come in typed groups: each field of a group is a flag of its own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from bsk.attacks.flags import AttackFlags
from bsk.cli import options as o
from bsk.evaluation.flags import DataFlags, EvaluationFlags, ModelFlags
from bsk.signature import pairs
from bsk.training.flags import TrainingFlags

FLAGS: dict[type, dict[str, Any]] = {  # what typer shows and checks of each field; others are no flags
    DataFlags: {"dataset": o.DatasetOfModel, "data": o.DataPath},
    ModelFlags: {"model": o.Model, "weights": o.Weights, "mean": o.Mean, "std": o.Std},
    EvaluationFlags: {
        "split": o.SplitName,
        "limit": o.Limit,
        "eps": o.Eps,
        "batch_size": o.Rows,
        "checks": o.Checks,
        "seed": o.AttackSeed,
    },
    AttackFlags: {
        "norm": o.Norm,
        "step": o.Step,
        "start": o.Start,
        "last_iterate": o.LastIterate,
        "queries": o.Queries,
        "stop_at_eps": o.StopAtEps,
        "engine": o.Engine,
        "settings": o.Settings,
    },
    TrainingFlags: {
        "method": o.Method,
        "model": o.TrainedModel,
        "eps": o.Eps,
        "hyper": o.Hyper,
        "epochs": o.Epochs,
        "batch_size": o.BatchSize,
        "schedule": o.Schedule,
        "lr": o.Lr,
        "momentum": o.Momentum,
        "weight_decay": o.WeightDecay,
        "precision": o.Precision,
        "augment": o.Augment,
        "select": o.Select,
        "log_divergence": o.LogDivergence,
        "ema": o.Ema,
        "label_smoothing": o.LabelSmoothing,
        "awp": o.Awp,
        "warmup": o.Warmup,
        "on_collapse": o.OnCollapse,
        "seed": o.Seed,
    },
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
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(name, kind, default=defaults[name], annotation=flag) for name, flag in FLAGS[group].items()
    ]
