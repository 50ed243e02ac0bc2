"""What flags decide of an attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bsk.errors import UsageError
from bsk.plugins import is_plugin
from bsk.values import above_zero, one_of

NORMS = ("linf", "l2", "l1")
STARTS = ("zero", "uniform")
ENGINES = ("bsk", "reference")
SEARCHES = ("fp32", "bf16", "fp16", "auto")
AUDIT = "autoattack-audit"  # what a record calls `autoattack` with --audit or --within
TAKERS = {  # flags that only some attacks have, by the first word of their names
    "queries": ("square", "rays"),
    "stop_at_eps": ("rays",),
    "step": ("fgsm", "pgd", "cw"),
    "last_iterate": ("fgsm", "pgd", "cw"),
    "early_stop": ("pgd", "cw"),
    "target": ("fgsm", "pgd", "cw"),
    "search": ("fgsm", "pgd", "cw", "apgd", "fab", "square", "screen", "autoattack"),
}


@dataclass(frozen=True)
class AttackFlags:
    """What flags decide of an attack; None leaves it to the attack.

    Attributes:
        step, start, last_iterate: of FGSM, PGD and CW; step in pixel units.
        early_stop: whether PGD and CW leave out the steps after an iterate that was there before.
        target: of FGSM, PGD and CW: the class to be taken for, by name or number, or random or least-likely.
        norm: "linf", "l2" or "l1".
        search: the precision they search in; fp32 judges what they find. auto is `fast` for APGD, else fp32.
        queries: of Square and RayS.
        stop_at_eps: of RayS.
        audit: of AutoAttack: only so many of the survivors of its first half meet FAB-T and Square.
        within: of AutoAttack: the same, as many as tell its accuracy to so many percentage points.
        engine: "bsk", or "reference" for the authors' code of AutoAttack.
        settings: of attacks from outside: their own arguments by name, as values or as text.
        classes: of the model, no flag; decides how many targets there are.
        fast: of the device, no flag: the precision that it computes fast in.
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
    classes: int = 10
    fast: str = "fp32"

    @property
    def sampling(self) -> str:
        """The flag that has only a sample attacked to the end; empty where there is none."""
        return "--audit" if self.audit is not None else "--within" if self.within is not None else ""

    def check(self, names: Sequence[str]) -> None:
        """Raise a UsageError if a value cannot be, or no attack has it: nobody should report what never ran."""
        one_of("start", self.start, STARTS)
        one_of("norm", self.norm, NORMS)
        one_of("engine", self.engine, ENGINES)
        one_of("search", self.search, SEARCHES)
        if self.step is not None:
            above_zero(step=self.step)
        for flag, takers in TAKERS.items():
            if getattr(self, flag) != getattr(AttackFlags, flag) and not any(
                name.split("-")[0] in takers for name in names
            ):
                raise UsageError(f"--{flag.replace('_', '-')}: no attack here has it; it is for {', '.join(takers)}")
        if self.sampling:
            self._check_audit(names)
        if self.settings and not any(map(is_plugin, names)):
            raise UsageError(f"--set {next(iter(self.settings))}: no attack here has it; it is for module:function")

    def _check_audit(self, names: Sequence[str]) -> None:
        if "autoattack" not in names or self.engine != "bsk":
            raise UsageError(f"{self.sampling}: no attack here has it; it is for autoattack, by bsk's own engine")
        if self.audit is not None and self.within is not None:
            raise UsageError("--audit and --within: give how many are audited, or how narrow the interval is, not both")
        if self.audit is not None and (type(self.audit) is not int or self.audit < 1):
            raise UsageError(f"--audit {self.audit}: must be a whole number, at least 1")
        if self.within is not None:
            above_zero(within=self.within)

    def check_untargeted(self) -> None:
        """Raise a UsageError if there is a target, where accuracies are told: it is not what they are of."""
        if self.target is not None:
            raise UsageError(f"--target {self.target}: tells no accuracy to compare; it is for bsk attack")

    def check_whole(self) -> None:
        """Raise a UsageError if examples are only sampled, where the images of all of them are asked for."""
        if self.sampling:
            raise UsageError(f"{self.sampling}: leaves most images without the whole attack; it is for bsk evaluate")
