"""Compare verdicts of searches in bf16 with those in fp32: `python -m benchmarks.searches RECORDS.jsonl ...`."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from typing import Any

import numpy as np
from scipy.special import betaincinv

from bsk.records.bits import decode_correct


def exact_interval(k: int, n: int, tail: float = 0.025) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of a rate, for k of n, with probability `tail` outside each end.

    Source: Clopper and Pearson (1934), Biometrika 26.
    """
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
    return low, 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))


def main(paths: list[str]) -> None:
    """Print how many verdicts differ in each direction, per network and attack and per attack over all networks."""
    found: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for path in paths:
        with open(path) as file:
            for record in map(json.loads, file):
                low = '"search": "bf16"' in json.dumps(record["attack_parameters"])
                found[record["checkpoint"], record["attack"]]["bf16" if low else "fp32"] = record
    together: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    print("network\tattack\tn\tfp32\tstand only in bf16\tstand only in fp32\trate of differences, 95 %")
    for (network, attack), pair in found.items():
        if len(pair) < 2 or attack == "natural":
            continue
        n = pair["fp32"]["n"]
        rough, exact = (np.asarray(decode_correct(pair[each]["correct"], n), dtype=bool) for each in ("bf16", "fp32"))
        counts = [n, int((rough & ~exact).sum()), int((exact & ~rough).sum())]
        together[attack] = [a + b for a, b in zip(together[attack], counts, strict=True)]
        print(_row(network, attack, counts, f"{pair['fp32']['accuracy']:.4f}"))
    for attack, counts in together.items():
        print(_row("all", attack, counts, ""))


def _row(network: str, attack: str, counts: list[int], accuracy: str) -> str:
    n, more, less = counts
    low, high = exact_interval(more + less, n)
    return f"{network}\t{attack}\t{n}\t{accuracy}\t{more}\t{less}\t{low:.4f} to {high:.4f}"


if __name__ == "__main__":
    main(sys.argv[1:])
