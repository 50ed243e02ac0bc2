"""What is asked of a reader of some layout, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bsk.data.store import Part

Progress = Callable[[int, int | None], None]  # bytes downloaded or read, and of all where known
Notice = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """Where to read from (a path, a URL, or None for the official place) and whom to tell."""

    name: str
    source: str | None
    downloads: Path
    size: int | None = None
    progress: Progress | None = None
    notice: Notice | None = None

    def say(self, text: str) -> None:
        """Pass one line on to whoever listens."""
        if self.notice:
            self.notice(text)


@dataclass(frozen=True)
class Contents:
    """A dataset as its source splits it: what there is to train with, and to test with.

    `files` maps the name of each file read to its checksum; `official` says whether all are the published ones;
    `val` is the source's own, if it has one; `customs` is what is customary for the data, by the names of `Info`.
    """

    classes: list[str]
    train: Part
    test: Part
    files: dict[str, str]
    official: bool
    val: Part | None = None
    customs: dict[str, Any] = field(default_factory=dict)
