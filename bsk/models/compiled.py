"""Passes through torch.compile: one compiled form for training, one for perturbations; and when compiling pays."""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the customary name

from bsk.errors import first_line
from bsk.models.modes import eval_mode, foldable
from bsk.perturb.ascent import Model

GRAPHS = "reduce-overhead"  # the mode of torch.compile that makes CUDA graphs
GRAPH_CALLS = 3  # the first warms up, the second is captured, the third replayed
# Seconds of work from which compiling, which takes a minute, pays: it saves 5 % of the time on a CPU, more on a GPU.
LONG = {"cpu": 3600.0, "cuda": 300.0}
# Approximate FLOP/s of a CPU thread and of a GPU; with measured ones the results would depend on timing.
RATE = {"cpu": 1e11, "cuda": 1e13}


class Compiled:
    """A network compiled for calls of a fixed number of rows, or of any; all other calls run uncompiled.

    Both compiled forms share the network's tensors, so they always use its current weights. If a tensor is replaced by
    another, compilation is given up, unless the frozen form only `searches`. On a GPU the passes are CUDA graphs. If
    torch.compile fails, because there is no C++ compiler or it cannot handle the network, all calls run uncompiled.
    `tell` receives a message before the first compilation and one if it fails.

    Attributes:
        trained: from images (N, C, H, W) to logits, in the network's current mode, with gradients for its weights.
        frozen: the same in eval mode without gradients for the weights, with the batch norms of bsk's ResNets folded in
            the graph; the network itself must be in eval mode when it is called.
        calls: the number of compiled calls.
        works: whether compiled calls are used; False after torch.compile has failed.
    """

    def __init__(
        self,
        model: nn.Module,
        rows: int | None,
        device: torch.device,
        tell: Callable[[str], None],
        searches: bool = False,
    ) -> None:
        """Take a network and the rows of its calls, None for any.

        With `searches`, for an evaluation, the network itself judges what `frozen` finds. It is copied at once, before
        its layers are replaced for exact passes, and its last linear layer computes in fp32, also in a call in bf16.
        """
        self.calls, self.works = 0, True
        self._model, self._rows, self._tell, self._on_gpu = model, rows, tell, device.type == "cuda"
        self._seconds, self._tensors = 0.0, None if searches else _identities(model)
        self.trained = self._form(lambda: model)
        make = functools.cache(lambda: frozen_form(model, fp32_logits=searches))
        self.frozen = self._form(make)
        if searches:
            try:
                make()
            except Exception as error:  # of a network that cannot be copied
                self._give_up(error)

    def begin(self) -> None:
        """Start an update: tensors returned by CUDA graphs before are no longer needed."""
        if self._on_gpu:
            torch.compiler.cudagraph_mark_step_begin()

    def spent(self) -> float:
        """Return the seconds spent compiling since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _form(self, make: Callable[[], nn.Module]) -> Model:
        """Return a callable for the module that `make` returns, which is compiled at the first call."""
        known: set[tuple[object, ...]] = set()
        made: tuple[nn.Module, Model] | None = None
        plain: Model = self._model

        def compiled(x: Tensor) -> Tensor:
            """Copy the output of a CUDA graph, since its next run overwrites it."""
            assert made is not None
            leaf = _OwnGradient.apply(x) if self._on_gpu and x.requires_grad else x
            logits: Tensor = made[1](leaf)
            return logits.clone() if self._on_gpu else logits

        def forward(x: Tensor) -> Tensor:
            nonlocal made
            if self._rows not in (len(x), None) or not self.works or self._replaced():
                return plain(x)
            x = _fixed_layout(x)
            if self._rows is None:
                self.begin()
            try:
                if made is None:
                    module = make()
                    made = module, torch.compile(module, dynamic=False, mode=GRAPHS if self._on_gpu else None)
                if (variant := _variant(made[0], x)) not in known:
                    self._compile_variant(made[0], compiled, x)
                    known.add(variant)
            except Exception as error:  # of torch.compile; an error of the network itself is raised again below
                self._give_up(error)
            if not self.works:  # outside of `except`, which keeps the tensors of the pass that failed
                return plain(x)
            self.calls += 1
            return compiled(x)

        return forward

    def _compile_variant(self, module: nn.Module, compiled: Model, x: Tensor) -> None:
        """Compile the variant for this kind of call."""
        start = time.perf_counter()
        if not self.calls and not self._seconds:
            self._tell("torch.compile takes up to a few minutes, which are counted apart; --compile off avoids it")
        try:
            for _ in range(GRAPH_CALLS if self._on_gpu else 1):
                _run_once(module, compiled, x)
        finally:
            self._seconds += time.perf_counter() - start

    def _replaced(self) -> bool:
        """Return whether a tensor of the network was replaced, which the frozen form would not notice."""
        if self._tensors is not None and _identities(self._model) != self._tensors:
            self._give_up(ValueError("the network replaces its tensors"))
        return not self.works

    def _give_up(self, error: Exception) -> None:
        self.works = False
        self._tell(f"torch.compile failed ({first_line(error)}); continues without it; --compile off does not try")


def _identities(model: nn.Module) -> list[int]:
    return [id(each) for each in (*model.parameters(), *model.buffers())]


def _variant(module: nn.Module, x: Tensor) -> tuple[object, ...]:
    """Return everything for which torch compiles a variant of its own."""
    kind = x.device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    modes = tuple(each.track_running_stats for each in module.modules() if isinstance(each, nn.BatchNorm2d))
    return (*x.shape, x.dtype, x.requires_grad, torch.is_grad_enabled(), precision, module.training, modes)


def _fixed_layout(x: Tensor) -> Tensor:
    """Return images in channels-last layout; with one channel, with fixed strides, to avoid recompilation."""
    return x.flatten(1).view(x.shape) if x.shape[1] == 1 else x.contiguous(memory_format=torch.channels_last)


def _run_once(module: nn.Module, call: Model, x: Tensor) -> None:
    """Compile a forward and a backward pass by running them once, without side effects."""
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
    """The identity, whose gradient is a copy of the incoming one, which is memory of a CUDA graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clone()


