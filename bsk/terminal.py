"""Messages to the user: notes on stderr, and a progress bar if stderr is a terminal."""

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
    """The user's choices about output, and what the running work has saved in case a signal stops it."""

    quiet = False
    debug = False
    json = False
    kept = ""


CHOICES = _Choices()


def note(text: str) -> None:
    """Print a line on stderr, unless --quiet was given."""
    if not CHOICES.quiet:
        whisper(f"bsk: {text}")


def whisper(text: str) -> None:
    """Print a line on stderr with control characters escaped; failing to print it does not stop the work."""
    with unheard():
        write(sys.stderr, printable(text) + "\n")


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Ignore errors when writing to stderr: it is full or closed, or (RuntimeError) a signal arrived during a write."""
    with contextlib.suppress(OSError, RuntimeError):
        yield


def write(stream: TextIO, text: str) -> None:
    """Write and flush; after a failure the stream goes to /dev/null, so that Python does not try again at exit."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        with contextlib.suppress(io.UnsupportedOperation):  # a stream without a file, as in tests
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise


def on_terminal() -> bool:
    """Return whether progress may be drawn: stderr is a terminal or a notebook, and --quiet was not given."""
    return not CHOICES.quiet and (sys.stderr.isatty() or "ipykernel" in sys.modules)


def for_people() -> bool:
    """Return whether records are printed as readable lines: stdout is a terminal, and --json was not given."""
    return not CHOICES.json and sys.stdout.isatty()


class Bar:
    """A progress bar on a terminal; does nothing elsewhere."""

    def __init__(self, what: str, speaks: bool = True) -> None:
        """Prepare the bar; rich is imported only on a terminal. If `speaks` is False nothing is ever printed."""
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
        """Redraw at most five times per second; `text` is called only when redrawing."""
        now = time.monotonic()
        if self._progress is not None and (now - self._drawn > 0.2 or done == total):
            self.draw(done, total, text() if text else "")

    def draw(self, done: int, total: int | None, text: str) -> None:
        """Redraw at once."""
        self._drawn = time.monotonic()
        if self._progress is not None:
            with unheard():
                description = printable(f"{self.what} {text}".rstrip())
                self._progress.update(self._task, completed=done, total=total, description=description)

    def note(self, text: str) -> None:
        """Print a line above the bar, or on stderr."""
        if self._progress is not None:
            with unheard():
                self._progress.console.print(printable(text), highlight=False, markup=False)
        elif self.speaks:
            note(text)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Hide the bar within the block, while something is written to stdout, which may be the same terminal."""
        self.close()
        yield
        if self._progress is not None:
            with unheard():
                self._progress.start()

    def close(self) -> None:
        """Remove the bar."""
        if self._progress is not None:
            with unheard():
                self._progress.stop()
