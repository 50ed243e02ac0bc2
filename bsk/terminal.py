"""What people read while they wait: notes on stderr, and a progress bar where that is a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from bsk.records.words import printable


class _Choices:
    """What is printed: as flags ask for it, and what the work that is under way keeps if a signal stops it."""

    quiet = False
    debug = False
    kept = ""


CHOICES = _Choices()


def note(text: str) -> None:
    """Write a line to stderr, unless --quiet."""
    if not CHOICES.quiet:
        whisper(f"bsk: {text}")


def whisper(text: str) -> None:
    """Write a line to stderr, its control characters escaped; that nobody can read it does not end the work."""
    with unheard():
        write(sys.stderr, printable(text) + "\n")


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Swallow what goes wrong with stderr: it is full, closed, or (RuntimeError) a signal came amid a write."""
    with contextlib.suppress(OSError, RuntimeError):
        yield


def write(stream: TextIO, text: str) -> None:
    """Write and flush; what cannot be written is lost, so that Python does not try again as it ends."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        with contextlib.suppress(io.UnsupportedOperation):  # a stream of no file, as in tests
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise


def on_terminal() -> bool:
    """Say if progress may be drawn: stderr is a terminal, or the page of a notebook, and --quiet was not given."""
    return not CHOICES.quiet and (sys.stderr.isatty() or "ipykernel" in sys.modules)


class Bar:
    """A progress bar on a terminal; elsewhere nothing."""

    def __init__(self, what: str, speaks: bool = True) -> None:
        """Draw nothing yet: rich is imported only where there is a terminal; without `speaks` all is kept silent."""
        self.what, self.speaks, self._progress, self._drawn = what, speaks, None, 0.0
        if speaks and on_terminal():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,  # data stays on stdout
                redirect_stderr=False,
            )
            self._task = self._progress.add_task(printable(what), total=None)
            with unheard():
                self._progress.start()

    def show(self, done: int, total: int | None = None, text: Callable[[], str] | None = None) -> None:
        """Draw at most five times a second; `text` is only computed then."""
        now = time.monotonic()
        if self._progress is not None and (now - self._drawn > 0.2 or done == total):
            self._drawn = now
            description = f"{self.what} {text()}" if text else self.what
            with unheard():
                self._progress.update(self._task, completed=done, total=total, description=printable(description))

    def note(self, text: str) -> None:
        """Write a line above the bar, or to stderr."""
        if self._progress is not None:
            with unheard():
                self._progress.console.print(printable(text), highlight=False, markup=False)
        elif self.speaks:
            note(text)

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            with unheard():
                self._progress.stop()
