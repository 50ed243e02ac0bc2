"""The sets of weights in a file: which there are, and which one is loaded."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from bsk.errors import InputError, UsageError, kind_of
from bsk.models.files import contents
from bsk.models.fitting import SET, Fit, Target, is_for_pixels, is_metric, normalisation, plain, plausible
from bsk.models.numpy_numbers import Array
from bsk.models.unpickling import AGAIN, printable

# Keys under which training scripts store the state dict, the most common first.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module")
LEVELS = 8  # maximum depth of nested dicts in which tensors are searched for
# Keys and prefixes of averages and copies, which are loaded only if nothing else fits, or by --weights-key.
_SECOND = re.compile(r"(^|[._])(ema|swa|averaged?|avg|shadow|teacher|attacker|optim\w*|momentum\w*)([._]|$)", re.I)


@dataclass(frozen=True)
class Weights:
    """A set of weights from a file, matched to a network.

    Attributes:
        fit: what goes where in the network, and what does not fit.
        key: its name for `--weights-key`.
        first: whether it is the default.
        others: keys of the other sets in the file.
        stored: mean and std of pixels beside the weights, as numbers, not as tensors of the network; or {}.
        odd: where the file has a mean and std that are not those of pixels in [0, 1], one per channel; or "".
    """

    fit: Fit
    key: str
    first: bool = True
    others: tuple[str, ...] = ()
    stored: Mapping[str, list[float]] = field(default_factory=dict)
    odd: str = ""


def load_weights(path: Path, target: Target, key: str | None = None) -> Weights:
    """Return the weights of a network from a file.

    A set of weights consists of the tensors in one dict of the file whose names match the network's behind one prefix,
    or of a list of tensors with the shapes of all its parameters.

    Args:
        path: a safetensors file, or one of torch.save.
        target: the network.
        key: which set; None for the first that fits.

    Raises:
        UsageError: there is no set with that key.
        InputError: the file is missing or corrupt, holds no tensors or more than tensors and plain numbers, or tensors
            that are not dense and real.
    """
    found = contents(path)
    every = [
        Weights(fit, ".".join(part for part in (place, fit.prefix.rstrip(".")) if part))
        for place, tensors in places(found)
        for fit in target.fits(tensors)
    ]
    if not every:
        raise InputError(f"{path}: expected tensors by name, found {_described(found)}; {AGAIN}")
    every += _without_names(found, target, every)
    every.sort(key=_rank)
    sets = [each for each in every if each.fit.share >= SET]
    first = next((each for each in sets if not each.fit.problems), None) or max(every, key=lambda each: each.fit.share)
    chosen = first if key is None else _named(path, key, every, sets or every)
    _check_plain(path, chosen.fit.given)
    others = [each for each in sets if each is not chosen and not _same(each.fit.tensors, chosen.fit.tensors)]
    fit, (stored, odd) = chosen.fit, _stored_normalisation(found, target.channels, [*chosen.fit.given.values()])
    if not fit.pair and not target.inside:
        fit = replace(fit, pair=stored)
    names = tuple(shown(each.key) for each in others)
    odd = odd or " and ".join(fit.odd)
    return replace(chosen, fit=fit, first=chosen is first, others=names, stored=stored, odd=odd)


def places(
    found: object, place: str = "", seen: set[int] | None = None, levels: int = LEVELS
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the location and the contents of each dict of tensors in nested dicts, the usual locations first.

    Each dict is visited once, since a pickle can contain a dict in itself or in a thousand places.
    """
    seen = set() if seen is None else seen
    if not isinstance(found, Mapping) or id(found) in seen or not levels:
        return
    seen.add(id(found))
    usual = [key for key in WRAPPERS if isinstance(found.get(key), Mapping)]
    for key in usual:
        yield from places(found[key], _joined(place, key), seen, levels - 1)
    own = {name: each for name, each in found.items() if isinstance(name, str) and isinstance(each, Tensor)}
    if own:
        yield place, own
    for key, each in found.items():
        yield from places(each, _joined(place, key), seen, levels - 1)


def _without_names(found: object, target: Target, named: Sequence[Weights]) -> list[Weights]:
    """Return the sets of weights that are lists in the order of the network's parameters, as averages are often stored.

    Their buffers are taken from the first named set that fits.
    """
    first = next((each.fit.tensors for each in named if not each.fit.problems), {})
    sets = []
    for place, tensors in _lists(found):
        if [each.shape for each in tensors] == [target.own[name].shape for name in target.parameters]:
            whole = {**first, **dict(zip(target.parameters, tensors, strict=True))}
            sets += [Weights(fit, place) for fit in target.fits(whole) if not fit.problems]
    return sets


