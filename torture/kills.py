"""Kill commands by SIGKILL at random moments and resume them: no file is damaged or lost, and the result is equal."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from torture.subjects import Command, contents, differences, epochs_behind, fresh, saved, undisturbed, unreadable

Say = Callable[[str], None]


def kills(folder: Path, each: int, seed: int, say: Say) -> list[str]:
    """Kill every command `each` times; return the failures."""
    wrong: list[str] = []
    for command, whole, seconds in undisturbed(folder):
        found, killed, restarts = _kill(command, folder, whole, each, seconds, random.Random(f"{seed} {command.name}"))
        wrong += found
        say(
            f"{command.name}: killed {killed} times in the {seconds:.2f} s after its first write, "
            f"restarted {restarts} times; {len(found)} wrong"
        )
    return wrong


def _kill(
    command: Command, folder: Path, whole: Path, each: int, seconds: float, moments: random.Random
) -> tuple[list[str], int, int]:
    """Kill one command `each` times, resuming it each time; whenever it finishes, compare its files and start again."""
    expected = contents(whole)
    wrong: list[str] = []
    killed = restarts = 0
    place = fresh(folder / command.name, command, folder)
    while killed < each:
        before = saved(place)
        process = command.writing(place)
        try:
            process.communicate(timeout=moments.uniform(0.0, seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed += 1
            wrong += [f"{command.name}, kill {killed}: {line}" for line in _lost(place, before)]
            continue
        wrong += _compare(command, process.returncode, place, expected)
        place, restarts = fresh(place, command, folder), restarts + 1
    code, _ = command.run(place)
    return wrong + _compare(command, code, place, expected), killed, restarts


def _lost(place: Path, before: int) -> list[str]:
    """Return what a kill has lost: a file, work that was saved before, or more than the current epoch."""
    wrong = unreadable(place)
    if wrong:
        return wrong
    if saved(place) < before:
        wrong.append(f"{before} updates or lines were saved, now {saved(place)}")
    if epochs_behind(place) > 1:
        wrong.append(f"{epochs_behind(place)} logged epochs would be repeated")
    return wrong


def _compare(command: Command, code: int, place: Path, expected: dict[str, object]) -> list[str]:
    """Return how the final files of a command differ from those of an undisturbed run."""
    if code:
        return [f"{command.name}: exit {code} when run again"]
    wrong = differences(expected, contents(place))
    wrong += [f"{path.name} is left over" for path in place.rglob(".*.tmp")]
    return [f"{command.name}: {line}" for line in wrong]
