"""Attacks by name: an attack is a sequence of stages, each of which attacks the survivors of those before."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from bsk.attacks.apgd import apgd
from bsk.attacks.fab import fab_t
from bsk.attacks.flags import AUDIT, AttackFlags
from bsk.attacks.outcome import Outcome
from bsk.attacks.outside import Outside
from bsk.attacks.pgd import pgd
from bsk.attacks.rays import rays
from bsk.attacks.reference import KNOWN, installed, reference
from bsk.attacks.search import Search, ended
from bsk.attacks.sparse import apgd_l1
from bsk.attacks.square import square
from bsk.errors import UsageError, nearest
from bsk.perturb.ascent import Model
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.radius import step_at
from bsk.plugins import is_plugin, load
from bsk.signature import chosen

PAPER_STEP = 2 / 255  # section 5.1, at the paper's radius
ASSUMED_PASSES = 10_000  # assumed passes of an unknown attack; used only to estimate the remaining time
CALLS_PER_BLOCK = 4  # of PGD, whose examples leave one by one, as they are fooled or their iterates repeat
MOST_TARGETS = 9  # Source: AutoAttack's standard version
TARGETS_L1, RESTARTS_L1 = 5, 5  # of apgd-t and apgd-ce in L1. Source: the same
DLR_CLASSES = 4  # with fewer classes the DLR loss is not defined
SAMPLED = 2  # the last two stages of an audit of autoattack run on a sample


@dataclass(frozen=True)
class Stage:
    """One attack on the examples that have survived so far.

    Attributes:
        run: (model, x, y, draws, eps=, **parameters) -> Outcome, as `pgd` or `apgd`.
        rows: rows of a batch per example.
        passes: approximate passes of an example that is never fooled; for estimating the remaining time.
        fills: whether `run` takes `rows`, the rows of a model call, and fills the calls itself.
        calls: how many full calls a block of examples makes, so that calls stay full while examples leave.
        batchwise: whether the verdict on an example may depend on the rest of its batch.
        by_index: whether `run` takes `index`, the indices of its examples in the data's source.
        search: the precision of the search; below fp32 the model is a `Search`, whose exact half judges.
    """

    name: str
    run: Callable[..., Outcome]
    parameters: dict[str, Any] = field(default_factory=dict)
    rows: int = 1
    passes: int = 1
    fills: bool = False
    calls: int = 1
    batchwise: bool = False
    by_index: bool = False
    search: str = "fp32"

    def __call__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        draws: ExampleDraws,
        eps: float,
        rows: int | None = None,
        index: Sequence[int] = (),
    ) -> Outcome:
        """Attack images x (N, C, H, W) in [0, 1] with labels y (N,) within radius eps, `rows` rows per model call."""
        more: dict[str, Any] = {"rows": rows} if self.fills else {}
        more |= {"index": index} if self.by_index else {}
        outcome = self.run(model, x, y, draws, eps=eps, **more, **self.parameters)
        return ended(model, x, y, outcome) if isinstance(model, Search) else outcome

    @property
    def searches(self) -> bool:
        """Whether it can search with another model than the one that judges its claims."""
        return self.run in SEARCHING

    @property
    def described(self) -> dict[str, Any]:
        """The parameters as written to keys and records; they include the search precision unless it is fp32."""
        return self.parameters if self.search == "fp32" else {**self.parameters, "search": self.search}


@dataclass(frozen=True)
class Attack:
    """An attack with all its parameters.

    `name` is what the user wrote, or AUDIT; `notices` are messages for the user. In an audit the last stages attack
    `audit` of the survivors, or as many as are needed to know AutoAttack's accuracy to `within` percentage points
    (`bsk.evaluation.audit`).
    """

    name: str
    stages: tuple[Stage, ...]
    notices: tuple[str, ...] = ()
    audit: int | None = None
    within: float | None = None

    @property
    def sampling(self) -> dict[str, float]:
        """The sample size of an audit, for record and key; empty for other attacks."""
        return {key: value for key, value in (("audit", self.audit), ("within", self.within)) if value is not None}

    @property
    def nests(self) -> bool:
        """Whether an example fooled at one radius is fooled at all larger radii too, by the same image.

        This does not hold if only the last iterate is judged, if a sample is attacked, for RayS, which measures
        distances, nor for FGSM, whose single point says nothing about other radii. Clean images have no radius, and
        their record is the same in every run.
        """
        alone = any(_single_radius(stage) for stage in self.stages)
        return self.name != "natural" and not alone and not self.sampling

    @property
    def whole(self) -> int:
        """The number of first stages that attack all survivors."""
        return len(self.stages) - (SAMPLED if self.sampling else 0)

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters as written to a record: those of a single stage directly, those of several by stage."""
        real = [stage for stage in self.stages if stage.parameters]
        if len(real) == 1:
            return dict(real[0].described)
        return {**{stage.name: dict(stage.described) for stage in real}, **self.sampling}