def _lists(
    found: object, place: str = "", seen: set[int] | None = None, levels: int = LEVELS
) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield the location and the contents of each list of tensors in nested dicts; each dict is visited once."""
    seen = set() if seen is None else seen
    if isinstance(found, (list, tuple)) and found and all(isinstance(each, Tensor) for each in found):
        yield place, list(found)
    if isinstance(found, Mapping) and levels and id(found) not in seen:
        seen.add(id(found))
        for key, each in found.items():
            yield from _lists(each, _joined(place, key), seen, levels - 1)


def _stored_normalisation(
    found: object, channels: int, weights: Sequence[Tensor]
) -> tuple[dict[str, list[float]], str]:
    """Return mean and std of pixels, one number per channel, that a file has beside the `weights`, or {}.

    Those in a place whose name suggests it come first. Also returns where such a place has other numbers, or "".
    """
    beside = {id(each) for each in weights}
    every = [(place, pair) for place, pair in _stored_pairs(found, channels, beside) if not is_metric(place)]
    every.sort(key=lambda each: not is_for_pixels(each[0]))
    good = next((pair for _, pair in every if plausible(*pair.values())), {})
    bad = ((place, pair) for place, pair in every if is_for_pixels(place) and not plausible(*pair.values()))
    place, odd = next(bad, ("", {}))
    return good, "" if good or not odd else f"{' and '.join(odd)}{f' in {place}' if place else ''}"


def _stored_pairs(
    found: object, channels: int, beside: Collection[int], place: str = "", levels: int = LEVELS
) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Yield the place and the numbers of each mean and std in nested dicts, except those of tensors `beside`."""
    if not isinstance(found, Mapping) or not levels:
        return
    scalars = channels == 1 and is_for_pixels(place)
    given = {
        str(name).lower(): _numbers(each, channels, scalars) for name, each in found.items() if id(each) not in beside
    }
    known = {name: each for name, each in given.items() if each is not None and not is_metric(name)}
    numbers = list(normalisation(known, channels).items())
    for mean, std in zip(numbers[::2], numbers[1::2], strict=True):
        yield place, dict((mean, std))
    for name, each in found.items():
        yield from _stored_pairs(each, channels, beside, _joined(place, name), levels - 1)


def _numbers(found: object, channels: int, scalars: bool) -> Tensor | None:
    """Return one number per channel as a tensor, or None for anything else, such as the mean of some losses.

    With `scalars` a number alone is that of the only channel.
    """
    if scalars and isinstance(found, (int, float)) and not isinstance(found, bool):
        found = [found]
    if isinstance(found, (list, tuple)) and all(isinstance(each, (int, float)) for each in found):
        try:
            found = torch.tensor(found, dtype=torch.float64)
        except (OverflowError, RuntimeError):  # an integer that no float holds
            return None
    if isinstance(found, Array) and found.numbers.dtype.kind in "iuf":
        found = torch.from_numpy(found.numbers.astype("f8"))
    usual = isinstance(found, Tensor) and plain(found) and found.dim() > 0 and found.numel() == channels
    return found if isinstance(found, Tensor) and usual else None


def shown(key: str) -> str:
    """Return the name of a set of weights for messages; a set at the top of a file has no name."""
    return printable(key) or "."


def _joined(place: str, key: object) -> str:
    return f"{place}.{key}" if place else str(key)


def _rank(weights: Weights) -> int:
    return bool(_SECOND.search(weights.key))


def _named(path: Path, key: str, every: Sequence[Weights], sets: Sequence[Weights]) -> Weights:
    """Return the set whose key equals `key`, else begins with it, else has it as a part or a word."""
    wanted = "" if key == "." else key
    ways = (
        [each for each in every if each.key == wanted],
        [each for each in every if wanted and each.key.startswith(f"{wanted}.")],
        [each for each in every if wanted and f".{wanted}." in f".{each.key}."],
        [each for each in every if wanted in re.split("[._]", each.key)],
    )
    found = next((way for way in ways if way), [])
    best = [each for each in found if each.fit.share == max(each.fit.share for each in found)]
    if not best or not all(_same(best[0].fit.tensors, each.fit.tensors) for each in best[1:]):
        known = ", ".join(shown(each.key) for each in best or sets)
        said = "has several sets of weights of that name" if best else "has no such set of weights"
        raise UsageError(f"--weights-key {key}: {path} {said}; give one of {known}")
    return best[0]


def _check_plain(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not plain(tensor):
            kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}".replace("torch.", "")
            raise InputError(f"{path}: {printable(name)} is not a dense tensor of real numbers ({kind}); {AGAIN}")


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Return whether two sets of weights are equal."""
    return a.keys() == b.keys() and all(
        plain(a[name])
        and (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape)
        and torch.equal(a[name], b[name])
        for name in a
    )


def _described(found: object) -> str:
    if not isinstance(found, Mapping):
        return kind_of(found)
    keys = ", ".join(str(key) for key in list(found)[:5])
    return f"a dict of {keys}{', ...' * (len(found) > 5)}" if found else "an empty dict"
