"""Verdicts of bsk and of the authors' code on the same images: `python -m benchmarks.parity [--norm l1]`.

It needs the published models and CIFAR-10 images in `../shared` or `$BSK_SHARED`, and takes half an hour.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.material import ARCHIVE, PUBLISHED, SHARED, material, published
from benchmarks.steps import CPU
from bsk.attacks.flags import AttackFlags
from bsk.attacks.reference import installed
from bsk.attacks.registry import ENSEMBLES, Attack, attack_named
from bsk.data.store import Split
from bsk.devices import device_name
from bsk.evaluation.calls import exact
from bsk.evaluation.verdicts import judge
from bsk.perturb.draws import example_draws
from bsk.records import jsonl as records
from bsk.records.bits import encode_correct
from bsk.version import VERSION

UNION = tuple(stage.name for stage in ENSEMBLES["autoattack"](AttackFlags()))
SEEDS = (0, 1)  # of the reference, to see how much it differs from itself
MORE_SEEDS = (0, 1, 2, 3, 4)  # of both, for the random search: its count changes with the seed
RESULTS = Path(__file__).parents[1] / "results"
COLUMNS = ("model", "attack", "bsk", "reference", "different", "reference_again", "bsk_seconds", "reference_seconds")
COUNTS = ("bsk_counts", "reference_counts")

Verdicts = tuple[Tensor, float]  # which of the n examples stand, (n,) bool, and seconds in one thread


@dataclass(frozen=True)
class Comparison:
    """A comparison in one norm: radius, number of images, attacks, published networks, and the file of results.

    `of_square` has the seeds of bsk and of the reference for `square`. The other attacks have one seed of bsk and two
    of the reference.
    """

    norm: str
    eps: float
    n: int
    attacks: tuple[str, ...]
    networks: tuple[str, ...]
    record: Path
    of_square: tuple[tuple[int, ...], tuple[int, ...]] = ((0,), SEEDS)

    def seeds(self, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the seeds of bsk and of the reference under which the attack runs."""
        return self.of_square if name == "square" else ((0,), SEEDS)

    def attack(self, name: str, **flags: Any) -> Attack:
        """Return the attack with the standard version's settings."""
        return attack_named(name, self.eps, AttackFlags(norm=self.norm, **flags))


LINF = Comparison("linf", 2 / 255, 200, ("apgd-ce", "apgd-dlr", *UNION[1:]), tuple(PUBLISHED), RESULTS / "parity.jsonl")
L1 = Comparison("l1", 2.0, 100, UNION, ("cnn-a",), RESULTS / "parity-l1.jsonl", (MORE_SEEDS, MORE_SEEDS))


def ours(model: nn.Module, images: Split, comparison: Comparison, name: str, seed: int) -> Verdicts:
    """Return which examples stand after one attack of bsk alone, with the standard version's settings."""
    start = time.process_time()
    attack, rows = comparison.attack(name), len(images.labels)
    ledger = judge(model, images, attack, eps=comparison.eps, seed=seed, batch_size=rows, device=CPU)
    return ledger.standing, time.process_time() - start


def theirs(model: nn.Module, images: Split, comparison: Comparison, name: str, seed: int) -> Verdicts:
    """Return which examples stand after one attack of the authors' standard version alone, in a single batch."""
    stage = comparison.attack(name, engine="reference").stages[-1]
    x, draws = images.images.float() / 255, example_draws(seed, name, images.index.tolist())
    start = time.process_time()
    with exact(model):
        found = stage(model, x.contiguous(), images.labels, draws, comparison.eps)
    return ~found.fooled, time.process_time() - start


def rows(name: str, images: Split, comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield one row per attack on a model, and one for their union, which is AutoAttack.

    `bsk` and `reference` count the standing images of n, `different` those on which the two disagree, and
    `reference_again` those on which the reference disagrees with itself under another seed. Seconds are for one core.
    `bsk_counts` and `reference_counts` have the standing images of every seed, of which those before are the first.
    `bsk_correct` and `reference_correct` have one bit per example.
    """
    path = SHARED / "models" / PUBLISHED[name]
    model = published(name, path).requires_grad_(False)
    plain = published(name, path).requires_grad_(False).to(memory_format=torch.contiguous_format)
    found: dict[str, tuple[list[Verdicts], list[Verdicts]]] = {}
    facts = {
        "model": name,
        "weights_sha256": records.sha256(path),
        "norm": comparison.norm,
        "eps": comparison.eps,
        "n": len(images.labels),
    }
    for attack in comparison.attacks:
        our_seeds, their_seeds = comparison.seeds(attack)
        bsk = [ours(model, images, comparison, attack, seed) for seed in our_seeds]
        reference = [theirs(plain, images, comparison, attack, seed) for seed in their_seeds]
        found[attack] = bsk, reference
        yield {**facts, "attack": attack, **_row(bsk, reference)}
    both = ([found[attack][side] for attack in UNION] for side in (0, 1))
    yield {**facts, "attack": "autoattack", **_row(*(_union(side) for side in both))}


def _union(found: list[list[Verdicts]]) -> list[Verdicts]:
    """Return what all attacks together leave, for each seed that all of them have."""
    seeds = zip(*found, strict=False)
    return [(torch.stack([stands for stands, _ in each]).all(dim=0), sum(s for _, s in each)) for each in seeds]


def _row(bsk: list[Verdicts], reference: list[Verdicts]) -> dict[str, Any]:
    (our, seconds), (their, their_seconds), (again, _) = bsk[0], reference[0], reference[1]
    return {
        "bsk": int(our.sum()),
        "reference": int(their.sum()),
        "different": int((our != their).sum()),
        "reference_again": int((their != again).sum()),
        "bsk_seconds": round(seconds, 1),
        "reference_seconds": round(their_seconds, 1),
        "bsk_counts": [int(stands.sum()) for stands, _ in bsk],
        "reference_counts": [int(stands.sum()) for stands, _ in reference],
        "bsk_correct": encode_correct(our.numpy()),
        "reference_correct": encode_correct(their.numpy()),
    }


def main(comparison: Comparison) -> None:
    """Print a table and append its rows to the file of results one by one."""
    if not ARCHIVE.exists():
        sys.exit(f"{ARCHIVE}: no such file; set BSK_SHARED to the folder of real images and models")
    torch.set_num_threads(1)
    made = {"device": device_name(CPU), "threads": 1, "torch": torch.__version__, "package": installed()}
    comparison.record.unlink(missing_ok=True)
    print(*COLUMNS, *COUNTS, sep="\t")
    with tempfile.TemporaryDirectory() as folder:
        data = material(Path(folder)).data
        for name in comparison.networks:
            for row in rows(name, data.split("test", comparison.n), comparison):
                print(*(row[column] for column in (*COLUMNS, *COUNTS)), sep="\t", flush=True)
                records.append(comparison.record, {**row, "data_sha256": data.sha256, "version": VERSION, **made})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--norm", choices=("linf", "l1"), default="linf")
    main({"linf": LINF, "l1": L1}[parser.parse_args().norm])
