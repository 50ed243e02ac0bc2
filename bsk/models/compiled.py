"""A network's passes through torch.compile: one form that is trained, one that only perturbs; and when that pays."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its name everywhere

from bsk.models.modes import eval_mode, foldable
from bsk.perturb.ascent import Model

GRAPHS = "reduce-overhead"  # the mode of torch.compile that makes CUDA graphs
GRAPH_CALLS = 3  # the first warms up, the second is recorded, the third played
# Seconds of work from which compiling pays, which takes a minute: a CPU gains a twentieth by it, a GPU more.
LONG = {"cpu": 3600.0, "cuda": 300.0}
# Floating-point operations in a second, of a CPU's thread and of a GPU, about: a clock would decide the last bits.
RATE = {"cpu": 1e11, "cuda": 1e13}


class Compiled:
    """A network compiled for calls of one number of rows, or of any; all others go through its layers one by one.

    The tensors of both forms are the network's own, so that they see at once whatever is done to it; one that replaces
    a tensor is not compiled any more. On a GPU the passes are CUDA graphs. Where torch.compile fails, for want of a C++
    compiler or because it cannot take the network, all calls go layer by layer. `tell` is given a line before the first
    compiling, and one where it fails.

    Attributes:
        trained: images (N, C, H, W) to logits, in the network's own mode, with gradients for its weights.
        frozen: the same in eval mode without such gradients, the batch norms of bsk's ResNets folded in the graph; it
            is called while the network itself is in eval mode.
        calls: how many went through what is compiled.
        works: whether calls go there; not after torch.compile has failed.
    """

    def __init__(
        self,
        model: nn.Module,
        rows: int | None,
        device: torch.device,
        tell: Callable[[str], None],
        fp32_logits: bool = False,
    ) -> None:
        """Take a network and the rows of its calls, None for any; with `fp32_logits` its last layer stays in fp32.

        That is the last linear layer of `frozen`, also where a call computes in bf16.
        """
        self.calls, self.works = 0, True
        self._model, self._rows, self._tell, self._on_gpu = model, rows, tell, device.type == "cuda"
        self._seconds, self._tensors = 0.0, _identities(model)
        self.trained = self._form(lambda: model)
        self.frozen = self._form(lambda: frozen_form(model, fp32_logits))

    def begin(self) -> None:
        """Begin an update: what CUDA graphs returned before it is not needed any more."""
        if self._on_gpu:
            torch.compiler.cudagraph_mark_step_begin()

    def spent(self) -> float:
        """Return the seconds of compiling since this was asked last."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _form(self, make: Callable[[], nn.Module]) -> Model:
        """Return the passes through what `make` makes, compiled as they first come."""
        met: set[tuple[object, ...]] = set()
        made: tuple[nn.Module, Model] | None = None
        plain: Model = self._model

        def compiled(x: Tensor) -> Tensor:
            """Copy what a CUDA graph returns: its next run writes there again."""
            assert made is not None
            leaf = _OwnGradient.apply(x) if self._on_gpu and x.requires_grad else x
            logits: Tensor = made[1](leaf)
            return logits.clone() if self._on_gpu else logits

        def forward(x: Tensor) -> Tensor:
            nonlocal made
            if self._rows not in (len(x), None) or not self.works or self._replaced():
                return plain(x)
            x = _in_one_layout(x)
            if self._rows is None:
                self.begin()
            try:
                if made is None:
                    module = make()
                    made = module, torch.compile(module, dynamic=False, mode=GRAPHS if self._on_gpu else None)
                if (way := _way(made[0], x)) not in met:
                    self._meet(made[0], compiled, x)
                    met.add(way)
            except Exception as error:  # of torch.compile; one of the network's own comes again below
                self._give_up(error)
                return plain(x)
            self.calls += 1
            return compiled(x)

        return forward

    def _meet(self, module: nn.Module, compiled: Model, x: Tensor) -> None:
        """Compile a way to call."""
        start = time.perf_counter()
        if not self.calls and not self._seconds:
            self._tell("torch.compile takes up to a few minutes, counted apart; --compile off does without")
        for _ in range(GRAPH_CALLS if self._on_gpu else 1):
            _there_and_back(module, compiled, x)
        self._seconds += time.perf_counter() - start

    def _replaced(self) -> bool:
        """Say if the network has another tensor than it had, which the frozen form does not know."""
        if _identities(self._model) != self._tensors:
            self._give_up(ValueError("the network replaces its tensors"))
        return not self.works

    def _give_up(self, error: Exception) -> None:
        self.works = False
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        self._tell(f"torch.compile failed ({reason:.120}); goes on without it; --compile off does not try")


