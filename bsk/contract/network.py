"""The network as a method sees it: trained passes, and passes that only compute a perturbation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bsk.compat import without_tf32
from bsk.models.compiled import Compiled
from bsk.models.modes import eval_mode, folded_eval_mode, in_precision
from bsk.perturb import losses
from bsk.perturb.ascent import Model
from bsk.perturb.passes import PassCounter, counting


@dataclass
class Network:
    """A network in train mode, from images (N, C, H, W) in [0, 1] to logits (N, classes).

    Attributes:
        module: the underlying module.
        precision: the precision of its passes, a name in PRECISIONS.
        counter: counts every pass.
        smoothing: the label smoothing of every cross entropy that training minimises.
        smoothed: whether the method has called `net.cross_entropy`, which smooths the labels.
        through: a wrapper around the passes that compute a perturbation, for `bsk.training.awp`.
        compiled: the passes through torch.compile, if it is used.
        scope: what lasts until the end of the update, after its backward pass.
    """

    module: nn.Module
    precision: str = "fp32"
    counter: PassCounter = field(default_factory=PassCounter)
    smoothing: float = 0.0
    smoothed: bool = False
    through: Callable[[Model], Model] | None = None
    compiled: Compiled | None = None
    scope: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x) in train mode: batch norms use batch statistics, and the weights receive gradients."""
        return self._counted(self.compiled.trained if self.compiled else self.module, self.precision)(x)

    def exact(self, x: Tensor) -> Tensor:
        """Return f(x) in fp32 whatever the precision, and never compiled: for second-order gradients.

        From the first such pass to the end of the update TF32 is off, because differences of gradients and losses would
        be lost in its rounding. Attention is computed as the plain formula, because its fused kernels have no second
        derivative.
        """
        self.scope.enter_context(without_tf32())
        with sdpa_kernel(SDPBackend.MATH):
            return self._counted(self.module, "fp32")(x)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[Model]:
        """Yield the network for computing a perturbation: in eval mode, with folded batch norms.

        Eval mode is that of the authors' code.
        """
        with eval_mode(self.module) if self.compiled else folded_eval_mode(self.module):
            f = self._counted(self.compiled.frozen if self.compiled else self.module, self.precision)
            yield f if self.through is None else self.through(f)

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the training loss L(logits, y), with the label smoothing of the settings: shape (N,)."""
        self.smoothed = True
        return losses.cross_entropy(logits, y, self.smoothing)

    def _counted(self, model: Model, precision: str) -> Model:
        return counting(in_precision(model, precision), self.counter)
