"""The names that other repositories give the parts of bsk's networks, and prefixes of names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from bsk.models.resnet import DEPTHS

Rules = Mapping[str, str]

# bsk's names -> those of TRADES, of the paper's code and of RobustBench; {0} is the stage from 1, {1} the block from 0
_WIDE: Rules = {
    r"stem": "conv1",
    r"blocks\.\d+\.norm1": "block{0}.layer.{1}.bn1",
    r"blocks\.\d+\.conv1": "block{0}.layer.{1}.conv1",
    r"blocks\.\d+\.norm2": "block{0}.layer.{1}.bn2",
    r"blocks\.\d+\.conv2": "block{0}.layer.{1}.conv2",
    r"blocks\.\d+\.shortcut": "block{0}.layer.{1}.convShortcut",
    r"norm": "bn1",
    r"linear": "fc",
}
# -> those of DeepMind's wide and pre-activation ResNets, and of RobustBench; {2} is the stage from 0
_WIDE_SILU: Rules = {
    r"stem": "init_conv",
    r"blocks\.\d+\.norm1": "layer.{2}.block.{1}.batchnorm_0",
    r"blocks\.\d+\.conv1": "layer.{2}.block.{1}.conv_0",
    r"blocks\.\d+\.norm2": "layer.{2}.block.{1}.batchnorm_1",
    r"blocks\.\d+\.conv2": "layer.{2}.block.{1}.conv_1",
    r"blocks\.\d+\.shortcut": "layer.{2}.block.{1}.shortcut",
    r"norm": "batchnorm",
    r"linear": "logits",
}
_PREACT_SILU: Rules = {
    r"stem": "conv_2d",
    r"blocks\.\d+\.start\.0": "layer_{2}.{1}.batchnorm_0",
    r"blocks\.\d+\.branch\.0": "layer_{2}.{1}.conv_2d_1",
    r"blocks\.\d+\.branch\.1": "layer_{2}.{1}.batchnorm_1",
    r"blocks\.\d+\.branch\.3": "layer_{2}.{1}.conv_2d_2",
    r"blocks\.\d+\.shortcut": "layer_{2}.{1}.shortcut",
    r"norm": "batchnorm",
    r"linear": "logits",
}
# -> those of kuangliu/pytorch-cifar, which the paper's code and most CIFAR repositories use too
_RESNET: Rules = {
    r"stem\.0": "conv1",
    r"stem\.1": "bn1",
    r"blocks\.\d+\.branch\.0": "layer{0}.{1}.conv1",
    r"blocks\.\d+\.branch\.1": "layer{0}.{1}.bn1",
    r"blocks\.\d+\.branch\.3": "layer{0}.{1}.conv2",
    r"blocks\.\d+\.branch\.4": "layer{0}.{1}.bn2",
    r"blocks\.\d+\.branch\.6": "layer{0}.{1}.conv3",
    r"blocks\.\d+\.branch\.7": "layer{0}.{1}.bn3",
    r"blocks\.\d+\.shortcut\.0": "layer{0}.{1}.shortcut.0",
    r"blocks\.\d+\.shortcut\.1": "layer{0}.{1}.shortcut.1",
    r"linear": "linear",
}
_PREACT: Rules = {
    r"stem": "conv1",
    r"blocks\.\d+\.start\.0": "layer{0}.{1}.bn1",
    r"blocks\.\d+\.branch\.0": "layer{0}.{1}.conv1",
    r"blocks\.\d+\.branch\.1": "layer{0}.{1}.bn2",
    r"blocks\.\d+\.branch\.3": "layer{0}.{1}.conv2",
    r"blocks\.\d+\.branch\.4": "layer{0}.{1}.bn3",
    r"blocks\.\d+\.branch\.6": "layer{0}.{1}.conv3",
    r"blocks\.\d+\.shortcut": "layer{0}.{1}.shortcut.0",
    r"norm": "bn",
    r"linear": "linear",
}
_LAYOUTS = {  # by name without depth (of wide ResNets) and width
    "wrn": _WIDE,
    "wrn-silu": _WIDE_SILU,
    "resnet18": _RESNET,
    "resnet50-kuangliu": _RESNET,
    "preact-resnet18": _PREACT,
    "preact-resnet18-kuangliu": _PREACT,
    "preact-resnet18-wong": _PREACT,
    "preact-resnet18-silu": _PREACT_SILU,
    "preact-resnet50": _PREACT,
    "preact-resnet50-kuangliu": _PREACT,
}
DEAD = "sub_block1."  # in the wide ResNets of TRADES: a second first stage, which is never used


def original_names(model: str, names: Collection[str]) -> dict[str, str]:
    """Return the name of each parameter and buffer of bsk's model in other repositories, or {}.

    `resnet50` has no entry: networks with different strides (1, 2, 2, 2 in kuangliu's, 2, 2, 2, 2 in the paper's code)
    have the same names and shapes, and the wrong one would load silently; `resnet50-kuangliu` is unambiguous.

    Args:
        model: for example wrn-34-10 or resnet18-16.
        names: the names in the network's state dict.
    """
    family = re.sub(r"-\d+", "", model)
    if family not in _LAYOUTS:
        return {}
    blocks = 1 + max(int(name.split(".")[1]) for name in names if name.startswith("blocks."))
    depths = (blocks // 3,) * 3 if family.startswith("wrn") else DEPTHS[50 if "resnet50" in family else 18]
    places = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    return {name: _renamed(name, _LAYOUTS[family], places) for name in names}


def _renamed(name: str, rules: Rules, places: Sequence[tuple[int, int]]) -> str:
    """Return a name such as blocks.3.norm1.weight with its part renamed; `places` has each block's stage and number."""
    part, dot, leaf = name.rpartition(".")
    stage, block = places[int(part.split(".")[1])] if part.startswith("blocks.") else (0, 0)
    new = next(new for pattern, new in rules.items() if re.fullmatch(pattern, part))
    return new.format(stage + 1, block, stage) + dot + leaf


def bare(names: Iterable[str]) -> list[str]:
    """Return the names without the prefix that all of them share, as in Sequential(normalise, network)."""
    known = list(names)
    start = common(known)
    return [name.removeprefix(start) for name in known]


def common(names: Iterable[str]) -> str:
    """Return the parts with which all names begin, e.g. `module.model.`."""
    known = list(names)
    start = known[0].rpartition(".")[0] + "." if known and "." in known[0] else ""
    for name in known:
        start = shared(start, name)
    return start


def shared(first: str, second: str) -> str:
    """Return the complete parts with which both names begin."""
    start = os.path.commonprefix([first, second])
    return start[: start.rfind(".") + 1]


def prefixes(names: Iterable[str], wanted: Collection[str]) -> Counter[str]:
    """Return for each prefix the number of wanted names that it precedes."""
    found: Counter[str] = Counter()
    for name in names:
        starts = [0, *(each.end() for each in re.finditer(r"\.", name))]
        found.update(name[:start] for start in starts if name[start:] in wanted)
    return found


def old_weight_norm(name: str) -> str:
    """Return the name in `torch.nn.utils.weight_norm` of a tensor of `torch.nn.utils.parametrizations.weight_norm`.

    The latter's own hook accepts the old names too.
    """
    found = re.fullmatch(r"(.*)parametrizations\.(\w+)\.original([01])", name)
    return f"{found[1]}{found[2]}_{'gv'[int(found[3])]}" if found else name
