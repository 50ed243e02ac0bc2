"""Which tensor of a file goes where in a network, and what others call the parts of bsk's networks."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_Rules = Mapping[str, str]

# bsk's names to those of TRADES, of the paper's code and of RobustBench; {0} is a stage from 1, {1} a block from 0
_WIDE: _Rules = {
    r"stem": "conv1",
    r"blocks\.\d+\.norm1": "block{0}.layer.{1}.bn1",
    r"blocks\.\d+\.conv1": "block{0}.layer.{1}.conv1",
    r"blocks\.\d+\.norm2": "block{0}.layer.{1}.bn2",
    r"blocks\.\d+\.conv2": "block{0}.layer.{1}.conv2",
    r"blocks\.\d+\.shortcut": "block{0}.layer.{1}.convShortcut",
    r"norm": "bn1",
    r"linear": "fc",
}
# to those of kuangliu/pytorch-cifar, which the paper's code and most CIFAR repositories took over
_RESNET18: _Rules = {
    r"stem\.0": "conv1",
    r"stem\.1": "bn1",
    r"blocks\.\d+\.branch\.0": "layer{0}.{1}.conv1",
    r"blocks\.\d+\.branch\.1": "layer{0}.{1}.bn1",
    r"blocks\.\d+\.branch\.3": "layer{0}.{1}.conv2",
    r"blocks\.\d+\.branch\.4": "layer{0}.{1}.bn2",
    r"blocks\.\d+\.shortcut\.0": "layer{0}.{1}.shortcut.0",
    r"blocks\.\d+\.shortcut\.1": "layer{0}.{1}.shortcut.1",
    r"linear": "linear",
}
DEAD = "sub_block1."  # in the wide ResNets of TRADES: a second first stage, which no image ever meets
# What wrapping modules call the network, and what stands beside it in a training module and is no part of it.
_WRAPPED = ("module", "_orig_mod", "model", "net", "network", "state_dict")
_BESIDE = re.compile(r"(.*\.)?(n_averaged|criterion|loss\w*|attack|attacker)(\..*)?")
_PAIRS = (("mean", "std"), ("mu", "sigma"), ("new_mean", "new_std"))  # what normalisation is called within weights
_COUNTER = "num_batches_tracked"  # of batch norm, which old files lack
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
        bare = _bare(own)
        self.layouts = [dict(zip(own, bare, strict=True)), dict(zip(own, own, strict=True))]
        self.layouts += [{key: _old_weight_norm(name) for key, name in self.layouts[0].items()}]
        self.layouts += [names] if (names := original_names(model, own)) else []
        self.original = names
        self.parts = len({name.rpartition(".")[0] for name in bare})

    def fits(self, tensors: Mapping[str, Tensor]) -> list[Fit]:
        """Return how the tensors of one dict of a file fit, the best prefix first, then those of other sets in it."""
        counted = [
            (count, prefix, names)
            for names in self.layouts
            for prefix, count in _prefixes(tensors, set(names.values())).items()
            if self._may_begin(prefix, tensors)
        ]
        _, best, names = max(counted, key=lambda each: each[0], default=(0, _common(tensors), self.layouts[0]))
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

    def _fit(self, tensors: Mapping[str, Tensor], prefix: str, names: _Rules, sets: Collection[str]) -> Fit:
        present = {key: tensors[prefix + name] for key, name in names.items() if prefix + name in tensors}
        used = _found(tensors, prefix, names)
        rest = [name for name in tensors if name not in used]
        pairs = _pairs({name: tensors[name] for name in rest}, self.channels, prefix)
        dead = [name for name in rest if names is self.original and name.startswith(prefix + DEAD)]
        if self.inside:  # it would normalise twice
            unexpected, pairs = list(pairs), {}
        else:
            unexpected = []
        beside = {*sets, *pairs, *dead, *filter(_BESIDE.fullmatch, rest)}
        unexpected += [name for name in rest if name.startswith(prefix) and name not in {*beside, *unexpected}]
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

    def _problems(self, present: Mapping[str, Tensor], names: _Rules) -> dict[str, list[str]]:
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


def original_names(model: str, names: Collection[str]) -> dict[str, str]:
    """Return what each of the parameters and buffers of bsk's model is called elsewhere, or {}.

    A ResNet-50 has no entry: the same names and shapes stand for networks of other strides (1, 2, 2, 2 at
    kuangliu's, 2, 2, 2, 2 in the paper's code), and the wrong ones would load without a sound.

    Args:
        model: for example wrn-34-10 or resnet18-16.
        names: those of the network's state dict.
    """
    family = model.partition("-")[0]
    if family not in ("wrn", "resnet18"):
        return {}
    rules, stages = (_WIDE, 3) if family == "wrn" else (_RESNET18, 4)
    blocks = 1 + max(int(name.split(".")[1]) for name in names if name.startswith("blocks."))
    return {name: _renamed(name, rules, blocks // stages) for name in names}


def _renamed(name: str, rules: _Rules, depth: int) -> str:
    """Return the name with its part renamed, e.g. blocks.3.norm1.weight; a stage has `depth` blocks."""
    part, dot, leaf = name.rpartition(".")
    stage, block = divmod(int(part.split(".")[1]), depth) if part.startswith("blocks.") else (0, 0)
    new = next(new for pattern, new in rules.items() if re.fullmatch(pattern, part))
    return new.format(stage + 1, block) + dot + leaf


def _pairs(tensors: Mapping[str, Tensor], channels: int, prefix: str) -> dict[str, list[float]]:
    """Return mean and std of each part, that which is nearest to a prefix first; those of an attacker last."""
    found = list(normalisation(tensors, channels).items())
    pairs = list(zip(found[::2], found[1::2], strict=True))
    pairs.sort(key=lambda pair: (-len(_shared(pair[0][0], prefix)), bool(_BESIDE.fullmatch(pair[0][0]))))
    return dict(each for pair in pairs for each in pair)


def _bare(names: Iterable[str]) -> list[str]:
    """Return the names without the parts that all begin with, as in Sequential(normalise, network)."""
    known = list(names)
    return [name.removeprefix(_common(known)) for name in known]


def _common(names: Iterable[str]) -> str:
    """Return the parts that all names begin with, e.g. `module.model.`."""
    known = list(names)
    shared = known[0].rpartition(".")[0] + "." if known and "." in known[0] else ""
    for name in known:
        shared = _shared(shared, name)
    return shared


def _shared(first: str, second: str) -> str:
    """Return the whole parts with which both names begin."""
    shared = os.path.commonprefix([first, second])
    return shared[: shared.rfind(".") + 1]


def _prefixes(names: Iterable[str], wanted: Collection[str]) -> Counter[str]:
    """Return before how many of the wanted names each prefix stands."""
    found: Counter[str] = Counter()
    for name in names:
        starts = [0, *(each.end() for each in re.finditer(r"\.", name))]
        found.update(name[:start] for start in starts if name[start:] in wanted)
    return found


def _old_weight_norm(name: str) -> str:
    """Return what `torch.nn.utils.weight_norm` called a tensor of `torch.nn.utils.parametrizations.weight_norm`.

    That one's own hook takes the old names for the new ones too.
    """
    found = re.fullmatch(r"(.*)parametrizations\.(\w+)\.original([01])", name)
    return f"{found[1]}{found[2]}_{'gv'[int(found[3])]}" if found else name


def _storage(tensor: Tensor) -> object:
    """Return what two tensors have in common if they are one."""
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.data_ptr() else id(tensor)


def _found(tensors: Mapping[str, Tensor], prefix: str, names: _Rules) -> set[str]:
    """Return which of a file's names are those of a layout behind a prefix."""
    return {prefix + name for name in names.values()} & tensors.keys()


def _grouped(names: Iterable[str], prefix: str) -> list[str]:
    """Return names as they are, but those of one part beside the prefix as `part.*`."""
    parts: dict[str, list[str]] = {}
    for name in names:
        shared = _shared(name, prefix)
        parts.setdefault(shared + name.removeprefix(shared).partition(".")[0], []).append(name)
    said = [found[0] if len(found) == 1 else f"{part}.*" for part, found in parts.items()]
    return [name.removeprefix(prefix) for name in said]


def _said(what: str, found: Sequence[str]) -> str:
    return f"{len(found)} {what} ({'; '.join(found[:_SHOWN])}{'; ...' * (len(found) > _SHOWN)})"
