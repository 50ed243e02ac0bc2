"""Summarise `mutmut run`: `python -m benchmarks.mutants FILE` shows which changes of bsk no test detects.

It prints how many mutants were detected in each package and writes the surviving ones to FILE, one line each with the
function and the changed line. Survivors with a known reason are listed by the same lines in `results/mutants.md` and
are left out.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

SURVIVED = ("survived", "no tests")  # any other status is a detection: a test fails or does not end
REASONS = Path("results/mutants.md")


def main(listed: str) -> None:
    """Print the table, and write the surviving mutants without a known reason to the file `listed`."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    survivors = []
    for line in _mutmut("results", "--all", "true"):
        name, status = line.strip().split(": ")
        found[_place(name)][status] += 1
        if status in SURVIVED:
            survivors.append(name)
    known = {line.strip() for line in REASONS.read_text().splitlines()} if REASONS.exists() else set()
    lines = [_line(name) for name in survivors]
    print("place\tmutants\tdetected\tfraction\tnot tried")
    for place, counts in sorted(found.items()):
        n, waiting = counts.total(), counts["not checked"]
        detected = n - waiting - sum(counts[status] for status in SURVIVED)
        print(f"{place}\t{n}\t{detected}\t{detected / max(n - waiting, 1):.1%}\t{waiting}")
    new = [line for line in lines if line not in known]
    Path(listed).write_text("".join(f"{line}\n" for line in new))
    print(f"{len(lines)} survived, {len(lines) - len(new)} of them with a known reason; the others are in {listed}")


def _place(name: str) -> str:
    """Return the package of a mutant, or its file in bsk.training, of which only some files are mutated."""
    _, package, module, *_ = name.split(".")
    return f"bsk/{package}/{module}.py" if package == "training" else f"bsk/{package}"


def _line(name: str) -> str:
    """Return the function of a mutant and its changed lines, or its name if the code no longer exists."""
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
