"""Which rows can be compared, the baseline of each row, and the paired difference from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsk.comparison.evidence import VALIDATION_ATTACK, Evaluation
from bsk.comparison.groups import Group, checkpoint_kind, telling_parameters
from bsk.comparison.significance import paired_exact
from bsk.comparison.statistics import bootstrap_interval, detectable, difference_interval, mean_sd, seed_interval
from bsk.records.bits import unpacked
from bsk.records.jsonl import BEST_ON_TEST
from bsk.records.words import counted, flat, plain

MOST = 6  # values that a notice lists
Aspect = tuple[str, Callable[[Evaluation], Any], Callable[[Evaluation], str]]
NOT_COMPARED = "are not compared with one another"
NO_COMMON_SEED = "no seed in common with the first row, so no paired test"
NO_OUTCOMES = "no `correct` bits, so no paired test"
ASPECTS: tuple[Aspect, ...] = (  # must be equal for two accuracies to be comparable: name, value, value as text
    ("eps", lambda e: e.eps, lambda e: plain(e.eps)),
    ("split", lambda e: e.split, lambda e: e.split),
    ("data", lambda e: (e.run.dataset, e.run.data_sha256), lambda e: f"{e.run.dataset} {e.run.data_sha256 or ''}"[:20]),
    ("n", lambda e: e.n, lambda e: plain(e.n)),
    ("epoch", lambda e: (e.run.selected or "").startswith(BEST_ON_TEST), lambda e: f"{e.run.selected}"),
)


def baseline(group: Group, groups: Sequence[Group]) -> Group:
    """Return the group that a group is compared with: the first under the same attack with the same checkpoint kind.

    A group without attack is compared with the first of all groups of its checkpoint kind. Networks that bsk did not
    train have no checkpoint kind: such a group is compared with the first group whatever its kind, and if the first
    group is such a network, every group is compared with it.
    """
    rivals = [other for other in groups if _same_attack(group, other)] if group.robust else groups
    own = checkpoint_kind(group.first.run.selected)
    if own is None or checkpoint_kind(rivals[0].first.run.selected) is None:
        return rivals[0]
    return next(other for other in rivals if checkpoint_kind(other.first.run.selected) == own)


def mismatches(group: Group, reference: Group) -> list[str]:
    """Return every reason why a group cannot be compared with its baseline, such as "eps 0.3, not 0.2"."""
    ours, theirs = group.first, reference.first
    found = [
        f"{name} {word(ours)}, not {word(theirs)}"
        for name, value, word in ASPECTS
        if value(ours) != value(theirs) and (group.robust or name != "eps")
    ]
    if not group.robust or not reference.robust:
        return found
    mine, other = (flat(telling_parameters(each)) for each in (ours, theirs))
    keys = [key for key in {**mine, **other} if mine.get(key) != other.get(key)]
    differ = (f"attack {plain(key[-1])} {plain(mine.get(key))}, not {plain(other.get(key))}" for key in keys)
    if (ours.carried == "larger") != (theirs.carried == "larger"):  # assumed to stand, so biased upwards
        found.append("verdicts assumed from larger radii in only one of the two")
    return found + list(dict.fromkeys(differ))  # several stages may differ in the same way


def comparable(groups: Sequence[Group]) -> list[list[int]]:
    """Return the indices of the groups under attack, in lists of groups that are comparable; audits are left out."""
    found: list[list[int]] = []
    for index, group in enumerate(groups):
        if group.robust and not group.audits:
            firsts = [(indices, groups[indices[0]]) for indices in found]
            own = (each for each, first in firsts if _same_attack(group, first) and not mismatches(group, first))
            indices = next(own, None)
            if indices is None:
                found.append(indices := [])
            indices.append(index)
    return found


def _same_attack(group: Group, other: Group) -> bool:
    return bool(other.robust) and other.first.attack == group.first.attack


def mixtures(groups: Sequence[Group]) -> list[str]:
    """Return a notice for each aspect in which groups differ and so cannot be compared."""
    found = []
    for name, value, word in ASPECTS:
        firsts = [group.first for group in groups if group.robust or name != "eps"]
        values = {value(first): word(first) for first in firsts}
        if len(values) > 1:
            named = ", ".join([*list(values.values())[:MOST], *(["..."] if len(values) > MOST else [])])
            found.append(f"rows of different {name} ({named}) {NOT_COMPARED}")
    attacks: dict[str, list[Group]] = {}
    for group in groups:
        attacks.setdefault(group.first.attack if group.robust else "", []).append(group)
    for attack, rows in attacks.items():
        if attack and any(telling_parameters(r.first) != telling_parameters(rows[0].first) for r in rows):
            found.append(f"rows of {attack} with different parameters {NOT_COMPARED}")
    return found


def natural_difference(group: Group, reference: Group) -> tuple[dict[str, float], list[str]]:
    """Return `difference` of the natural accuracies, over the seeds that are compared under attack.

    Without attack some of the seeds may be missing. One seed each is a pair only if each row has one under attack.
    """
    alone = len(group.robust) == len(reference.robust) == 1
    both = {item.run.identity for item in group.robust} & {item.run.identity for item in reference.robust}
    ours, theirs = group.natural, reference.natural
    if both and not alone:
        ours, theirs = ([item for item in items if item.run.identity in both] for items in (ours, theirs))
    if not (ours and theirs):
        return {}, [f"natural: {NO_COMMON_SEED}"]
    found, remarks = difference(ours, theirs, alone)
    if group.first.attack == VALIDATION_ATTACK:  # logs have no outcomes
        remarks = [each for each in remarks if each != NO_OUTCOMES]
    return found, [f"natural: {each}" for each in remarks]


def difference(
    row: Sequence[Evaluation], base: Sequence[Evaluation], alone: bool = True
) -> tuple[dict[str, float], list[str]]:
    """Return the paired difference with its intervals and p, as far as they are known, and remarks on them.

    A pair is the outcomes on one image of two networks with the same seed, one from each row. Two rows of a single
    network each are a pair whatever their seeds, unless `alone` is False.
    """
    ours, theirs = _paired(row, base, alone)
    if not ours:
        means = [mean_sd([item.accuracy for item in items])[0] for items in (row, base)]
        return {"difference": means[0] - means[1]}, [NO_COMMON_SEED]
    doubt = [f"difference over {counted(len(ours), 'common seed')}"] if len(ours) < max(len(row), len(base)) else []
    mean = mean_sd([a.accuracy - b.accuracy for a, b in zip(ours, theirs, strict=True)])[0]
    pairs = _differences(ours, theirs)
    if pairs is None:
        expected = ours[0].attack == VALIDATION_ATTACK
        return {"difference": mean}, [*doubt, *([] if expected else [NO_OUTCOMES])]
    if doubt and len(ours) == 1:
        doubt = [f"{doubt[0]}: its interval does not cover new seeds"]
    found = {"difference": mean, "p": paired_exact(pairs.sum(axis=0))}
    intervals = {"": difference_interval(pairs), "_boot": bootstrap_interval(pairs), "_seeds": seed_interval(pairs)}
    for name, interval in intervals.items():
        if interval is not None:
            found[f"difference{name}_low"], found[f"difference{name}_high"] = interval
    return found, doubt


def detectables(compared: Sequence[tuple[Group, Group]]) -> list[float | None]:
    """Return for each row the difference from its baseline that could be detected, None without paired outcomes.

    Rows with the same baseline and seeds are pooled to estimate how much seeds vary (`statistics.detectable`).
    """
    alike: dict[tuple[Any, ...], dict[int, NDArray[np.integer[Any]]]] = {}
    for place, (group, reference) in enumerate(compared):
        ours, theirs = _paired(group.robust, reference.robust)
        pairs = _differences(ours, theirs) if ours else None
        if pairs is not None:
            seeds = tuple(item.run.identity for item in theirs)
            alike.setdefault((id(reference), seeds), {})[place] = pairs
    found: list[float | None] = [None] * len(compared)
    for comparisons in alike.values():
        for place, value in zip(comparisons, detectable(list(comparisons.values())), strict=True):
            found[place] = value
    return found


def _paired(
    row: Sequence[Evaluation], base: Sequence[Evaluation], alone: bool = True
) -> tuple[list[Evaluation], list[Evaluation]]:
    """Return the evaluations of the seeds that both have, in the order of `base`; `alone`: see `difference`."""
    if alone and len(row) == len(base) == 1:
        return list(row), list(base)
    ours = {item.run.identity: item for item in row}
    theirs = [item for item in base if item.run.identity in ours]
    return [ours[item.run.identity] for item in theirs], theirs


def _differences(ours: Sequence[Evaluation], theirs: Sequence[Evaluation]) -> NDArray[np.integer[Any]] | None:
    """Return the (k, n) differences of outcomes of k pairs of networks, or None unless all are known."""
    x, reference = outcomes(ours), outcomes(theirs)
    return None if x is None or reference is None else x.astype(np.int8) - reference.astype(np.int8)


def outcomes(evaluations: Sequence[Evaluation]) -> NDArray[np.bool_] | None:
    """Return the (k, n) outcomes of k evaluations on the same n images, or None unless all are known."""
    rows, n = [item.packed for item in evaluations if item.packed is not None], evaluations[0].n
    return None if n is None or len(rows) < len(evaluations) else unpacked(rows, n)
