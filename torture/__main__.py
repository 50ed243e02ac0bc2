"""Run the stress tests (`make torture`); the exit status is 1 if any of them failed."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from torture.disks import disks
from torture.kills import kills
from torture.mutations import mutations
from torture.situations import situations
from torture.subjects import FailedError
from torture.writers import writers


def main(words: Sequence[str] | None = None) -> int:
    """Run all parts, or those that are named, and print the failures; return the exit status."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("parts", nargs="*", help="kills, mutations, disks, writers, situations [default: all]")
    parser.add_argument("--kills", type=int, default=100, help="total, over four commands")
    parser.add_argument("--mutations", type=int, default=500, help="total, over all readers")
    parser.add_argument("--disks", type=int, default=100, help="maximum number of disk sizes per command")
    parser.add_argument(
        "--situations", type=int, default=300, help="total, over networks, files, folders and trainings"
    )
    parser.add_argument("--alone", type=int, help="run only the situation with this number")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(words)
    parts = {
        "kills": lambda folder: kills(folder, -(-chosen.kills // 4), chosen.seed, _say),
        "mutations": lambda folder: mutations(folder, chosen.mutations, chosen.seed, _say),
        "disks": lambda folder: disks(folder, chosen.disks, _say),
        "writers": lambda folder: writers(folder, _say),
        "situations": lambda folder: situations(folder, chosen.situations, chosen.seed, _say, chosen.alone),
    }
    wrong, start = [], time.perf_counter()
    for name in chosen.parts or parts:
        with tempfile.TemporaryDirectory() as folder:
            try:
                wrong += parts[name](Path(folder))
            except FailedError as error:
                wrong.append(str(error))
    for line in wrong:
        print(f"WRONG {line}")
    print(f"{len(wrong)} wrong; {time.perf_counter() - start:.0f} s")
    return 1 if wrong else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
