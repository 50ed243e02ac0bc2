"""Verdicts by a search in low precision beside those by fp32: `python -m benchmarks.searches RECORDS.jsonl ...`."""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from typing import Any

import numpy as np

from bsk.records.bits import decode_correct


def exact_interval(k: int, n: int, tail: float = 0.025) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of a rate, k of n seen: each end by halving where the tail has its chance."""

    def at_most(k: int, p: float) -> float:
        return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))

    def end(reached: Any) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if reached(middle) else (middle, high)
        return high

    least = 0.0 if k == 0 else end(lambda p: 1 - at_most(k - 1, p) >= tail)
    return least, 1.0 if k == n else end(lambda p: at_most(k, p) <= tail)


def main(paths: list[str]) -> None:
    """Print for each network and attack, and for each attack together, how many verdicts differ, in each direction."""
    found: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for path in paths:
        with open(path) as file:
            for record in map(json.loads, file):
                low = '"search": "bf16"' in json.dumps(record["attack_parameters"])
                found[record["checkpoint"], record["attack"]]["bf16" if low else "fp32"] = record
    together: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    print("network\tattack\tn\tfp32\tstand in bf16 alone\tstand in fp32 alone\trate of a difference, 95 %")
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
