"""The rows of `bsk methods`: the source, cost and needs of each method, and where trainings of it collapsed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from bsk.contract.method import Memory
from bsk.methods import registry
from bsk.records.located import Located
from bsk.records.words import plain
from bsk.training.bound import bind
from bsk.training.profile import IMAGES, profile, whole_batch

SHAPE, CLASSES, EPS = (3, 4, 4), 10, 8 / 255  # methods are profiled on such images; no column depends on these values
COLUMNS = ["method", "paper", "year", "forward", "backward"]
COLUMNS += ["image_memory", "place_memory", "class_memory", "shared_memory"]
COLUMNS += ["needs", "runs", "collapsed", "where", "about"]
TEXT_COLUMNS = {"method", "paper", "memory", "needs", "where"}  # aligned left


@dataclass
class Collapses:
    """How many trainings of a method on some data were monitored, and how many of them collapsed."""

    method: str
    dataset: str
    eps: float
    runs: int = 0
    collapsed: int = 0

    @property
    def place(self) -> str:
        """Return "cifar10 at 8/255: 1 of 3"."""
        return f"{self.dataset} at {plain(self.eps)}: {self.collapsed} of {self.runs}"


def count_collapses(records: Iterable[Located]) -> list[Collapses]:
    """Return the counts from training logs, by method, data and radius; only monitored runs are counted."""
    found: dict[tuple[str, str, float], Collapses] = {}
    run: dict[str, Collapses | None] = {}  # for each file, the training that the current lines belong to
    watched, fallen = set(), set()
    checkpoints: dict[str, Any] = {}
    for source, _, record in records:
        if record.get("kind") == "start":
            key = (record.get("method"), record.get("dataset"), record.get("eps"))
            known = isinstance(key[0], str) and isinstance(key[1], str) and isinstance(key[2], int | float)
            run[source] = found.setdefault(key, Collapses(*key)) if known else None  # type: ignore[arg-type]
            checkpoint = record.get("checkpoint")
            if checkpoint is None or checkpoint != checkpoints.get(source):  # else the same training resumes
                watched.discard(source)
                fallen.discard(source)
            checkpoints[source] = checkpoint
        if record.get("kind") == "end":
            checkpoints.pop(source, None)  # a start after it is another training, though its checkpoint may be the same
        current = run.get(source)
        looked = record.get("kind") == "alarm" or "monitor_pgd" in record
        if current is None or not looked:
            continue
        current.runs += source not in watched
        watched.add(source)
        if record.get("kind") == "alarm":
            current.collapsed += source not in fallen
            fallen.add(source)
    return [found[key] for key in sorted(found) if found[key].runs]


def recorded_collapses() -> list[Collapses]:
    """Return the counts from this project's own records, written by `python -m benchmarks.collapses`."""
    text = (files("bsk.comparison") / "paper" / "collapses.jsonl").read_text(encoding="utf-8")
    return [Collapses(**json.loads(line)) for line in text.splitlines()]


def survey(counts: Sequence[Collapses]) -> list[dict[str, Any]]:
    """Return one row of COLUMNS per built-in method."""
    return [_row(name, [each for each in counts if each.method == name]) for name in registry.names()]


def _row(name: str, counts: Sequence[Collapses]) -> dict[str, Any]:
    method = bind(name, EPS)
    found = profile(method, SHAPE, CLASSES)
    paper, year = registry.source(name)
    needs = {
        "whole batch": whole_batch(method, SHAPE, CLASSES),
        "second order": found.second_order,
        "validation": method.validates,
        "extra images": registry.needs_extra(name),
    }
    passes, times = found.passes, method.replays
    values = [name, paper, year, passes.forward * times, (passes.to_input + passes.full) * times]
    values += [*_images(found.memory), ", ".join(need for need, so in needs.items() if so)]
    values += [sum(each.runs for each in counts), sum(each.collapsed for each in counts)]
    values += ["; ".join(each.place for each in counts if each.collapsed), registry.summary(name)]
    return dict(zip(COLUMNS, values, strict=True))


def _images(memory: Memory) -> list[int]:
    """Return the number of images a method stores per training image, per batch position, per class, and once."""
    size = SHAPE[0] * SHAPE[1] * SHAPE[2]
    kept = [tensor for tensor in memory.shared.values() if tensor.dim() == 4]
    rows = sum(table[0].numel() for table in memory.rows.values()) // size
    return [rows, *(sum(len(tensor) == n for tensor in kept) for n in (IMAGES, CLASSES, 1))]


def cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return a header and one line per method, for people."""
    lines = [["method", "paper", "passes", "memory", "needs", "collapsed", "where"]]
    for row in rows:
        kept = dict(zip(("per image", "per batch position", "per class", "in all"), COLUMNS[5:9], strict=True))
        memory = [f"{row[column]} {of}" for of, column in kept.items() if row[column] >= 1]
        collapsed = f"{row['collapsed']} of {row['runs']}" if row["runs"] else ""
        paper = f"{row['paper']} {row['year']}" if row["year"] else ""
        passes = f"{plain(row['forward'])}F + {plain(row['backward'])}B"
        lines.append([row["method"], paper, passes, ", ".join(memory), row["needs"], collapsed, row["where"]])
    return lines
