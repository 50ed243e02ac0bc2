"""Transfer matrix: the accuracy of each network on each file of saved adversarial images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bsk.comparison.evidence import Evaluation, collect
from bsk.evaluation.intervals import wilson
from bsk.records.located import Located
from bsk.records.words import estimate, plain

COLUMNS = (
    "source", "attack", "eps", "target", "accuracy", "low", "high", "n", "own", "source_sha256", "target_sha256",
    "norm", "images_sha256",
)  # fmt: skip
TEXT_COLUMNS = {"images of", "attack", "eps", "norm", "n", "file"}
OWN = "*"  # marks the accuracy of a network on images that were made against it
CAPTION = (
    "Percent of saved adversarial images that a network classifies right, with 95 % intervals; "
    f"{OWN} made against this network."
)


@dataclass(frozen=True)
class _Shown:
    """One network's accuracy on one file of images."""

    item: Evaluation
    source: dict[str, Any]

    @property
    def images(self) -> tuple[str, str, str]:
        """The images: file and SHA-256 of the network they were made against, and the attack."""
        return Path(str(self.source["checkpoint"])).stem, str(self.source["checkpoint_sha256"]), self.source["attack"]

    @property
    def file(self) -> str:
        """The SHA-256 of the file of images."""
        return str(self.item.parameters.get("images"))

    @property
    def target(self) -> tuple[str, str]:
        """The evaluated network: its file and SHA-256."""
        return self.item.run.label or Path(self.item.run.checkpoint).stem, str(self.item.run.sha256)


def transfers(items: Iterable[Located]) -> list[dict[str, Any]]:
    """Return one row of COLUMNS per file of images and evaluated network, from the last record of each pair.

    `accuracy` is the fraction of the images that the network classifies right, `low` and `high` its 95 % Wilson
    interval, `own` whether the images were made against this network.

    Raises:
        InputError: a record is invalid.
    """
    found: dict[tuple[Any, ...], _Shown] = {}
    for item in collect(items).evaluations:
        source = item.parameters.get("source")
        if isinstance(source, dict) and {"checkpoint", "checkpoint_sha256", "attack"} <= source.keys():
            shown = _Shown(item, source)
            found[shown.images, shown.file, item.eps, item.split, item.n, shown.target] = shown
    return [_row(each) for each in found.values()]


def _row(shown: _Shown) -> dict[str, Any]:
    item, (source, sha256, attack), (target, own) = shown.item, shown.images, shown.target
    low, high = (None, None) if item.n is None else wilson(round(item.accuracy * item.n), item.n)
    values = (source, attack, item.eps, target, item.accuracy, low, high, item.n, sha256 == own, sha256, own)
    return dict(zip(COLUMNS, (*values, item.parameters.get("norm"), shown.file), strict=True))


def grid(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a header and one line per file of images, with the accuracy in percent of each network on it.

    Files of the same network and attack are told apart by norm, number of images, or the SHA-256 of the file.
    """
    targets = list(dict.fromkeys((row["target"], row["target_sha256"]) for row in rows))
    names = [name for name, _ in targets]
    header = [name if names.count(name) == 1 else f"{name} {sha256[:8]}" for name, sha256 in targets]
    lines: dict[tuple[Any, ...], dict[tuple[str, str], str]] = {}
    for row in rows:
        images = (row["images_sha256"], row["n"], row["source"], row["attack"], plain(row["eps"]), row["norm"])
        cell = estimate(row["accuracy"], row["low"], row["high"]) + OWN * row["own"]
        lines.setdefault(images, {})[row["target"], row["target_sha256"]] = cell
    facts = ["images of", "attack", "eps"]
    heads = [list(images[2:5]) for images in lines]
    for title, place in (("norm", 5), ("n", 1), ("file", 0)):
        values = [str(images[place]) for images in lines]
        twins = len({tuple(head) for head in heads}) < len(heads)
        if len(set(values)) > 1 and (title != "file" or twins):
            facts.append(title)
            heads = [[*head, value[:8]] for head, value in zip(heads, values, strict=True)]
    body = [
        [*head, *(cells.get(each, "") for each in targets)] for head, cells in zip(heads, lines.values(), strict=True)
    ]
    return [[*facts, *header], *body]
