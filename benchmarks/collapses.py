"""Count the trainings in `results/` that collapsed, for `bsk methods`: `python -m benchmarks.collapses`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from bsk.comparison.survey import count_collapses
from bsk.records.jsonl import dumps
from bsk.records.located import Located, stream

ROOT = Path(__file__).parent.parent
COUNTED = ROOT / "bsk" / "comparison" / "paper" / "collapses.jsonl"


def counted() -> str:
    """Return the contents that the file COUNTED should have."""
    return "".join(dumps(asdict(each)) + "\n" for each in count_collapses(_records()))


def _records() -> Iterator[Located]:
    for path in sorted((ROOT / "results").rglob("*.jsonl")):
        yield from stream(path)


if __name__ == "__main__":
    COUNTED.write_text(counted(), encoding="utf-8")