def _single_radius(stage: Stage) -> bool:
    """Return whether a stage's result holds for its own radius only."""
    return stage.run is rays or stage.name == "fgsm" or bool(stage.parameters.get("last_iterate"))


def natural(model: Model, x: Tensor, y: Tensor, draws: ExampleDraws, *, eps: float) -> Outcome:
    """Judge the images as they are."""
    with torch.no_grad():
        fooled = model(x).argmax(dim=1) != y
    one = torch.ones_like(y)
    return Outcome(x, fooled, one, torch.zeros_like(one))


NATURAL = Stage("natural", natural)
SEARCHING = (pgd, apgd, apgd_l1, fab_t, square)  # they use `misclassified`, so they can search in any precision


def _apgd(name: str, flags: AttackFlags, loss: str, targeted: bool = False, eot: int = 1) -> Stage:
    most = TARGETS_L1 if flags.norm == "l1" else MOST_TARGETS
    targets = min(most, flags.classes - 1) if targeted else 0
    if loss == "dlr" and flags.classes < DLR_CLASSES:
        loss = "margin"
    parameters = {"loss": loss, "norm": flags.norm, "steps": 100, "targets": targets, "eot": eot}
    passes = 200 * max(1, targets) * eot
    if flags.norm != "l1":
        return Stage(name, apgd, parameters, rows=max(1, targets), passes=passes)
    restarts = 1 if targeted else RESTARTS_L1
    return Stage(name, apgd_l1, {**parameters, "restarts": restarts}, rows=max(1, targets), passes=passes * restarts)


def _fab(flags: AttackFlags) -> Stage:
    targets = min(MOST_TARGETS, flags.classes - 1)
    return Stage("fab-t", fab_t, {"norm": flags.norm, "steps": 100, "targets": targets}, targets, 300 * targets)


def _square(flags: AttackFlags, queries: int) -> Stage:
    return Stage("square", square, {"norm": flags.norm, "queries": queries}, passes=queries, fills=True)


Stages = Callable[[AttackFlags], list[Stage]]
ENSEMBLES: dict[str, Stages] = {
    "apgd-ce": lambda f: [_apgd("apgd-ce", f, "cross_entropy")],
    "apgd-dlr": lambda f: [_apgd("apgd-dlr", f, "dlr")],
    "apgd-t": lambda f: [_apgd("apgd-t", f, "dlr", targeted=True)],
    "fab-t": lambda f: [_fab(f)],
    "square": lambda f: [_square(f, f.queries or 5000)],
    "rays": lambda f: [
        Stage("rays", rays, {"queries": f.queries or 10_000, "stop_at_eps": f.stop_at_eps}, passes=f.queries or 10_000)
    ],
    # Croce & Hein (2020): the standard version, one restart each, from the clean image
    "autoattack": lambda f: [
        _apgd("apgd-ce", f, "cross_entropy"),
        _apgd("apgd-t", f, "dlr", targeted=True),
        _fab(f),
        _square(f, 5000),
    ],
    # their version for randomised models: gradients averaged over 20 passes
    "autoattack-rand": lambda f: [_apgd("apgd-ce", f, "cross_entropy", eot=20), _apgd("apgd-dlr", f, "dlr", eot=20)],
    # the first half of `autoattack`, so always an upper bound; within 0.02 points of it in nine published logs of AWP
    "screen": lambda f: [_apgd("apgd-ce", f, "cross_entropy"), _apgd("apgd-t", f, "dlr", targeted=True)],
}
LINF_ONLY = ("fgsm", "pgd", "cw", "rays")  # names of stages, up to the first dash
IN_L1 = ("natural", "apgd-ce", "apgd-t", "fab-t", "square")  # Source: AutoAttack's standard version
ATTACKS = ["natural", "fgsm", "pgd-20", "pgd-100", "pgd-50x10", "cw-100", *ENSEMBLES]


def attack_named(name: str, eps: float, flags: AttackFlags | None = None) -> Attack:
    """Return the attack of that name at the radius eps.

    `pgd-K` takes K steps, `pgd-KxR` restarts R times, `cw-K` maximises the margin, and `fgsm` takes one step of eps.
    The step size of PGD and CW is 2/255 at the paper's radius and scales with the radius, unless a flag sets it. All
    other attacks are in ENSEMBLES, or plugins, `module:function` (`bsk.attacks.outside`).

    Raises:
        UsageError: there is no such attack, or none for this norm or number of classes.
    """
    flags = flags or AttackFlags()
    if name == "natural":
        return Attack(name, (NATURAL,))
    if is_plugin(name):
        return Attack(name, (NATURAL, _from_outside(name, flags)))
    if flags.engine == "reference":
        return Attack(name, (NATURAL, _reference(name, flags)))
    if name in ENSEMBLES:
        stages, said = [NATURAL, *ENSEMBLES[name](flags)], _notices(name, flags)
    else:  # an image misclassified without perturbation is not yet a success if the last iterate or a target counts
        alone = flags.last_iterate or flags.target is not None
        stages, said = [*([] if alone else [NATURAL]), _gradient_attack(name, eps, flags)], ()
    if flags.norm != "linf" and any(stage.name.split("-")[0] in LINF_ONLY for stage in stages):
        raise UsageError(f"--norm {flags.norm}: {name} is Linf-only; use apgd-ce, apgd-t, fab-t, square or autoattack")
    if flags.norm == "l1" and any(stage.name not in IN_L1 for stage in stages):
        raise UsageError(f"--norm l1: {name} has no L1 form; use apgd-ce, apgd-t, fab-t, square, screen or autoattack")
    if flags.classes < 2:
        raise UsageError(f"--attack {name}: data with one class cannot be attacked; prepare data with at least two")
    stages = [_searching(stage, flags) for stage in stages]
    if name == "autoattack" and flags.sampling:
        said = (*said, f"{AUDIT} is an estimate, not AutoAttack's number; leave out {flags.sampling} to get that")
        within = None if flags.within is None else float(flags.within)
        return Attack(AUDIT, tuple(stages), said, flags.audit, within)
    return Attack(name, tuple(stages), said)


