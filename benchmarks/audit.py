"""What an audit costs of AutoAttack, in passes: `python -m benchmarks.audit RECORDS.jsonl...` prints it for records.

A line for each record of `autoattack`, and one for a network of which half of the images stand and the others fall at
once: how many survivors `--within 0.5` and `--within 0.25` audit if none falls, and their part of AutoAttack's passes.
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
    """Return the first look of an audit of n images of which as many stand as of the record's, and its part of passes.

    Each survivor takes the passes of the last stages, whole: hardly one falls there.
    """
    standing, passes = record["after"]["apgd-t"], record["forward_passes"] + record["backward_passes"]
    audit = Audit(n, round(standing * n), 0).enlarged(points)
    last = standing * record["n"] * sum(stage.passes for stage in STAGES[-SAMPLED:])
    return audit, 1 - (1 - audit.audited / audit.survivors) * last / passes


def lines(records: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """Yield a line for each record, number of images and width."""
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
