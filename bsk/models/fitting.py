"""How somebody's tensors fit a network: which of them go where, what is missing, and what is left."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bsk.models.layouts import DEAD, Rules, bare, common, old_weight_norm, original_names, prefixes, shared

# What wrapping modules call the network, and what stands beside it in a training module and is no part of it.
_WRAPPED = ("module", "_orig_mod", "model", "net", "network", "state_dict")
_BESIDE = re.compile(r"(.*\.)?(n_averaged|criterion|loss\w*|attack|attacker)(\..*)?")
_PAIRS = (("mean", "std"), ("mu", "sigma"), ("new_mean", "new_std"))  # what normalisation is called within weights
_COUNTER = "num_batches_tracked"  # of batch norm, which old files lack
_STATISTICS = ("running_mean", "running_var", _COUNTER)  # of batch norm, no parameters
SPREAD = 2  # no standard deviation of pixels in [0, 1] is above a half; some people scale once more
SET = 0.5  # of a network's names, that make a set of weights
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Fit:
    """What of a file's tensors goes into a network, behind one prefix of their names.

    Attributes:
        given: what the file holds there.
        prefix: of the names that are taken.
        tensors: by the network's names.
        pair: mean and std that stand beside the network, under their names and in this order; or {}.
        left: the file's names that are not used, those of a part as `part.*`.
        problems: which of the file's names are missing, unexpected or of another shape; "" if none.
        share: of the network's names, how many are there.
    """

    given: Mapping[str, Tensor]
    prefix: str
    tensors: dict[str, Tensor]
    pair: dict[str, list[float]]
    left: list[str]
    problems: str
    share: float


class Target:
    """A network that weights are for: its state dict, and what its parts may be called in a file."""

    def __init__(self, model: str, own: Mapping[str, Tensor], channels: int) -> None:
        """Take the network's name, its state dict, and the channels of its images.

        The layouts are its own names, without and with the parts that all begin with; those of weight norm before
        parametrisations; and those of other repositories for bsk's networks.
        """
        self.own, self.channels = own, channels
        self.inside = list(normalisation(own, channels))
        stripped = bare(own)
        self.layouts = [dict(zip(own, stripped, strict=True)), dict(zip(own, own, strict=True))]
        self.layouts += [{key: old_weight_norm(name) for key, name in self.layouts[0].items()}]
        self.layouts += [names] if (names := original_names(model, own)) else []
        self.original = names
        self.parts = len({name.rpartition(".")[0] for name in stripped})

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters in the network's own order, without what batch norm counts and normalises by."""
        beside = (*self.inside, *(name for name in self.own if name.endswith(_STATISTICS)))
        return [name for name in self.own if name not in beside]

    def fits(self, tensors: Mapping[str, Tensor]) -> list[Fit]:
        """Return how the tensors of one dict of a file fit, the best prefix first, then those of other sets in it."""
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
        """Say if a prefix may stand before the network's names: those of a single layer would be found anywhere."""
        known = all(part in _WRAPPED for part in prefix.split(".")[:-1])
        return known or self.parts > 1 or all(name.startswith(prefix) for name in tensors)

    def _fit(self, tensors: Mapping[str, Tensor], prefix: str, names: Rules, sets: Collection[str]) -> Fit:
        present = {key: tensors[prefix + name] for key, name in names.items() if prefix + name in tensors}
        used = _found(tensors, prefix, names)
        rest = [name for name in tensors if name not in used]
        pairs = _pairs({name: tensors[name] for name in rest}, self.channels, prefix)
        dead = [name for name in rest if names is self.original and name.startswith(prefix + DEAD)]
        twice = pairs if self.inside else {}  # a second normalisation
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
            left,
            ", ".join(_said(what, found) for what, found in problems.items() if found),
            len(present) / max(1, len(self.own)),
        )

    def _problems(self, present: Mapping[str, Tensor], names: Rules) -> dict[str, list[str]]:
        """Return which names are missing, and which tensors have another shape.

        Of two names for one tensor, a file may hold either, as those of safetensors' `save_model` do.
        """
        there = {_storage(self.own[key]) for key in present}
        optional = {key for key in self.own if key in self.inside or key.endswith(_COUNTER)}
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
        }


def plain(tensor: Tensor) -> bool:
    """Say if a tensor is a dense one of real numbers, on the CPU."""
    usual = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return usual and not tensor.is_complex() and not tensor.is_quantized


def normalisation(tensors: Mapping[str, Tensor], channels: int) -> dict[str, list[float]]:
    """Return each mean and std, a number a channel, under their names among the tensors and in this order."""
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


def _pairs(tensors: Mapping[str, Tensor], channels: int, prefix: str) -> dict[str, list[float]]:
    """Return mean and std of each part, that which is nearest to a prefix first; those of an attacker last."""
    found = list(normalisation(tensors, channels).items())
    pairs = list(zip(found[::2], found[1::2], strict=True))
    pairs.sort(key=lambda pair: (-len(shared(pair[0][0], prefix)), bool(_BESIDE.fullmatch(pair[0][0]))))
    return dict(each for pair in pairs for each in pair)


def _storage(tensor: Tensor) -> object:
    """Return what two tensors have in common if they are one."""
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.data_ptr() else id(tensor)


def _found(tensors: Mapping[str, Tensor], prefix: str, names: Rules) -> set[str]:
    """Return which of a file's names are those of a layout behind a prefix."""
    return {prefix + name for name in names.values()} & tensors.keys()


def _grouped(names: Iterable[str], prefix: str) -> list[str]:
    """Return names as they are, but those of one part beside the prefix as `part.*`."""
    parts: dict[str, list[str]] = {}
    for name in names:
        start = shared(name, prefix)
        parts.setdefault(start + name.removeprefix(start).partition(".")[0], []).append(name)
    said = [found[0] if len(found) == 1 else f"{part}.*" for part, found in parts.items()]
    return [name.removeprefix(prefix) for name in said]


def _said(what: str, found: Sequence[str]) -> str:
    return f"{len(found)} {what} ({'; '.join(found[:_SHOWN])}{'; ...' * (len(found) > _SHOWN)})"
