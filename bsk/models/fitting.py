"""Matching the tensors of a file to a network: which go where, which are missing, and which are left over."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bsk.models.layouts import DEAD, Rules, bare, common, old_weight_norm, original_names, prefixes, shared
from bsk.values import SPREAD

# Names that wrapping modules give the network, and names of parts of a training module beside it.
_WRAPPED = ("module", "_orig_mod", "model", "net", "network", "state_dict")
_BESIDE = re.compile(r"(.*\.)?(n_averaged|criterion|loss\w*|attack|attacker)(\..*)?")
_PAIRS = (("mean", "std"), ("mu", "sigma"), ("new_mean", "new_std"))  # names of normalisation buffers
_COUNTER = "num_batches_tracked"  # of batch norm; missing in old files
_STATISTICS = ("running_mean", "running_var", _COUNTER)  # buffers of batch norm
# Parts whose numbers are for pixels; a bare number is the first part of a Sequential.
_HINT = re.compile(r"(.*(norm|pixel|input|image|data|pre|transform|scal|standard|config|args|param).*)|0", re.I)
_METRIC = re.compile(r"(.*[._])?(criterion|\w*loss\w*|(average)?meters?|metrics?|\w*acc(uracy)?)(\..*)?", re.I)
SET = 0.5  # fraction of a network's names that makes a set of weights
_SHOWN = 3  # maximum number of names in a message


@dataclass(frozen=True)
class Fit:
    """How the tensors of a file behind one name prefix fit a network.

    Attributes:
        given: all tensors of the dict in the file.
        prefix: the name prefix.
        tensors: the matching tensors by the network's own names.
        pair: mean and std stored beside the network, under their names and in this order; or {}.
        odd: names of a mean and std beside the network that are not those of pixels in [0, 1], or ().
        left: names in the file that are not used; those of one part are summarised as `part.*`.
        problems: a description of missing and unexpected names and of wrong shapes; "" if there are none.
        share: fraction of the network's names that are present.
    """

    given: Mapping[str, Tensor]
    prefix: str
    tensors: dict[str, Tensor]
    pair: dict[str, list[float]]
    odd: tuple[str, ...]
    left: list[str]
    problems: str
    share: float


class Target:
    """The network that weights are loaded into: its state dict, and the names of its parts in files."""

    def __init__(self, model: str, own: Mapping[str, Tensor], channels: int, learned: Collection[str] = ()) -> None:
        """Take the network's name, its state dict, the number of channels of its images, and the names that it learns.

        The possible layouts are its own names, with and without the prefix that all of them share; the names of weight
        norm before parametrisations; and, for bsk's networks, those of other repositories.
        """
        self.model, self.own, self.channels = model, own, channels
        self.learned = learned
        self.inside = [
            name
            for name in normalisation(own, channels)
            if name not in learned or (own[name].numel() == channels and is_for_pixels(name.rpartition(".")[0]))
        ]
        stripped = bare(own)
        self.layouts = [dict(zip(own, stripped, strict=True)), dict(zip(own, own, strict=True))]
        self.layouts += [{key: old_weight_norm(name) for key, name in self.layouts[0].items()}]
        self.layouts += [names] if (names := original_names(model, own)) else []
        self.original = names
        self.parts = len({name.rpartition(".")[0] for name in stripped})

    @property
    def parameters(self) -> list[str]:
        """The parameters' names in the network's own order, without statistics of batch norm and normalisation."""
        beside = (*self.inside, *(name for name in self.own if name.endswith(_STATISTICS)))
        return [name for name in self.own if name not in beside]

    def fits(self, tensors: Mapping[str, Tensor]) -> list[Fit]:
        """Return how the tensors of one dict of a file fit: the best prefix first, then other sets of weights in it."""
        counted = [
            (count, prefix, names)
            for names in self.layouts
            for prefix, count in prefixes(tensors, set(names.values())).items()
            if self._may_begin(prefix, tensors)
        ]
        _, best, names = max(counted, key=lambda each: each[0], default=(0, common(tensors), self.layouts[0]))
        sets = {best: _found(tensors, best, names)}
        for count, prefix, layout in counted:
            found = _found(tensors, prefix, layout)
            if layout is names and count >= SET * len(self.own) and all(map(found.isdisjoint, sets.values())):
                sets[prefix] = found
        return [self._fit(tensors, prefix, names, set().union(*sets.values())) for prefix in sets]

    def _may_begin(self, prefix: str, tensors: Iterable[str]) -> bool:
        """Return whether a prefix may precede the network's names; the names of a single layer would match anywhere."""
        known = all(part in _WRAPPED for part in prefix.split(".")[:-1])
        return known or self.parts > 1 or all(name.startswith(prefix) for name in tensors)

    def _fit(self, tensors: Mapping[str, Tensor], prefix: str, names: Rules, sets: Collection[str]) -> Fit:
        present = {key: tensors[prefix + name] for key, name in names.items() if prefix + name in tensors}
        used = _found(tensors, prefix, names)
        rest = [name for name in tensors if name not in used]
        pairs, odd = _pairs({name: tensors[name] for name in rest}, self.channels, prefix)
        dead = [name for name in rest if names is self.original and name.startswith(prefix + DEAD)]
        twice = pairs if self.inside else {}  # a second normalisation beside the network's own
        pairs = {} if self.inside else pairs
        beside = {*sets, *pairs, *dead, *filter(_BESIDE.fullmatch, rest)}
        unexpected = [name for name in rest if name in twice or (name.startswith(prefix) and name not in beside)]
        problems = self._problems(present, names) | {"unexpected": [name.removeprefix(prefix) for name in unexpected]}
        pair = dict(list(pairs.items())[:2])
        left = _grouped([name for name in rest if name not in pair], prefix)
        return Fit(
            tensors,
            prefix,
            present,
            {name.removeprefix(prefix): numbers for name, numbers in pair.items()},
            tuple(name.removeprefix(prefix) for name in odd[:2]),
            left,
            ", ".join(_listed(what, found) for what, found in problems.items() if found),
            len(present) / max(1, len(self.own)),
        )

    def _problems(self, present: Mapping[str, Tensor], names: Rules) -> dict[str, list[str]]:
        """Return the names that are missing, and the tensors with a wrong shape.

        If one tensor has two names, a file may hold either one, as files of safetensors' `save_model` do.
        """
        there = {_storage(self.own[key]) for key in present}
        fixed = {key for key in self.inside if key not in self.learned}
        optional = {key for key in self.own if key in fixed or key.endswith(_COUNTER)}
        return {
            "missing": [
                names[key]
                for key, tensor in self.own.items()
                if key not in present and key not in optional and _storage(tensor) not in there
            ],
            "unexpected": [],
            "of another shape": [
                f"{names[key]} {tuple(tensor.shape)}, expected {tuple(self.own[key].shape)}"
                for key, tensor in present.items()
                if tensor.shape != self.own[key].shape
            ],
            "of another type": [
                f"{names[key]} {tensor.dtype}, expected {self.own[key].dtype}"
                for key, tensor in present.items()
                if self.own[key].is_floating_point() and not tensor.is_floating_point()
            ],
            "tied in the network but different": [names[key] for key in self._untied(present)],
        }

    def _untied(self, present: Mapping[str, Tensor]) -> list[str]:
        """Return the names of tensors that are one in the network, but not equal to the first of them in the file."""
        first: dict[object, Tensor] = {}
        alike = ((key, first.setdefault(_storage(self.own[key]), tensor), tensor) for key, tensor in present.items())
        return [key for key, one, other in alike if one is not other and plain(one) and not _equal(one, other)]


