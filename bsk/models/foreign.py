"""Models trained by others: a network by name, weights from a file, and the normalisation in front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bsk.errors import InputError, UsageError
from bsk.models.architectures import PUBLISHED
from bsk.models.fitting import Target, plausible
from bsk.models.recognition import matching_networks
from bsk.models.registry import Normalised, check_logits, named, network
from bsk.models.small import Size, sides
from bsk.models.weights import Weights, load_weights
from bsk.plugins import is_plugin
from bsk.values import SPREAD

LINEAR = 3  # sizes of linear layers, the last in the file first, that are tried as the number of classes


@dataclass(frozen=True)
class Foreign:
    """A model that bsk did not train.

    Attributes:
        model: in eval mode on its device, for images in [0, 1].
        mean, std: the normalisation of `model`, one number per channel.
        normalisation: where it comes from: "flags", "weights", "known" (from the model's name), "network" (the network
            normalises with its own buffers; mean and std are 0 and 1), or "none" (also 0 and 1).
        dropped: names in the file that are not used: dead parts, parts beside the network, or mean and std if flags
            override them.
        weights: which set of the file's weights was loaded; None without a file.
        changes: whether the network may normalise the images itself besides, by constants.
        absent: the network's own mean and std that are not in the file.
    """

    model: Normalised
    mean: list[float]
    std: list[float]
    normalisation: str
    dropped: list[str]
    weights: Weights | None
    changes: bool = False
    absent: Sequence[str] = ()


def foreign_model(
    model: str,
    weights: Path | None,
    *,
    classes: int,
    channels: int,
    size: Size,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: torch.device | None = None,
    key: str | None = None,
    order: Sequence[int] | None = None,
) -> Foreign:
    """Return the network `model` with a complete set of weights from a file.

    Weights in the layouts of TRADES, of DeepMind (wide ResNets with SiLU) and of kuangliu (ResNets), as in RobustBench,
    fit bsk's own networks. The normalisation comes from the flags, else from the weights (`mean` and `std`, `mu` and
    `sigma`, or `new_mean` and `new_std`, in any part), else from what is known about `model`; otherwise there is none.

    Args:
        model: a name in bsk, cnn-a, resnet2b, resnet20, or `module:function`.
        weights: see `load_weights`; None if the network comes with its own.
        classes: the number of logits.
        channels: the number of channels of the images.
        size: the side of the images in pixels, or their height and width.
        mean: one number per channel, or None to find it.
        std: one positive number per channel, or None to find it.
        device: where the model goes; None leaves it on the CPU.
        key: which set of weights, as in `--weights-key`; None for the first that fits.
        order: the network's output index of each class, if the network orders the classes differently.

    Raises:
        UsageError: there is no such model or set of weights, or mean and std do not fit.
        InputError: the file is missing, refused, or does not fit the model; the message names a network that it fits.
    """
    flags = _checked_flags(mean, std, channels)
    with torch.random.fork_rng(devices=[]):
        bare = network(model, classes, channels, size)
    own = {name: tensor for name, tensor in bare.state_dict().items() if isinstance(tensor, Tensor)}
    learned = {name for name, parameter in bare.named_parameters() if parameter.requires_grad}
    target = Target(model, own, channels, learned)
    if target.inside and flags:
        inside = " and ".join(target.inside[:2])
        raise UsageError(f"--mean: {model} normalises by its own {inside}; leave out --mean and --std")
    found = None if weights is None else load_weights(weights, target, key)
    pair: dict[str, list[float]] = {}
    left: list[str] = []
    absent: list[str] = []
    if found is not None:
        if found.fit.problems:
            step = _fitting(found.fit.given, classes, channels, size) or "check --model and --data"
            raise InputError(f"{weights}: does not fit {model}: {found.fit.problems}; {step}")
        pair, left = found.fit.pair, found.fit.left
        absent = _checked_pairs(weights, found, target, bool(flags))
        bare.load_state_dict(found.fit.tensors, strict=False)  # Target.fits has already checked what is missing
    chosen_mean, chosen_std, source = _chosen(flags, pair, bool(target.inside), model, channels)
    changes = is_plugin(model) and source in ("flags", "weights") and _changes(bare, model, channels, size, device)
    whole = Normalised(bare, chosen_mean, chosen_std, named(model), order).to(device).eval()
    if not is_plugin(model):
        whole.to(memory_format=torch.channels_last)
    check_logits(whole, (channels, *sides(size)), classes, f"{weights or '--model'}: {model}")
    return Foreign(whole, chosen_mean, chosen_std, source, [*(pair if flags else ()), *left], found, changes, absent)


def _checked_pairs(weights: Path | None, found: Weights, target: Target, flags: bool) -> list[str]:
    """Return the names of the network's own mean and std that are not in the file.

    Raises:
        InputError: mean and std in the file are not those of pixels and no flags replace them, or they are others than
            the network's own, which the file lacks.
    """
    if found.odd and not (flags or found.fit.pair or target.inside):
        said = f"{weights}: its {found.odd} are not those of pixels in [0, 1]"
        raise InputError(f"{said}; give --mean and --std, one number per channel, divided by 255 if need be")
    absent = [name for name in target.inside if name not in found.fit.tensors]
    own = [target.own[name].reshape(-1).expand(target.channels).double() for name in absent]
    stored = [torch.tensor(each, dtype=torch.float64) for each in found.stored.values()]
    if any(not torch.allclose(*both, atol=1e-4) for both in zip(own, stored, strict=False)):
        said = f"{weights}: has mean and std, but not {target.model}'s own {' and '.join(absent[:2])}"
        raise InputError(f"{said}; save these with the weights")
    return absent


def _changes(bare: nn.Module, model: str, channels: int, size: Size, device: torch.device | None) -> bool:
    """Return whether a network changes images before its first layer, as one that normalises them by constants does."""
    plain = Normalised(bare, [0.0] * channels, [1.0] * channels, named(model)).to(device).eval()
    return not takes_pixels(plain, (channels, *sides(size)))


def _fitting(tensors: Mapping[str, Tensor], classes: int, channels: int, size: Size) -> str:
    """Return a message that names networks which the tensors fit, with another number of classes if need be, or ""."""
    rows = dict.fromkeys(len(each) for each in reversed([*tensors.values()]) if each.dim() == 2 and len(each))
    for number in (classes, *list(rows)[:LINEAR]):
        if names := matching_networks(tensors, number, channels, size):
            step = "it fits " + " or ".join(f"--model {name}" for name in names)
            more = f" with {number} classes, but the data has {classes}; use the data it was trained on"
            return step if number == classes else step + more
    return ""


def takes_pixels(model: Normalised, shape: tuple[int, ...]) -> bool:
    """Return whether the first layer with weights gets the images (C, H, W) unchanged, so nothing normalises them."""
    first: list[object] = []

    def see(module: nn.Module, inputs: tuple[object, ...]) -> None:
        first.extend(inputs[: 1 - len(first)])

    layers = [layer for layer in model.modules() if not isinstance(layer, torch.jit.ScriptModule)]
    large = model.mean.numel()  # a mean and std that a network learns are no layer
    weighty = [each for each in layers if any(own.numel() > large for own in each.parameters(recurse=False))]
    handles = [layer.register_forward_pre_hook(see) for layer in weighty]
    x = torch.linspace(0, 1, math.prod(shape), device=model.mean.device).reshape(1, *shape)
    try:
        with torch.no_grad():
            model(x)
    except InputError:  # it does not accept such images
        return False
    finally:
        for handle in handles:
            handle.remove()
    if not first or not isinstance(first[0], Tensor) or first[0].numel() != x.numel():
        return False
    return torch.equal(first[0].float().reshape(-1), x.reshape(-1))  # a linear layer gets them flattened


def _checked_flags(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[list[float], list[float]] | None:
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise UsageError(f"--{'mean' if mean is None else 'std'}: missing; give --mean and --std together")
    for flag, numbers in (("--mean", mean), ("--std", std)):
        if len(numbers) != channels:
            raise UsageError(
                f"{flag}: {len(numbers)} numbers for images with {channels} channels; give one per channel"
            )
        if not all(math.isfinite(number) for number in numbers):
            raise UsageError(f"{flag}: {', '.join(map(str, numbers))}; give finite numbers")
    if min(std) <= 0:
        raise UsageError(f"--std: {min(std)}; give numbers above 0")
    if not plausible(mean, std):
        advice = "divide by 255" if max(mean) > 1 or max(std) > SPREAD else "check the sign of --mean"
        raise UsageError(f"--mean {mean[0]:g}, --std {std[0]:g}: expected values for pixels in [0, 1]; {advice}")
    return list(mean), list(std)


def _chosen(
    flags: tuple[list[float], list[float]] | None,
    found: Mapping[str, list[float]],
    inside: bool,
    model: str,
    channels: int,
) -> tuple[list[float], list[float], str]:
    """Return mean, std and where they come from."""
    if flags:
        return *flags, "flags"
    if found:
        mean, std = found.values()
        return mean, std, "weights"
    if model in PUBLISHED:
        return list(PUBLISHED[model].mean), list(PUBLISHED[model].std), "known"
    return [0.0] * channels, [1.0] * channels, "network" if inside else "none"
