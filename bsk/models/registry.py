"""Networks by name: bsk's own, published ones, and plugins (`module:function`).

The contract of `--model module:function`: the function returns a `torch.nn.Module` from images (N, C, H, W) to logits
(N, classes). It is called with `num_classes=` if it accepts that, else without arguments.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bsk.errors import BskError, InputError, UsageError, kind_of, named_error, nearest
from bsk.models.architectures import PUBLISHED, SHAPE
from bsk.models.modes import eval_mode
from bsk.models.names import MODELS
from bsk.models.preact import NETWORKS
from bsk.models.resnet import resnet18, resnet50, resnet50_kuangliu
from bsk.models.small import Size, cnn, sides
from bsk.models.wide import wide_resnet
from bsk.perturb.draws import kept_randomness, own_randomness
from bsk.plugins import is_plugin, load, outside

RESNETS: dict[str, Callable[..., nn.Module]] = {  # by name without a width
    "resnet18": resnet18,
    "resnet50": resnet50,
    "resnet50-kuangliu": resnet50_kuangliu,
    **NETWORKS,
}
_DEPTH = 130  # maximum depth of a wide ResNet, since a name from a file must not build endless modules


class Normalised(nn.Module):
    """The network applied to (x - mean) / std, for images x (N, C, H, W) in [0, 1].

    mean and std, one number per channel, are saved with the weights. `order` is the network's output index of each
    class, if the network orders the classes differently.
    """

    mean: Tensor
    std: Tensor
    order: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        outside: str = "",
        order: Sequence[int] | Tensor | None = None,
    ) -> None:
        """Wrap `network`; `outside` is how messages refer to a plugin network, "" for one of bsk's own."""
        super().__init__()
        self.network, self.outside = network, outside
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))
        self.register_buffer("order", None if order is None else torch.as_tensor(order), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        logits = self._logits(x)
        return logits if self.order is None else logits[:, self.order]

    def _logits(self, x: Tensor) -> Tensor:
        mean, std = (_plane(each, x) for each in (self.mean, self.std))
        images = (x - mean) / std
        if not self.outside:
            logits: Tensor = self.network(images)
            return logits
        with outside(self.outside, "check its forward", InputError):
            # bsk's batches are channels last, for which `x.view(len(x), -1)`, used in many networks, fails
            return checked_logits(self.network(images.contiguous()), len(x), self.outside)


def build(
    name: str,
    *,
    classes: int,
    channels: int,
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int = 0,
    device: torch.device | None = None,
) -> Normalised:
    """Return a new model with its normalisation on the device; bsk's own are in channels-last format.

    The weights are drawn from `seed` on the CPU, so they are the same on every device; the global random state is
    preserved.

    Raises:
        UsageError: there is no such model, or its code fails or breaks the contract.
    """
    with own_randomness(torch.device("cpu"), "network", seed):  # a user's network may draw from any generator
        torch.manual_seed(seed)
        model = Normalised(network(name, classes, channels, size), mean, std, named(name)).to(device)
        if is_plugin(name):
            check_logits(model, (channels, *sides(size)), classes, f"--model {name}", kind=UsageError)
            return model
    return model.to(memory_format=torch.channels_last)


def network(name: str, classes: int, channels: int, size: Size) -> nn.Module:
    """Return a new network by name; torch's global random state determines its weights.

    `resnet18-W`, `preact-resnet18-W` etc. and `cnn-W` have width W instead of 64 and 16; `wrn-D-W` has any depth and
    width. A suffix after the width selects the variant of one repository: `preact-resnet18-W-wong`, `wrn-D-W-silu`.
    cnn-a, resnet2b and resnet20 are published networks for images (3, 32, 32).

    Args:
        name: for example resnet18, preact-resnet18-16, wrn-34-10, or `module:function`.
        classes: the number of logits.
        channels: the number of channels of the images.
        size: the side of the images in pixels, or their height and width.

    Raises:
        UsageError: there is no such model, module or function, or it fails.
    """
    if is_plugin(name):
        return _called(name, classes, (1, channels, *sides(size)))
    if name in PUBLISHED:
        if (channels, *sides(size)) != SHAPE:
            raise UsageError(f"--model {name}: is for images {SHAPE}, found {(channels, *sides(size))}; check --data")
        return PUBLISHED[name].build(classes)
    if match := re.fullmatch(r"wrn-(\d{1,4})-(\d{1,4})(-silu)?", name):
        depth, width = int(match[1]), int(match[2])
        if 10 <= depth <= _DEPTH and (depth - 4) % 6 == 0 and width >= 1:
            return wide_resnet(classes, channels, depth, width, silu=bool(match[3]))
        expected = f"a depth 6n + 4 up to {_DEPTH} and a width of at least 1, as in wrn-34-10"
        raise UsageError(f"--model {name}: expected {expected}")
    match = re.fullmatch(r"((?:preact-)?[a-z]+\d*)(?:-([1-9]\d{0,3}))?(-[a-z]+)?", name)
    base = match[1] + (match[3] or "") if match else ""
    if not match or base not in (*RESNETS, "cnn"):
        also = f"also {', '.join(name for name in RESNETS if name not in MODELS)}, "
        also += f"{', '.join(PUBLISHED)} and module:function"
        raise UsageError(f"--model {name}: no such model; {nearest(name, MODELS)}; {also}")
    width_of = {"width": int(match[2])} if match[2] else {}
    return cnn(classes, channels, size, **width_of) if base == "cnn" else RESNETS[base](classes, channels, **width_of)


def named(model: str) -> str:
    """Return how messages refer to a plugin network, "" for one of bsk's own."""
    return f"--model {model}" if is_plugin(model) else ""


def _called(name: str, classes: int, shape: tuple[int, ...]) -> nn.Module:
    function = load(name, "--model").function
    with outside(named(name), "check the module and function"):
        made = function(num_classes=classes) if _takes(function, "num_classes") else function()
        made = getattr(made, "_orig_mod", made)  # unwrap torch.compile
        if not isinstance(made, nn.Module):
            raise UsageError(f"{named(name)}: expected a torch.nn.Module, found {type(made).__name__}; check it")
        made.float()
        if any(map(is_lazy, [*made.parameters(), *made.buffers()])):  # its sizes are determined by the first images
            with eval_mode(made), torch.no_grad():
                made(torch.zeros(shape))
        _dense(made)
    return made


def _dense(network: nn.Module) -> None:
    """Copy the buffers that repeat one value by strides, as `expand` makes them: these cannot be loaded or averaged."""
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if repeats(buffer):
                setattr(module, name, buffer.contiguous())


def repeats(tensor: Tensor) -> bool:
    """Return whether a dense tensor has elements at the same place in memory, as `expand` makes it."""
    strides = tensor.stride() if tensor.layout == torch.strided else ()
    return any(stride == 0 and size > 1 for stride, size in zip(strides, tensor.shape, strict=False))


def checked_logits(logits: object, n: int, start: str = "model") -> Tensor:
    """Return the output of a network for n images if it is a tensor of logits (n, classes).

    Raises:
        InputError: it is something else.
    """
    found = tuple(logits.shape) if isinstance(logits, Tensor) else kind_of(logits)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != n:
        raise InputError(f"{start}: expected logits ({n}, classes) for {n} images, found {found}; check its forward")
    return logits


def _takes(function: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions written in C have no signature
        return False
    return name in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def check_logits(
    model: nn.Module,
    shape: tuple[int, ...],
    classes: int | None,
    start: str,
    *,
    device: torch.device | None = None,
    kind: type[BskError] = InputError,
    advice: str = "check --model and --data",
) -> int:
    """Return the number of logits of a model; raise if it does not return one logit per class for such images.

    Args:
        model: it is left unchanged, including its mode and statistics; it is called on one image, and on two if that
            fails. The images have values from 0 to 1, which a network that computes in place would change.
        shape: (C, H, W).
        classes: the required number of classes, or None for any number.
        start: how messages begin.
        device: where the images go; None means the device of the model's first parameter or buffer.
        kind: the error to raise.
        advice: how a message ends.
    """
    place = device or device_of(model) or torch.device("cpu")
    found: tuple[int, ...] | str = ()
    changed = False
    for n in (1, 2):  # some networks squeeze a single row, which does not matter in batches
        try:
            x = torch.linspace(0, 1, n * math.prod(shape), device=place).view(n, *shape)
            before = x.clone()
            with kept_randomness(place), eval_mode(model), torch.no_grad():
                logits = model(x)
            changed = not torch.equal(x, before)
            found = tuple(logits.shape) if isinstance(logits, Tensor) else kind_of(logits)
        except Exception as error:  # the forward pass may be foreign code
            found = named_error(error)
        if changed:
            raise kind(f"{start}: changes its input in place, as x.sub_(mean) does; write x = x - mean instead")
        count = found[1] if isinstance(found, tuple) and len(found) == 2 else 0
        if found == (n, count) and count == (classes or count):
            return count
    expected = f"logits (2, {classes or 'classes'}) for images {(2, *shape)}"
    raise kind(f"{start}: expected {expected}, found {found}; {advice}")


def device_of(model: nn.Module) -> torch.device | None:
    """Return the device of the first parameter or buffer of a model, or None if it has none."""
    return next((tensor.device for tensors in (model.parameters(), model.buffers()) for tensor in tensors), None)


def _plane(values: Tensor, x: Tensor) -> Tensor:
    """Return one number per channel, (1, C, 1, 1), as an image in the memory format of the images x.

    torch broadcasts three numbers over channels-last images element by element, which is noticeably slow in a small
    network. The result is bitwise the same.
    """
    return torch.empty_like(x.detach()[:1], dtype=values.dtype).copy_(values)
