"""The authors' code of AutoAttack, run unchanged, for users who must report its exact number; it is slower."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import sys

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome, spread
from bsk.errors import UsageError
from bsk.perturb.ascent import Model
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.passes import PassCounter, counting

PACKAGE = "pyautoattack"
KNOWN = ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square", "autoattack", "autoattack-rand")
VERSIONS = {"autoattack-rand": "rand"}  # all others belong to its standard version
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def installed() -> str:
    """Return the name and version of the reference package; raise a UsageError if it is not installed."""
    try:
        return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(f"--engine reference: {PACKAGE} is not installed; pip install pyautoattack") from error


def reference(
    model: Model,
    x: Tensor,
    y: Tensor,
    draws: ExampleDraws,
    *,
    eps: float,
    norm: str,
    attack: str,
    package: str,
    targets: int,
) -> Outcome:
    """Run the reference's standard version, or a single attack of it, on images x (N, C, H, W) with labels y (N,).

    It draws random numbers for a whole batch at once, so its verdicts depend on the batch. Passes are counted per batch
    and distributed evenly over its examples.

    Source: Croce & Hein (2020), in the package of that name by other authors.
    """
    import pyautoattack

    passes = PassCounter()
    seed = int(draws.bits(1)[0, 0]) if len(x) else 0
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()), contextlib.ExitStack() as end:
        end.callback(sys.settrace, sys.gettrace())  # its checks disable tracing, which debuggers need
        engine = pyautoattack.AutoAttack(
            counting(model, passes),
            norm=NORMS[norm],
            eps=eps,
            version=VERSIONS.get(attack, "standard"),
            seed=seed,
            device=str(x.device),
        )
        engine.apgd_targeted.n_target_classes = min(targets, engine.apgd_targeted.n_target_classes)
        engine.fab.n_target_classes = targets
        if not attack.startswith("autoattack"):
            engine.attacks_to_run = [attack]
        x_adv, _ = engine.run_standard_evaluation(x.contiguous(), y, batch_size=len(x))
    with torch.no_grad():
        fooled = model(x_adv).argmax(dim=1) != y
    return Outcome(x_adv, fooled, spread(passes.forward, y), spread(passes.backward, y))
