"""Input and output of commands: records in, data to stdout, all else to stderr, one line and an exit code per error."""

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
from bsk.errors import BUG, DONE, BskError, InputError, ReaderClosedError, UsageError, named_error, out_of_memory
from bsk.records.atomic import naming_the_file
from bsk.records.jsonl import dumps
from bsk.terminal import CHOICES, for_people, note, unheard, whisper, write

if TYPE_CHECKING:
    from bsk.records.located import Located

STDIN = Path("-")
RESUME_HINT = "run the same command again to resume"  # printed after a signal


def records_of(command: str, files: Sequence[Path] | None) -> Iterator[Located]:
    """Return an iterator over the records of the files; `-`, or no file at all, means stdin.

    Raises:
        UsageError: stdin is needed but closed, or it is a terminal and no file is named.
        InputError: a file cannot be read, or a line is not a record. Raised when that record is reached.
    """
    from bsk.records.located import located, stream

    closed = sys.stdin is None and STDIN in (files or [STDIN])
    if closed or not files and sys.stdin.isatty():
        raise UsageError(f"{command}: no records; name JSONL files, or pipe in the output of bsk evaluate")
    return chain.from_iterable(
        located(sys.stdin.buffer, "stdin", note) if path == STDIN else stream(path, note) for path in files or [STDIN]
    )


def emit(text: str) -> None:
    """Write data to stdout and flush, so that the reader of a pipe sees each record at once.

    Raises:
        ReaderClosedError: the reader has closed the pipe.
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
    """Write one record to stdout: as JSON, or as a readable line on a terminal."""
    emit(line_of(record) if for_people() else dumps(record))


def _open_closed_streams() -> None:
    """Open standard streams that were closed at the start, so that no other file gets their descriptors.

    Characters that the encoding of stdout lacks are written as escapes, as stderr does.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest free descriptor, which is this one
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stdout = open(os.devnull)  # noqa: SIM115 - read-only, so that writing is an error
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - writing is not an error


@contextlib.contextmanager
def _stdout_for_data() -> Iterator[None]:
    """Reserve stdout for `sys.stdout` within the block; other output to descriptor 1 goes to stderr, then and later.

    User code may write below Python, start processes that write, or write while the process ends.
    """
    if sys.stdout is not sys.__stdout__ or not isinstance(sys.stdout, io.TextIOWrapper):  # redirected already
        yield
        return
    at_once = sys.stdout.write_through  # set by PYTHONUNBUFFERED
    binary = open(os.dup(1), "wb", buffering=0 if at_once else -1)  # noqa: SIM115
    data = io.TextIOWrapper(binary, sys.stdout.encoding, sys.stdout.errors, write_through=at_once)
    os.dup2(2, 1)
    sys.stdout = data
    try:
        yield
    finally:
        sys.stdout = sys.stderr
        with unheard():  # a failed write has been reported already
            data.close()


def guarded(command: Callable[[], object]) -> NoReturn:
    """Run a command and end the process with its exit code; an error becomes one line on stderr."""
    _open_closed_streams()
    with _stdout_for_data():
        code = _exit_code(command)
    with unheard():
        write(sys.stderr, "")  # flush what libraries wrote: a failure at exit would change the exit code to 120
    sys.exit(code)


def _exit_code(command: Callable[[], object]) -> int:
    """Run a command and return its exit code."""
    try:
        stop_on_signals()
        returned = command()
        ignore_signals()
        return returned if isinstance(returned, int) else DONE  # typer returns the code of typer.Exit
    except BaseException as error:
        ignore_signals()
        return _report(error)


def _report(error: BaseException) -> int:
    if CHOICES.debug and not isinstance(error, SystemExit):
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            whisper(line)
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
    if (
        isinstance(error, OSError) and error.errno == errno.ENOSPC
    ):  # other files are named in their errors; this is help text, which typer writes
        return _say("stdout: cannot write: No space left on device; free some space or write elsewhere", 3)
    if out_of_memory(error):
        return _say("out of memory; lower --batch-size or choose a smaller --model", InputError.exit_code)
    return _say(f"a bug: {named_error(error)}; run with --debug for the traceback", BUG)


def _say(text: str, code: int) -> int:
    whisper(f"bsk: {' '.join(text.split())}")
    return code
