"""Typical and unusual networks of users, composed from small parts around one plain network for the digits."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

MEAN, STD = 0.3, 0.4  # normalisation of the images for the weights that were trained on normalised images


class Core(nn.Module):
    """The plain network: images (N, 1, 8, 8) to ten logits."""

    def __init__(self) -> None:
        """Build it with random weights."""
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Linear(288, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.fc(torch.relu(self.bn(self.conv(x))).flatten(1))
        return logits


class Normalising(nn.Module):
    """Normalises its input, by constants, or if `held` by buffers that are part of its weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, held: bool) -> None:
        """Wrap a network."""
        super().__init__()
        self.net, self.held = net, held
        if held:
            self.register_buffer("mean", torch.tensor([MEAN]).reshape(1, 1, 1))
            self.register_buffer("std", torch.tensor([STD]).reshape(1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.net((x - self.mean) / self.std if self.held else (x - MEAN) / STD)
        return logits


class Around(nn.Module):
    """A network with a function before and after it."""

    def __init__(
        self,
        net: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Any] = lambda z: z,
    ) -> None:
        """Wrap a network."""
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x: Tensor) -> Any:
        """Return the output of the function after it."""
        return self.after(self.net(self.before(x)))


class Within(Around):
    """Runs within a context manager of torch."""

    def __init__(self, net: nn.Module, context: Callable[[], Any]) -> None:
        """Wrap a network; `context` returns the context manager."""
        super().__init__(net)
        self.context = context

    def forward(self, x: Tensor) -> Any:
        """Return the logits."""
        with self.context():
            return self.net(x)


class Transparent(Around):
    """Exposes the weights of the network inside under their own names."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights into the network inside."""
        return self.net.load_state_dict(state_dict, strict, assign)

    def state_dict(self, *words: Any, **options: Any) -> Any:
        """Return the weights of the network inside."""
        return self.net.state_dict(*words, **options)


