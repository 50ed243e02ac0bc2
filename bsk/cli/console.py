"""Data to stdout, everything else to stderr; errors become one line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

from bsk.cli.signals import Signalled, ignore_signals, stop_on_signals
from bsk.compat import usage_message
from bsk.errors import BUG, DONE, BskError, InputError, ReaderClosedError
from bsk.records.atomic import naming_the_file
from bsk.records.jsonl import dumps
from bsk.records.words import printable


class _Choices:
    """The two flags that every command shares and that decide what is printed."""

    quiet = False
    debug = False


CHOICES = _Choices()


def emit(text: str) -> None:
    """Write data to stdout, at once, so that a reader in a pipe sees each record as it is known.

    Raises:
        ReaderClosedError: the reader has left.
        InputError: stdout is full or closed.
    """
    try:
        with naming_the_file(Path("stdout")):
            _write(sys.stdout, text if text.endswith("\n") else text + "\n")
    except InputError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            raise ReaderClosedError from error
        raise


def emit_record(record: dict[str, Any]) -> None:
    """Write one record to stdout."""
    emit(dumps(record))


def note(text: str) -> None:
    """Write a line to stderr, unless --quiet."""
    if not CHOICES.quiet:
        _whisper(f"bsk: {text}")


def _whisper(text: str) -> None:
    """Write a line to stderr, its control characters escaped; that nobody can read it does not end the work."""
    with _unheard():
        _write(sys.stderr, printable(text) + "\n")


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Swallow what goes wrong with stderr: it is full, closed, or (RuntimeError) a signal came amid a write."""
    with contextlib.suppress(OSError, RuntimeError):
        yield


def _write(stream: TextIO, text: str) -> None:
    """Write and flush; what cannot be written is lost, so that Python does not try again as it ends."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        with contextlib.suppress(io.UnsupportedOperation):  # a stream of no file, as in tests
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise


def _open_closed_streams() -> None:
    """Put something in the place of streams that were closed at the start, lest a file that is opened takes it."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull)  # noqa: SIM115 - to write there is an error
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - to write there is none


def on_terminal() -> bool:
    """Say if progress may be drawn: stderr is a terminal and --quiet was not given."""
    return not CHOICES.quiet and sys.stderr.isatty()


def guarded(command: Callable[[], object]) -> NoReturn:
    """Run a command and end the process with its exit code; an error is one line on stderr."""
    _open_closed_streams()
    try:
        stop_on_signals()
        returned = command()
        code = returned if isinstance(returned, int) else DONE  # typer returns the code of its own exits
        ignore_signals()
    except BaseException as error:
        ignore_signals()
        code = _report(error)
    with _unheard():
        _write(sys.stderr, "")  # what a library left there: Python would end with 120 if it failed later
    sys.exit(code)


def _report(error: BaseException) -> int:
    if CHOICES.debug and not isinstance(error, SystemExit):
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            _whisper(line)
    name = type(error).__name__
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else BUG
    if isinstance(error, ReaderClosedError):
        return error.exit_code
    if isinstance(error, Signalled):
        return _say("stopped; the same command goes on from what was saved", error.exit_code)
    if isinstance(error, BskError):
        return _say(str(error), error.exit_code)
    if wrong := usage_message(error):
        return _say(f"{wrong[0].rstrip('.')}; see bsk --help", wrong[1])
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # files name themselves; help is typer's to write
        return _say("stdout: cannot write: No space left on device; free some space or write elsewhere", 3)
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return _say("out of memory; lower --batch-size", BUG)
    return _say(f"a bug: {name}: {str(error).splitlines()[0] if str(error) else ''}; --debug shows where", BUG)


def _say(text: str, code: int) -> int:
    _whisper(f"bsk: {' '.join(text.split())}")
    return code


class Bar:
    """A progress bar on a terminal; elsewhere nothing."""

    def __init__(self, what: str) -> None:
        """Draw nothing yet: rich is imported only where there is a terminal."""
        self.what, self._progress, self._drawn = what, None, 0.0
        if on_terminal():
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
            with _unheard():
                self._progress.start()

    def show(self, done: int, total: int | None = None, text: Callable[[], str] | None = None) -> None:
        """Draw at most five times a second; `text` is only computed then."""
        now = time.monotonic()
        if self._progress is not None and (now - self._drawn > 0.2 or done == total):
            self._drawn = now
            description = f"{self.what} {text()}" if text else self.what
            with _unheard():
                self._progress.update(self._task, completed=done, total=total, description=printable(description))

    def note(self, text: str) -> None:
        """Write a line above the bar, or to stderr."""
        if self._progress is not None:
            with _unheard():
                self._progress.console.print(printable(text), highlight=False, markup=False)
        else:
            note(text)

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            with _unheard():
                self._progress.stop()
