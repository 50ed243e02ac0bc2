"""`python -m benchmarks.mutants`: which changes of bsk no test notices, from what `mutmut run` has found so far.

It prints how many of the mutants in each place were noticed, and writes those that were not into a file: a line each,
the function and its changed line. Those that have a reason stand in `results/mutants.md`, by the same lines.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

UNNOTICED = ("survived", "no tests")  # a mutant that a test fails for, or never comes to an end with, is noticed
REASONS = Path("results/mutants.md")


def main(listed: str) -> None:
    """Print the table, and write the mutants that nothing noticed and nobody gave a reason for into `listed`."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    unnoticed = []
    for line in _mutmut("results", "--all", "true"):
        name, status = line.strip().split(": ")
        found[_place(name)][status] += 1
        if status in UNNOTICED:
            unnoticed.append(name)
    known = {line.strip() for line in REASONS.read_text().splitlines()} if REASONS.exists() else set()
    lines = [_line(name) for name in unnoticed]
    print("place\tmutants\tnoticed\tshare\tnot tried")
    for place, counts in sorted(found.items()):
        n, waiting = counts.total(), counts["not checked"]
        noticed = n - waiting - sum(counts[status] for status in UNNOTICED)
        print(f"{place}\t{n}\t{noticed}\t{noticed / max(n - waiting, 1):.1%}\t{waiting}")
    new = [line for line in lines if line not in known]
    Path(listed).write_text("".join(f"{line}\n" for line in new))
    print(f"{len(lines)} unnoticed, {len(lines) - len(new)} of them with a reason; the others are in {listed}")


def _place(name: str) -> str:
    """Return the room of a mutant, or its file where the room has but one that is mutated."""
    _, room, module, *_ = name.split(".")
    return f"bsk/{room}/{module}.py" if room == "training" else f"bsk/{room}"


def _line(name: str) -> str:
    """Return the function of a mutant and what its changed lines are now; the name of one whose code has gone."""
    module, _, mangled = name.rpartition(".")
    function = re.sub(r"^x_?|__mutmut_\d+$", "", mangled).strip("ǁ").replace("ǁ", ".")
    try:
        shown = _mutmut("show", name)
    except subprocess.CalledProcessError:
        return name
    diff = [line for line in shown if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    added = [line[1:].strip() for line in diff if line[0] == "+"]
    removed = [line[1:].strip() for line in diff if line[0] == "-"]
    return f"{module}.{function}: {' '.join(added) or 'without ' + ' '.join(removed)}"


def _mutmut(*words: str) -> Iterable[str]:
    command = [str(Path(sys.executable).with_name("mutmut")), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


if __name__ == "__main__":
    main(*sys.argv[1:])