def _searching(stage: Stage, flags: AttackFlags) -> Stage:
    """Return the stage with its search precision; `auto` is a low one for APGD only.

    PGD's iterates repeat only in fp32, and stopping there saves more time. Square compares the margins of nearly equal
    images: rounding cost it 1 and 4 points at 2/255 on two networks, and cost FAB-T 0.7 on one of them
    (`results/search/`).
    """
    if not stage.searches:
        return stage
    auto = flags.fast if stage.run is apgd else "fp32"
    search = auto if flags.search == "auto" else flags.search
    return replace(stage, search=search)


def _reference(name: str, flags: AttackFlags) -> Stage:
    if name not in KNOWN:
        raise UsageError(f"--engine reference: it has no {name}; it has {', '.join(KNOWN)}")
    if flags.search != "fp32":
        raise UsageError(f"--engine reference: it searches in fp32 only; leave out --search {flags.search}")
    if flags.classes < DLR_CLASSES and name not in ("apgd-ce", "fab-t", "square"):
        raise UsageError(f"--engine reference: its DLR loss needs {DLR_CLASSES} classes, the model has {flags.classes}")
    targets = min(MOST_TARGETS, flags.classes - 1)
    parameters = {"norm": flags.norm, "attack": name, "package": installed(), "targets": targets}
    return Stage(name, reference, parameters, passes=ASSUMED_PASSES, batchwise=True)


def _from_outside(name: str, flags: AttackFlags) -> Stage:
    plugin = load(name, "--attack")
    run = Outside(plugin)
    hyper = run.defaults()
    mine = {key: value for key, value in flags.settings.items() if key in hyper}
    parameters = {"norm": flags.norm, **chosen(hyper, mine), "code": plugin.sha256}
    return Stage(name, run, parameters, passes=ASSUMED_PASSES, batchwise=True)


def attacks_named(names: Sequence[str], eps: float, flags: AttackFlags) -> list[Attack]:
    """Return attacks by name at the radius eps; every flag must apply to at least one of them.

    Raises:
        UsageError: see `attack_named` and `AttackFlags.check`.
    """
    flags.check(names)
    attacks = [attack_named(name, eps, flags) for name in names]
    runs = [stage.run for attack in attacks for stage in attack.stages if isinstance(stage.run, Outside)]
    known = {name: default for run in runs for name, default in run.defaults().items()}
    chosen(known, flags.settings)  # each applies to at least one attack here
    return attacks


def _gradient_attack(name: str, eps: float, flags: AttackFlags) -> Stage:
    match = re.fullmatch(r"(pgd|cw)-([1-9]\d{0,5})(?:x([1-9]\d{0,3}))?", name)
    if match is None and name != "fgsm":
        raise UsageError(f"--attack {name}: no such attack; {nearest(name, ATTACKS)}")
    kind, steps, restarts = (match[1], int(match[2]), int(match[3] or 1)) if match else ("fgsm", 1, 1)
    step = step_at(PAPER_STEP, eps) if match else eps
    parameters = {
        "loss": "margin" if kind == "cw" else "cross_entropy",
        "step": step if flags.step is None else flags.step,
        "steps": steps,
        "restarts": restarts,
        "start": flags.start,
        "last_iterate": flags.last_iterate,
        **({} if flags.target is None else {"target": flags.target, "classes": flags.classes}),
        **({} if flags.early_stop else {"early_stop": False}),  # changes no verdict; keys leave out the default
    }
    return Stage(name, pgd, parameters, passes=(2 * steps + 1) * restarts, fills=True, calls=CALLS_PER_BLOCK)


def _notices(name: str, flags: AttackFlags) -> tuple[str, ...]:
    said = []
    if name == "screen":
        said.append("screen is an upper bound, not AutoAttack's number; autoattack gives that")
    if flags.classes < DLR_CLASSES and name in ("apgd-dlr", "apgd-t", "autoattack", "autoattack-rand", "screen"):
        said.append(f"{name}: {flags.classes} classes are too few for the DLR loss; the margin takes its place")
    return tuple(said)
