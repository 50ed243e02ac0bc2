"""The settings of an attack that come from flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from bsk.errors import UsageError, kind_of
from bsk.plugins import is_plugin
from bsk.values import above_zero, checked_numbers, one_of, pixel_step

NORMS = ("linf", "l2", "l1")
STARTS = ("zero", "uniform")
ENGINES = ("bsk", "reference")
SEARCHES = ("fp32", "bf16", "fp16", "auto")
AUDIT = "autoattack-audit"  # what a record calls `autoattack` with --audit or --within
TAKERS = {  # flags that only some attacks take, by the first word of their names
    "queries": ("square", "rays"),
    "stop_at_eps": ("rays",),
    "step": ("fgsm", "pgd", "cw"),
    "start": ("fgsm", "pgd", "cw"),
    "last_iterate": ("fgsm", "pgd", "cw"),
    "early_stop": ("pgd", "cw"),
    "target": ("fgsm", "pgd", "cw"),
    "search": ("fgsm", "pgd", "cw", "apgd", "fab", "square", "screen", "autoattack"),
}
SET_LATER = {"flag": False}  # the metadata of a field that follows from model or device


@dataclass(frozen=True)
class AttackFlags:
    """The settings of an attack; None leaves a setting to the attack.

    Attributes:
        step, start, last_iterate: for FGSM, PGD and CW; the step is in pixel units.
        early_stop: whether PGD and CW skip the remaining steps once an iterate repeats an earlier one.
        target: for FGSM, PGD and CW: the target class, by name or number, or random or least-likely.
        norm: "linf", "l2" or "l1".
        search: the precision of the search; fp32 verifies what it finds. auto is `fast` for APGD, and fp32 otherwise.
        queries: for Square and RayS.
        stop_at_eps: for RayS.
        audit: for AutoAttack: only this many survivors of its first half are attacked by FAB-T and Square.
        within: for AutoAttack: the same, with as many survivors as give its accuracy to within this many percentage
            points.
        engine: "bsk", or "reference" for the authors' code of AutoAttack.
        settings: for attack plugins: their own arguments by name, as values or text.
        classes: the number of classes of the model, not a flag; limits the number of targets.
        fast: the fast precision of the device, not a flag.
    """

    norm: str = "linf"
    step: float | None = None
    start: str = "zero"
    last_iterate: bool = False
    early_stop: bool = True
    target: str | int | None = None
    search: str = "fp32"
    queries: int | None = None
    stop_at_eps: bool = False
    audit: int | None = None
    within: float | None = None
    engine: str = "bsk"
    settings: Mapping[str, Any] = field(default_factory=dict)
    classes: int = field(default=10, metadata=SET_LATER)
    fast: str = field(default="fp32", metadata=SET_LATER)

    @property
    def sampling(self) -> str:
        """The flag that asks for a sample (--audit or --within); empty if there is none."""
        return "--audit" if self.audit is not None else "--within" if self.within is not None else ""

    def check(self, names: Sequence[str]) -> None:
        """Raise a UsageError if a value is invalid, or if no attack takes it: nobody should report what never ran."""
        checked_numbers(self)
        if not isinstance(self.settings, Mapping):
            raise UsageError(f"settings: {kind_of(self.settings)}, expected a dict of arguments by name")
        if self.target is not None and not isinstance(self.target, str | Integral):
            raise UsageError(f"--target: {kind_of(self.target)}, expected the name or number of one class")
        one_of("start", self.start, STARTS)
        one_of("norm", self.norm, NORMS)
        one_of("engine", self.engine, ENGINES)
        one_of("search", self.search, SEARCHES)
        if self.step is not None:
            pixel_step(self.step)  # attacks that take it are for Linf
        for flag, takers in TAKERS.items():
            if getattr(self, flag) != getattr(AttackFlags, flag) and not any(
                name.split("-")[0] in takers for name in names
            ):
                raise UsageError(f"--{flag.replace('_', '-')}: no attack here takes it; it is for {', '.join(takers)}")
        if self.sampling:
            self._check_audit(names)
        if self.settings and not any(map(is_plugin, names)):
            raise UsageError(f"--set {next(iter(self.settings))}: no attack here takes it; it is for module:function")

    def _check_audit(self, names: Sequence[str]) -> None:
        if "autoattack" not in names or self.engine != "bsk":
            raise UsageError(f"{self.sampling}: no attack here takes it; it is for autoattack with --engine bsk")
        if self.audit is not None and self.within is not None:
            raise UsageError("--audit and --within: give the size of the sample or the width of the interval, not both")
        if self.audit is not None and self.audit < 1:
            raise UsageError(f"--audit {self.audit}: must be at least 1")
        if self.within is not None:
            above_zero(within=self.within)

    def check_untargeted(self) -> None:
        """Raise a UsageError if a target is set where robust accuracy is reported.

        A targeted attack does not measure robust accuracy.
        """
        if self.target is not None:
            raise UsageError(f"--target {self.target}: gives no accuracy to compare; use it with bsk attack")

    def check_whole(self) -> None:
        """Raise a UsageError if only a sample is attacked, but the adversarial images of all examples are requested."""
        if self.sampling:
            raise UsageError(f"{self.sampling}: skips part of the attack on most images; use it with bsk evaluate")
