"""What flags decide of an attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bsk.errors import UsageError
from bsk.plugins import is_plugin
from bsk.values import above_zero, one_of

NORMS = ("linf", "l2")
STARTS = ("zero", "uniform")
ENGINES = ("bsk", "reference")
SEARCHES = ("fp32", "bf16", "fp16", "auto")
TAKERS = {  # flags that only some attacks have, by the first word of their names
    "queries": ("square", "rays"),
    "stop_at_eps": ("rays",),
    "step": ("fgsm", "pgd", "cw"),
    "last_iterate": ("fgsm", "pgd", "cw"),
    "early_stop": ("pgd", "cw"),
    "search": ("fgsm", "pgd", "cw", "apgd", "fab", "square", "screen", "autoattack"),
}


@dataclass(frozen=True)
class AttackFlags:
    """What flags decide of an attack; None leaves it to the attack.

    Attributes:
        step, start, last_iterate: of FGSM, PGD and CW; step in pixel units.
        early_stop: whether PGD and CW leave out the steps after an iterate that was there before.
        norm: "linf" or "l2".
        search: the precision they search in; fp32 judges what they find. auto is `fast`, but fp32 for FGSM, PGD and CW.
        queries: of Square and RayS.
        stop_at_eps: of RayS.
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
    search: str = "fp32"
    queries: int | None = None
    stop_at_eps: bool = False
    engine: str = "bsk"
    settings: Mapping[str, Any] = field(default_factory=dict)
    classes: int = 10
    fast: str = "fp32"

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
        if self.settings and not any(map(is_plugin, names)):
            raise UsageError(f"--set {next(iter(self.settings))}: no attack here has it; it is for module:function")
