"""Where starting points of the inner maximisation land in output space: Figure 4 of the paper, for a real model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from bsk.attacks.outcome import NotFiniteError
from bsk.data.batches import to_unit
from bsk.errors import InputError
from bsk.evaluation.calls import Checked, exact, steady
from bsk.evaluation.settings import EvaluationSettings
from bsk.evaluation.subjects import Subject, check_fit
from bsk.perturb.ball import ball_around
from bsk.perturb.draws import example_draws
from bsk.perturb.losses import kl
from bsk.perturb.starts import BACKWARD, begin, random_output
from bsk.records.jsonl import SCHEMA

_FROM_HEADER = ("method", "model", "dataset", "seed", "selected")
DIGITS = 9  # significant digits: enough to distinguish any two fp32 numbers


def landings(
    subject: Subject,
    starts: Sequence[str],
    settings: EvaluationSettings,
    gamma: float,
    watch: Callable[[int, int], None],
) -> Iterator[dict[str, Any]]:
    """Yield a record per image and start: the logits before and after the start, and their KL divergence in nats.

    The model runs in fp32 and eval mode; random numbers depend on (seed, start, index) alone. The step of the backward
    start is eps, as in the paper; its record also has the random output that the step aims at. `watch` is called with
    the number of images done and the total.

    Raises:
        InputError: the model does not fit the data, or a logit is not finite.
    """
    examples = settings.data.stream(settings.split, settings.limit)
    check_fit(subject, settings.data, examples.shape)
    n = len(examples.labels)
    common = _common(subject, settings, gamma, n)
    for rows in torch.arange(n).split(settings.batch_size):
        x, index = to_unit(examples.take(rows).to(settings.device)), examples.index[rows].tolist()
        with exact(subject.model):
            found = [_landed(subject, name, x, index, settings, gamma) for name in starts]
        for row, (place, label) in enumerate(zip(index, examples.labels[rows].tolist(), strict=True)):
            for name, columns in zip(starts, found, strict=True):
                cells = {key: column[row] for key, column in columns.items()}
                yield {**common, "index": place, "label": label, "start": name, **cells}
        watch(int(rows[-1]) + 1, n)


def _landed(
    subject: Subject, name: str, x: Tensor, index: list[int], settings: EvaluationSettings, gamma: float
) -> dict[str, list[Any]]:
    checked = Checked(subject.model)
    model = steady(checked)
    try:
        draws, again = (example_draws(settings.seed, f"start {name}", index, x.device) for _ in range(2))
        ball = ball_around(x, settings.eps)
        start, z = begin(name, model, x, ball, draws, eps=settings.eps, step=settings.eps, gamma=gamma)
        with torch.no_grad():
            z, landed = model(x) if z is None else z, model(start)
        checked.settle()
    except NotFiniteError as error:
        raise InputError(f"{subject.path}: the model returns NaN or infinity; check its weights") from error
    kls = kl(z.cpu().double(), landed.cpu().double()).clamp(min=0)
    # f(x) + gamma psi with the same psi as in the backward start; other starts have no target
    target = _rounded(random_output(z, again, gamma)) if name == BACKWARD else [None] * len(index)
    return {"kl": kls.tolist(), "logits": _rounded(z), "landed": _rounded(landed), "target": target}


def _rounded(rows: Tensor) -> list[list[float]]:
    return [[float(f"{value:.{DIGITS}g}") for value in row] for row in rows.tolist()]


def _common(subject: Subject, settings: EvaluationSettings, gamma: float, n: int) -> dict[str, Any]:
    header = subject.header
    return {
        "schema": SCHEMA,
        "kind": "landing",
        "checkpoint": str(subject.path),
        "checkpoint_sha256": subject.sha256,
        **{name: header.get(name) for name in _FROM_HEADER},
        "train_eps": header["eps"],
        "data_sha256": settings.data.sha256,
        "eps": settings.eps,
        "start_parameters": {"gamma": gamma, "step": settings.eps, "seed": settings.seed},
        "split": settings.split,
        "n": n,
    }
