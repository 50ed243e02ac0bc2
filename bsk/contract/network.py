"""The network as a method sees it: passes that are trained, and passes that only perturb."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from bsk.models.compiled import Compiled
from bsk.models.modes import eval_mode, in_precision, standing_still
from bsk.perturb import losses
from bsk.perturb.ascent import Model
from bsk.perturb.passes import PassCounter, counting


@dataclass
class Network:
    """A network in train mode, called with images (N, C, H, W) in [0, 1] for logits (N, classes).

    Attributes:
        module: the network itself.
        precision: of its passes, a name in PRECISIONS.
        counter: counts every pass.
        smoothing: of the labels, in every cross entropy that training descends.
        smoothed: whether the method has asked for a cross entropy of `net`, which smooths the labels.
        through: what perturbing passes go through, for `bsk.training.awp`.
        compiled: the network's passes through torch.compile, if they go there.
    """

    module: nn.Module
    precision: str = "fp32"
    counter: PassCounter = field(default_factory=PassCounter)
    smoothing: float = 0.0
    smoothed: bool = False
    through: Callable[[Model], Model] | None = None
    compiled: Compiled | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x), in train mode: batch norms normalise by the batch, and the weights get their gradient."""
        return self._counted(self.compiled.trained if self.compiled else self.module, self.precision)(x)

    def exact(self, x: Tensor) -> Tensor:
        """Return f(x) in fp32, whatever the precision, and never compiled: for gradients of gradients."""
        return self._counted(self.module, "fp32")(x)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[Model]:
        """Yield the network in eval mode, as in the authors' code, its batch norms folded: for the perturbation."""
        with eval_mode(self.module) if self.compiled else standing_still(self.module):
            f = self._counted(self.compiled.frozen if self.compiled else self.module, self.precision)
            yield f if self.through is None else self.through(f)

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return L(logits, y) for the loss that training descends, its labels smoothed as the settings say: (N,)."""
        self.smoothed = True
        return losses.cross_entropy(logits, y, self.smoothing)

    def _counted(self, model: Model, precision: str) -> Model:
        return counting(in_precision(model, precision), self.counter)
