"""The cost of an audit as a fraction of AutoAttack's passes: `python -m benchmarks.audit RECORDS.jsonl...`.

It prints lines for each `autoattack` record and for a hypothetical network on which half of the images stand and the
others fall at once: how many survivors `--within 0.5` and `--within 0.25` audit if none falls, and the fraction of
AutoAttack's passes that this takes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bsk.attacks.flags import AttackFlags
from bsk.attacks.registry import SAMPLED, attack_named
from bsk.evaluation.audit import Audit
from bsk.records.jsonl import read

IMAGES, POINTS = (10_000, 2_000), (0.5, 0.25)
STAGES = attack_named("autoattack", 8 / 255, AttackFlags()).stages
WHOLE = {"n": 2, "after": {"apgd-t": 0.5}, "forward_passes": sum(s.passes for s in STAGES), "backward_passes": 0}


def part_of(record: dict[str, Any], n: int, points: float) -> tuple[Audit, float]:
    """Return the first sample of an audit of n images, with the record's robust accuracy, and its fraction of passes.

    Every survivor is assumed to take all passes of the last stages, since hardly any falls there.
    """
    standing, passes = record["after"]["apgd-t"], record["forward_passes"] + record["backward_passes"]
    audit = Audit(n, round(standing * n), 0).enlarged(points)
    last = standing * record["n"] * sum(stage.passes for stage in STAGES[-SAMPLED:])
    return audit, 1 - (1 - audit.audited / audit.survivors) * last / passes


def lines(records: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """Yield one line per record, number of images and interval width."""
    for name, record in records:
        for n in IMAGES:
            for points in POINTS:
                audit, part = part_of(record, n, points)
                sample = f"{audit.audited:4} of {audit.survivors:4} survivors"
                yield f"{n:6} images, {points:4} points: {sample}, {part:.3f} of the passes  {name}"


if __name__ == "__main__":
    found = [(Path(path).name, record) for path in sys.argv[1:] for record in read(Path(path))]
    whole = [(name, record) for name, record in found if record.get("attack") == "autoattack"]
    print("\n".join(lines([("half stands", WHOLE), *whole])))
