"""Attack plugins: the contract of `--attack module:function`.

    def my_attack(model, x, y, *, eps, draws, steps=10) -> Tensor:

`model` is a `torch.nn.Module` in eval mode from images (N, C, H, W) in [0, 1] to logits (N, classes), `x` and `y` (N,)
are images and labels, `eps` is the radius in the norm of `--norm`, and `draws` has a stream of random numbers for each
example (`bsk.perturb.draws.ExampleDraws`). A function that has an argument `norm` is given the norm. All other
arguments are hyper-parameters: they are set by `--set steps=20` and written to the record.

The function returns images (N, C, H, W) in [0, 1] within eps of x, or a `bsk.attacks.outcome.Outcome` with such images.
bsk judges the images itself, whatever the function says about its success, and counts the passes through `model`.
torch's global random numbers depend on the seed and the first example of a batch, so verdicts may depend on
`--batch-size`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bsk.attacks.outcome import NotFiniteError, Outcome, spread
from bsk.errors import InputError, UsageError, kind_of
from bsk.perturb.ascent import Model
from bsk.perturb.ball import length
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.passes import PassCounter, counting
from bsk.plugins import Plugin, outside
from bsk.signature import defaults_of, keywords_of

GIVEN = ("eps", "draws", "norm")
# Tolerances for fp32 rounding at the edge of the ball, relative and absolute. In L1 and L2 that of each pixel adds up.
# A grey level is 4000 times larger.
ROUNDING, SUMMED = 1e-6, 1e-5


@dataclass(frozen=True)
class Outside:
    """The `run` of a stage that calls a plugin function and judges the images it returns."""

    plugin: Plugin

    def defaults(self) -> dict[str, Any]:
        """Return the hyper-parameters of the function with their defaults.

        Raises:
            UsageError: it does not take eps or draws, or a hyper-parameter has no default.
        """
        start = f"--attack {self.plugin.spec}"
        keywords = keywords_of(self.plugin.function)
        for name in ("eps", "draws"):
            if name not in keywords:
                expected = "expected def my_attack(model, x, y, *, eps, draws)"
                raise UsageError(f"{start}: it has no argument {name}; {expected}")
        return defaults_of(self.plugin.function, GIVEN, start)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, draws: ExampleDraws, *, eps: float, norm: str, code: str, **hyper: Any
    ) -> Outcome:
        """Attack images x (N, C, H, W) in [0, 1] with labels y (N,) within radius eps.

        Raises:
            InputError: the function fails, or does not return images in the ball.
        """
        passes = PassCounter()
        counted = counting(model, passes)
        more = {"norm": norm} if "norm" in keywords_of(self.plugin.function) else {}
        with outside(f"--attack {self.plugin.spec}", f"check {self.place}", InputError, passing=NotFiniteError):
            # pass copies: an attack that writes into x would move the centre of its own ball
            found = self.plugin.function(
                Called(counted).eval(), x.clone(), y.clone(), eps=eps, draws=draws, **more, **hyper
            )
        x_adv = self._checked(found.x_adv if isinstance(found, Outcome) else found, x, eps, norm)
        with torch.no_grad():
            fooled = counted(x_adv).argmax(dim=1) != y
        return Outcome(x_adv, fooled, spread(passes.forward, y), spread(passes.backward, y))

    @property
    def place(self) -> str:
        """The name of the function and of its file, for messages."""
        function = inspect.unwrap(self.plugin.function)
        code = getattr(function, "__code__", None)
        name = self.plugin.spec.partition(":")[2]
        return f"{name} in {Path(code.co_filename).name}" if code else name

    def _checked(self, x_adv: object, x: Tensor, eps: float, norm: str) -> Tensor:
        """Return the images as a tensor like x, if an attack may return them."""
        if not isinstance(x_adv, Tensor):
            raise self._wrong(f"images {tuple(x.shape)}", kind_of(x_adv))
        if x_adv.shape != x.shape:
            raise self._wrong(f"images {tuple(x.shape)}", f"{tuple(x_adv.shape)}")
        if x_adv.layout != torch.strided or x_adv.is_meta or not x_adv.is_floating_point():
            kind = "meta" if x_adv.is_meta else f"{x_adv.layout} {x_adv.dtype}".replace("torch.", "")
            raise self._wrong("dense images of a float type", kind)
        x_adv = x_adv.detach().to(x)
        if not bool(torch.isfinite(x_adv).all()):
            raise self._wrong("images in [0, 1]", "NaN or infinity")
        least, most = float(x_adv.min()), float(x_adv.max())
        if least < 0 or most > 1:
            raise self._wrong("images in [0, 1]", f"values from {least:.6g} to {most:.6g}")
        away = distance(x_adv, x, norm)
        if is_outside(away, eps, norm):
            raise self._wrong(f"images within eps {eps:.6g} of x ({norm})", f"one {away:.6g} away")
        return x_adv

    def _wrong(self, expected: str, found: str) -> InputError:
        return InputError(f"--attack {self.plugin.spec}: expected {expected}, found {found}; check {self.place}")


def distance(x_adv: Tensor, x: Tensor, norm: str) -> float:
    """Return the largest distance of an image of x_adv from that of x, computed on the CPU in fp64."""
    return float(length(x_adv.cpu().double() - x.cpu().double(), norm).max())


def is_outside(away: float, eps: float, norm: str) -> bool:
    """Return whether a distance in fp64 is beyond the radius by more than rounding in fp32 explains."""
    return away > eps * (1 + (ROUNDING if norm == "linf" else SUMMED)) + ROUNDING


class Called(nn.Module):
    """A function as a module without parameters, as attacks of other libraries expect."""

    def __init__(self, function: Model) -> None:
        """Take a function from images to logits."""
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return function(x)."""
        return self._function(x)
