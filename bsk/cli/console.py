"""Records from files or a pipe, data to stdout, everything else to stderr; errors are one line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bsk.cli.lines import line_of
from bsk.cli.signals import Signalled, ignore_signals, stop_on_signals
from bsk.compat import usage_message
from bsk.errors import BUG, DONE, BskError, InputError, ReaderClosedError, UsageError, out_of_memory
from bsk.records.atomic import naming_the_file
from bsk.records.jsonl import dumps
from bsk.terminal import CHOICES, for_people, unheard, whisper, write

if TYPE_CHECKING:
    from bsk.records.located import Located

STDIN = Path("-")
GOES_ON = "the same command goes on from what was saved"  # after a signal


def records_of(command: str, files: Sequence[Path] | None) -> Iterator[Located]:
    """Return the records of the files, or of stdin if there are none or one of them is `-`, read as they are taken.

    Raises:
        UsageError: stdin is closed, or no file is named and it is a terminal.
        InputError: a file cannot be read, or a line is no record; when it is taken.
    """
    from bsk.records.located import located, stream

    closed = sys.stdin is None and STDIN in (files or [STDIN])
    if closed or not files and sys.stdin.isatty():
        raise UsageError(f"{command}: no records; name JSONL files, or pipe in what bsk evaluate prints")
    return chain.from_iterable(
        located(sys.stdin.buffer, "stdin") if path == STDIN else stream(path) for path in files or [STDIN]
    )


def emit(text: str) -> None:
    """Write data to stdout, at once, so that a reader in a pipe sees each record as it is known.

    Raises:
        ReaderClosedError: the reader has left.
        InputError: stdout is full or closed.
    """
    try:
        with naming_the_file(Path("stdout")):
            write(sys.stdout, text if text.endswith("\n") else text + "\n")
    except InputError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            raise ReaderClosedError from error
        raise


def emit_record(record: dict[str, Any]) -> None:
    """Write one record to stdout: as JSON, or on a terminal as a line for people."""
    emit(line_of(record) if for_people() else dumps(record))


def _open_closed_streams() -> None:
    """Put something in the place of streams that were closed at the start, lest a file that is opened takes it.

    What the encoding of stdout has no sign for is written with escapes, as stderr does it.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free, which is this one
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stdout = open(os.devnull)  # noqa: SIM115 - to write there is an error
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - to write there is none


@contextlib.contextmanager
def _stdout_for_data() -> Iterator[None]:
    """Within the block stdout is what `sys.stdout` writes; what goes there by other ways, or later, goes to stderr.

    Other people's networks write below Python, start processes that write, or write as the process ends.
    """
    if sys.stdout is not sys.__stdout__ or not isinstance(sys.stdout, io.TextIOWrapper):  # somebody has it already
        yield
        return
    at_once = sys.stdout.write_through  # as PYTHONUNBUFFERED says
    binary = open(os.dup(1), "wb", buffering=0 if at_once else -1)  # noqa: SIM115
    data = io.TextIOWrapper(binary, sys.stdout.encoding, sys.stdout.errors, write_through=at_once)
    os.dup2(2, 1)
    sys.stdout = data
    try:
        yield
    finally:
        sys.stdout = sys.stderr
        with unheard():  # a write that failed has been told
            data.close()


def guarded(command: Callable[[], object]) -> NoReturn:
    """Run a command and end the process with its exit code; an error is one line on stderr."""
    _open_closed_streams()
    with _stdout_for_data():
        code = _ended(command)
    with unheard():
        write(sys.stderr, "")  # what a library left there: Python would end with 120 if it failed later
    sys.exit(code)


def _ended(command: Callable[[], object]) -> int:
    """Run a command and return its exit code."""
    try:
        stop_on_signals()
        returned = command()
        ignore_signals()
        return returned if isinstance(returned, int) else DONE  # typer returns the code of its own exits
    except BaseException as error:
        ignore_signals()
        return _report(error)


def _report(error: BaseException) -> int:
    if CHOICES.debug and not isinstance(error, SystemExit):
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            whisper(line)
    name = type(error).__name__
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else BUG
    if isinstance(error, ReaderClosedError):
        return error.exit_code
    if isinstance(error, Signalled):
        return _say("; ".join(filter(None, ("stopped", CHOICES.kept))), error.exit_code)
    if isinstance(error, BskError):
        return _say(str(error), error.exit_code)
    if wrong := usage_message(error):
        return _say(f"{wrong[0].rstrip('.')}; see bsk --help", wrong[1])
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # files name themselves; help is typer's to write
        return _say("stdout: cannot write: No space left on device; free some space or write elsewhere", 3)
    if out_of_memory(error):
        return _say("out of memory; lower --batch-size, or take a smaller --model", InputError.exit_code)
    return _say(f"a bug: {name}: {str(error).splitlines()[0] if str(error) else ''}; --debug shows where", BUG)


def _say(text: str, code: int) -> int:
    whisper(f"bsk: {' '.join(text.split())}")
    return code