def _identities(model: nn.Module) -> list[int]:
    return [id(each) for each in (*model.parameters(), *model.buffers())]


def _way(module: nn.Module, x: Tensor) -> tuple[object, ...]:
    """Return what torch compiles a call anew for."""
    kind = x.device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    modes = tuple(each.track_running_stats for each in module.modules() if isinstance(each, nn.BatchNorm2d))
    return (*x.shape, x.dtype, x.requires_grad, torch.is_grad_enabled(), precision, module.training, modes)


def _in_one_layout(x: Tensor) -> Tensor:
    """Return images channels last, and those of one channel by the same strides: for others torch compiles anew."""
    return x.flatten(1).view(x.shape) if x.shape[1] == 1 else x.contiguous(memory_format=torch.channels_last)


def _there_and_back(module: nn.Module, call: Model, x: Tensor) -> None:
    """Compile a pass and its way back by taking it once; nothing is left of it."""
    kept = [each.clone() for each in module.buffers()]
    with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
        leaf = x.detach().requires_grad_(x.requires_grad)
        logits = call(leaf)
        if logits.requires_grad:
            torch.autograd.grad(logits.sum(), leaf if leaf.requires_grad else [*module.parameters()], allow_unused=True)
    with torch.no_grad():
        for each, before in zip(module.buffers(), kept, strict=True):
            each.copy_(before)


class _OwnGradient(torch.autograd.Function):
    """The identity, whose gradient is a copy of what came back: that is memory of a CUDA graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clone()


def frozen_form(model: nn.Module, fp32_logits: bool = False) -> nn.Module:
    """Return a copy of a network in eval mode, whose tensors are the network's own but get no gradient.

    Where a batch norm of bsk's ResNets comes after a convolution, the two are one convolution, by weights of each call.

    Raises:
        TypeError: the network cannot be copied so.
    """
    same: dict[int, Any] = {id(each): nn.Parameter(each.detach(), False) for each in model.parameters()}
    same |= {id(each): each for each in model.buffers()}
    copied = copy.deepcopy(model, same)
    pairs = zip(model.state_dict().values(), copied.state_dict().values(), strict=True)
    if not all(isinstance(a, Tensor) and a.data_ptr() == b.data_ptr() for a, b in pairs):
        raise TypeError("its copy has tensors of its own")
    for layers, i, conv, norm in foldable(copied):
        layers[i], layers[i + 1] = _Folded(conv, norm), nn.Identity()
    linear = [name for name, each in copied.named_modules() if type(each) is nn.Linear]
    if fp32_logits and linear:
        copied.set_submodule(linear[-1], _Fp32(copied.get_submodule(linear[-1])))
    return copied.eval()


class _Folded(nn.Module):
    """A convolution and the batch norm after it, in eval mode."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self.conv, self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight, bias = conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
        return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


class _Fp32(nn.Module):
    """A layer that computes in fp32, within `autocast` too."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.layer(x.float())
        return logits


def compiles(choice: str, model: nn.Module, shape: Sequence[int], passes: float, device: torch.device) -> bool:
    """Say if a network's passes are compiled: as the user chose, or where it pays.

    That is for LONG work: so many passes of images of a shape (C, H, W), each as long as one forward, at a RATE. It is
    a function of the work, the kind of device and the number of threads alone.
    """
    if choice != "auto" or device.type not in LONG:
        return choice == "on"
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    affordable = LONG[device.type] * RATE[device.type] * threads / max(passes, 1.0)
    weights = sum(each.numel() for each in model.parameters())
    if 2 * weights * math.prod(shape[1:]) <= affordable:  # no layer of ours has more operations, and most have fewer
        return False
    return operations(model, shape, device) > affordable


def operations(model: nn.Module, shape: Sequence[int], device: torch.device) -> int:
    """Return the floating-point operations of the products in one forward pass of an image (C, H, W)."""
    from torch.utils.flop_counter import FlopCounterMode

    with eval_mode(model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *shape, device=device))
    return int(counter.get_total_flops())