def plain(tensor: Tensor) -> bool:
    """Return whether a tensor is a dense tensor of real numbers on the CPU."""
    usual = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return usual and not tensor.is_complex() and not tensor.is_quantized


def normalisation(tensors: Mapping[str, Tensor], channels: int) -> dict[str, list[float]]:
    """Return each mean and std among the tensors, one number per channel, by name and in this order."""
    found: dict[str, list[float]] = {}
    for name, tensor in tensors.items():
        part, dot, leaf = name.rpartition(".")
        for mean, std in _PAIRS:
            other = tensors.get(part + dot + std)
            if leaf != mean or other is None or not (plain(tensor) and plain(other)):
                continue
            if {tensor.numel(), other.numel()} <= {1, channels}:
                pair = {name: tensor, part + dot + std: other}
                found |= {key: each.float().reshape(-1).expand(channels).tolist() for key, each in pair.items()}
    return found


def plausible(mean: Sequence[float], std: Sequence[float]) -> bool:
    """Return whether these may be mean and std of pixels in [0, 1]."""
    return min(mean) >= -1 and max(mean) <= 1 and 0 < min(std) <= max(std) <= SPREAD


def _pairs(tensors: Mapping[str, Tensor], channels: int, prefix: str) -> tuple[dict[str, list[float]], list[str]]:
    """Return mean and std of each part, nearest to the prefix first and those of an attacker last; and names of others.

    Those of losses and other metrics are left out, and numbers without a channel unless the name of the part shows
    that they are for pixels. The others are not those of pixels in [0, 1].
    """
    found = list(normalisation(tensors, channels).items())
    pairs = [
        (mean, std)
        for mean, std in zip(found[::2], found[1::2], strict=True)
        if not is_metric(mean[0])
        and (
            channels == 1
            or tensors[mean[0]].numel() > 1
            or is_for_pixels(mean[0].removeprefix(prefix).rpartition(".")[0])
        )
    ]
    pairs.sort(key=lambda pair: (-len(shared(pair[0][0], prefix)), bool(_BESIDE.fullmatch(pair[0][0]))))
    odd = [name for (name, mean), (other, std) in pairs if not plausible(mean, std) for name in (name, other)]
    return dict(each for pair in pairs for each in pair if pair[0][0] not in odd), odd


def is_metric(name: str) -> bool:
    """Return whether a name is that of a loss or another metric, whose mean and std are not those of pixels."""
    return bool(_METRIC.fullmatch(name))


def is_for_pixels(part: str) -> bool:
    """Return whether the name of a part of a network or file suggests that its mean and std are those of pixels."""
    return not part or bool(_HINT.fullmatch(part))


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _storage(tensor: Tensor) -> object:
    """Return a value that is equal for two tensors if they are the same memory."""
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.data_ptr() else id(tensor)


def _found(tensors: Mapping[str, Tensor], prefix: str, names: Rules) -> set[str]:
    """Return the names in the file that belong to a layout behind a prefix."""
    return {prefix + name for name in names.values()} & tensors.keys()


def _grouped(names: Iterable[str], prefix: str) -> list[str]:
    """Return the names, with those of one part beside the prefix summarised as `part.*`."""
    parts: dict[str, list[str]] = {}
    for name in names:
        start = shared(name, prefix)
        parts.setdefault(start + name.removeprefix(start).partition(".")[0], []).append(name)
    said = [found[0] if len(found) == 1 else f"{part}.*" for part, found in parts.items()]
    return [name.removeprefix(prefix) for name in said]


def _listed(what: str, found: Sequence[str]) -> str:
    return f"{len(found)} {what} ({'; '.join(found[:_SHOWN])}{'; ...' * (len(found) > _SHOWN)})"