class Counting(Around):
    """Counts its calls in a buffer."""

    calls: Tensor

    def __init__(self, net: nn.Module) -> None:
        """Wrap a network."""
        super().__init__(net)
        self.register_buffer("calls", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Any:
        """Return the logits."""
        self.calls += 1
        return self.net(x)


class Checkpointed(Around):
    """Uses activation checkpointing: recomputes activations in the backward pass."""

    def forward(self, x: Tensor) -> Any:
        """Return the logits."""
        return torch.utils.checkpoint.checkpoint(self.net, x, use_reentrant=False)


class Stubborn(Around):
    """Ignores eval mode and stays in train mode."""

    def train(self, mode: bool = True) -> Stubborn:
        """Set train mode, whatever `mode` is."""
        super().train(True)
        return self


class Awake(Around):
    """Returns to train mode before each pass."""

    def forward(self, x: Tensor) -> Any:
        """Return the logits."""
        self.net.train()
        return self.net(x)


def by_statistics_of_the_batch(net: nn.Module) -> nn.Module:
    """Make the network's batch norms use the statistics of the batch."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    return net


def first(act: Callable[[], object]) -> Callable[[nn.Module], nn.Module]:
    """Return a wrapper that calls `act` before each pass of a network."""

    def before(x: Tensor) -> Tensor:
        act()
        return x

    return lambda net: Around(net, before)


def made_after(act: Callable[[], object]) -> Callable[[nn.Module], nn.Module]:
    """Return a wrapper that calls `act` once when the network is built, and does not change the network."""

    def make(net: nn.Module) -> nn.Module:
        act()
        return net

    return make


def fail(error: BaseException) -> Callable[[nn.Module], nn.Module]:
    """Return a wrapper that raises `error` for batches of more than two images."""

    def before(x: Tensor) -> Tensor:
        if len(x) > 2:
            raise error
        return x

    return lambda net: Around(net, before)


def _through_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(x.detach().numpy().copy())


def _in_place(x: Tensor) -> Tensor:
    return x.mul_(2).sub_(x / 2)  # restores x


def _lazy(net: nn.Module) -> nn.Module:
    for core in [each for each in net.modules() if isinstance(each, Core)]:
        vars(core)["_modules"].update(conv=nn.LazyConv2d(8, 3), bn=nn.LazyBatchNorm2d(), fc=nn.LazyLinear(10))
    return net


def _weight_norm(net: nn.Module) -> nn.Module:
    for layer in [each for each in net.modules() if isinstance(each, nn.Linear)]:
        torch.nn.utils.parametrizations.weight_norm(layer)
    return net


def scripted(net: nn.Module) -> nn.Module:
    """Return the network compiled by torch.jit.script."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        made: nn.Module = torch.jit.script(net)
    return made


def traced(net: nn.Module) -> nn.Module:
    """Return the network traced by torch.jit.trace in eval mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = torch.jit.trace(net.eval(), _EXAMPLE)
    return made


def _compiled(net: nn.Module) -> nn.Module:
    compiled: Any = torch.compile(net, backend="eager")
    made: nn.Module = compiled
    return made


def _anomaly() -> None:
    torch.autograd.set_detect_anomaly(True)


def _seed() -> None:
    torch.manual_seed(0)


_EXAMPLE = torch.zeros(2, 1, 8, 8)
Wrap = Callable[[nn.Module], nn.Module]
WRAPPERS: dict[str, Wrap] = {
    "plain": lambda net: net,
    "sequential": nn.Sequential,
    "holder": Around,
    "two holders": lambda net: Around(Around(net)),
    "transparent": Transparent,
    "parallel": nn.DataParallel,
    "averaged": lambda net: torch.optim.swa_utils.AveragedModel(net),
    "scripted": scripted,
    "traced": traced,
    "compiled": _compiled,
    "fx": lambda net: torch.fx.symbolic_trace(net),
    "compiled within": lambda net: Around(_compiled(net)),
    "double": lambda net: net.double(),
    "half": lambda net: net.half(),
    "channels last": lambda net: net.to(memory_format=torch.channels_last),
    "frozen": lambda net: net.requires_grad_(False),
    "lazy": _lazy,
    "weight norm": _weight_norm,
    "in place": lambda net: Around(net, _in_place),
    "prints": first(lambda: print("forward")),
    "writes to stdout": first(lambda: os.write(1, b"forward\n")),
    "prints to the first stdout": first(lambda: print("forward", file=sys.__stdout__)),
    "starts a process that prints": made_after(lambda: os.system("echo from a process")),
    "prints as it ends": made_after(lambda: __import__("atexit").register(print, "at the end")),
    "logs": first(lambda: logging.warning("forward")),
    "warns": first(lambda: warnings.warn("forward", stacklevel=1)),
    "errors for warnings": made_after(lambda: warnings.simplefilter("error")),
    "checkpointed": Checkpointed,
    "black box": lambda net: Around(net, after=lambda z: z.detach()),
    "no_grad": lambda net: Within(net, torch.no_grad),
    "inference mode": lambda net: Within(net, torch.inference_mode),
    "through numpy": lambda net: Around(net, _through_numpy),
    "autocast": lambda net: Within(net, lambda: torch.autocast("cpu", torch.bfloat16)),
    "autocast off": lambda net: Within(net, lambda: torch.autocast("cpu", enabled=False)),
    "nan gradient": lambda net: Around(net, after=lambda z: z + (0 * z).abs().sqrt()),
    "rounds its input": lambda net: Around(net, lambda x: (x * 255).round() / 255),
    "grows rows": lambda net: Around(net, after=lambda z: z if len(z) < 3 else z.repeat(2, 1)),
    "leans on the batch": lambda net: Around(net, lambda x: x - 0.5 * x.mean(0, keepdim=True)),
    "random": lambda net: Around(net, lambda x: x + 0.1 * torch.randn_like(x)),
    "counts": Counting,
    "raises later": fail(KeyError("lookup")),
    "leaves": fail(SystemExit(0)),
    "out of memory": fail(RuntimeError("DefaultCPUAllocator: can't allocate memory")),
    "double by default": made_after(lambda: torch.set_default_dtype(torch.float64)),
    "double by default, later": first(lambda: torch.set_default_dtype(torch.float64)),
    "half by default": made_after(lambda: torch.set_default_dtype(torch.float16)),
    "another default device": made_after(lambda: torch.set_default_device("meta")),
    "without gradients": made_after(lambda: torch.set_grad_enabled(False)),
    "without gradients, later": first(lambda: torch.set_grad_enabled(False)),
    "deterministic": made_after(lambda: torch.use_deterministic_algorithms(True)),
    "anomalies": made_after(_anomaly),
    "seeds": first(_seed),
    "more threads": first(lambda: torch.set_num_threads(2)),
    "newer precision": made_after(lambda: setattr(torch.backends, "fp32_precision", "ieee")),
    "lower precision": made_after(lambda: torch.set_float32_matmul_precision("medium")),
    "without oneDNN": made_after(lambda: setattr(torch.backends.mkldnn, "enabled", False)),
    "goes elsewhere": made_after(lambda: os.chdir("/")),
    "takes stdout": made_after(lambda: setattr(sys, "stdout", io.StringIO())),
    "closes stdout": made_after(lambda: sys.stdout.close()),
    "reads flags": made_after(lambda: __import__("argparse").ArgumentParser().parse_args()),
    "reads stdin": made_after(lambda: sys.stdin.read() if sys.stdin else None),
    "strict numpy": made_after(lambda: __import__("numpy").seterr(all="raise")),
}
MODES: dict[str, Wrap] = {
    "eval": lambda net: net,
    "train": lambda net: net.train(),
    "dropout": lambda net: Around(net, nn.Dropout(0.5)),
    "dropout, always": lambda net: Around(net, lambda x: nn.functional.dropout(x, 0.3, training=True)),
    "stubborn": Stubborn,
    "awake": Awake,
    "statistics of the batch": by_statistics_of_the_batch,
}
OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "logits": lambda z: z,
    "tuple": lambda z: (z, z),
    "list": lambda z: [z],
    "dict": lambda z: {"logits": z},
    "softmax": lambda z: z.softmax(1),
    "log softmax": lambda z: z.log_softmax(1),
    "sigmoid": lambda z: z.sigmoid(),
    "decisions": lambda z: nn.functional.one_hot(z.argmax(1), 10).float(),
    "labels": lambda z: z.argmax(1),
    "planes": lambda z: z[:, :, None, None],
    "one more": lambda z: torch.cat([z, z.amin(1, keepdim=True) - 1], 1),
    "double": lambda z: z.double(),
    "half": lambda z: z.half(),
    "bfloat16": lambda z: z.bfloat16(),
    "whole numbers": lambda z: (z * 1000).long(),
    "numpy": lambda z: z.detach().numpy(),
    "transposed": lambda z: z.t().contiguous().t(),
    "large": lambda z: z * 1e4,
    "huge": lambda z: z * 1e30,
    "tiny": lambda z: z * 1e-8,
    "shifted": lambda z: z + 100,
    "negative infinity": lambda z: z.masked_fill(z < z.amax(1, keepdim=True) - 20, -torch.inf),
    "nan for some": lambda z: torch.where(torch.arange(len(z))[:, None] == 5, torch.nan, z),
    "expanded": lambda z: z[:, :, None].expand(-1, -1, 3)[..., 1],
}


def structure(wrapper: str, normalisation: str, state: dict[str, Tensor] | None = None) -> nn.Module:
    """Return the network whose weights are saved: the plain one, or a wrapper of it with additional weights."""
    core = Core()
    if state is not None:
        core.load_state_dict(state)
    if wrapper == "weight norm":
        _weight_norm(core)
    if normalisation in ("by buffers", "by constants", "twice"):  # twice: by flags too
        return Normalising(core, normalisation != "by constants")
    return core


def build(wrapper: str, normalisation: str, mode: str, output: str) -> nn.Module:
    """Return a network composed of these parts."""
    plain = structure("plain", normalisation)
    net = MODES[mode](WRAPPERS[wrapper](plain))
    return net if output == "logits" else Around(net, after=OUTPUTS[output])
