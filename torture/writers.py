"""Concurrent writers of one file: one is refused, or both give the same result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bsk.records import jsonl as records
from torture.subjects import Command, contents, differences, fresh, undisturbed, unreadable

REFUSES = ("train",)  # two runs of the others write the same files, atomically


def writers(folder: Path, say: Callable[[str], None]) -> list[str]:
    """Run every command twice at the same time; return the failures."""
    wrong: list[str] = []
    for command, whole, _ in undisturbed(folder):
        found = _twice(command, fresh(folder / command.name, command, folder), contents(whole))
        say(f"{command.name}: two at once; {len(found)} wrong")
        wrong += found
    return wrong


def _twice(command: Command, place: Path, expected: dict[str, Any]) -> list[str]:
    processes = [command.start(place) for _ in range(2)]
    said = [process.communicate()[1].decode() for process in processes]
    codes = sorted(process.returncode for process in processes)
    wrong = unreadable(place)
    if command.name in REFUSES:
        if codes != [0, 3] or not any("another bsk" in text for text in said):
            wrong.append(f"exit {codes}, not one refused: {said}")
    elif codes not in ([0, 0], [0, 3]):
        wrong.append(f"exit {codes}: {said}")
    wrong += differences(expected, contents(place))
    if command.name == "evaluate" and len(records.read(place / "r.jsonl")) != 2:
        wrong.append("a duplicate record")
    return [f"{command.name}: {line}" for line in wrong]