def frozen_form(model: nn.Module, fp32_logits: bool = False) -> nn.Module:
    """Return a copy of a network in eval mode, which shares the network's tensors but gives them no gradient.

    Where a batch norm of bsk's ResNets follows a convolution, the two are folded into one convolution at each call.

    Raises:
        TypeError: the network cannot be copied in this way.
    """
    same: dict[int, Any] = {id(each): nn.Parameter(each.detach(), False) for each in model.parameters()}
    same |= {id(each): each for each in model.buffers()}
    copied = copy.deepcopy(model, same)
    pairs = zip(model.state_dict().values(), copied.state_dict().values(), strict=True)
    if not all(isinstance(a, Tensor) and a.data_ptr() == b.data_ptr() for a, b in pairs):
        raise TypeError("a copy does not share its tensors")
    for layers, i, conv, norm in foldable(copied):
        layers[i], layers[i + 1] = _Folded(conv, norm), nn.Identity()
    linear = [name for name, each in copied.named_modules() if type(each) is nn.Linear]
    if fp32_logits and linear:
        copied.set_submodule(linear[-1], _Fp32(cast(nn.Linear, copied.get_submodule(linear[-1]))))
    return copied.eval()


class _Folded(nn.Module):
    """A convolution and the batch norm after it, in eval mode, as one convolution."""

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
    """A linear layer that computes in the precision of its weights, even within `autocast`."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.layer(x.to(self.layer.weight.dtype))
        return logits


def compiles(choice: str, model: nn.Module, shape: Sequence[int], passes: float, device: torch.device) -> bool:
    """Return whether a network's passes are compiled: as the user chose, or, for "auto", if it pays.

    It pays for at least LONG seconds of work, estimated from the number of `passes` (in forward passes of one image of
    the given shape (C, H, W)) and the RATE. The answer depends only on the work, the kind of device and the number of
    threads.
    """
    if choice != "auto" or device.type not in LONG:
        return choice == "on"
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    affordable = LONG[device.type] * RATE[device.type] * threads / max(passes, 1.0)
    weights = sum(each.numel() for each in model.parameters())
    if 2 * weights * math.prod(shape[1:]) <= affordable:  # an upper bound for our layers
        return False
    return operations(model, shape, device) > affordable


def operations(model: nn.Module, shape: Sequence[int], device: torch.device) -> int:
    """Return the floating-point operations of one forward pass of an image (C, H, W), counting matrix products only.

    Attention is computed by its plain formula: torch counts none of a CPU's fused kernel, nor, without gradients, of
    the single operation that `nn.MultiheadAttention` becomes (findings/torch_flop_counter_gaps.sh).
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(1, *shape, device=device, requires_grad=True).clone()  # no leaf: it may be changed in place
    plain = sdpa_kernel(SDPBackend.MATH)
    with eval_mode(model), torch.enable_grad(), plain, FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops())
