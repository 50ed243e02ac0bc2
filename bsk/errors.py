"""The kinds of error a user can meet, each with the exit code of its command.

A message is one line: the file or flag first, then what was expected and found, then the next step.
"""

DONE = 0
BUG = 1
INTERRUPTED = 130
READER_CLOSED = 141
LISTED = 30  # names in a message


class BskError(Exception):
    """An error that the user can mend; `exit_code` is what the command ends with."""

    exit_code = BUG


class UsageError(BskError):
    """A flag or argument that cannot mean anything."""

    exit_code = 2


class InputError(BskError):
    """An input or output that is missing, corrupt, not matching or not writable."""

    exit_code = 3


class DivergedError(BskError):
    """Training produced a loss that is not finite; the last good checkpoint stays."""

    exit_code = 4


class CollapsedError(BskError):
    """Training overfitted to its own attack and was to stop there; the last good checkpoint stays."""

    exit_code = 4


class RequirementError(BskError):
    """A `--require` condition does not hold."""

    exit_code = 5


class StoppedError(BskError):
    """The user or the system asked to stop; what was computed is saved."""

    def __init__(self, message: str, exit_code: int = INTERRUPTED) -> None:
        """Keep the exit code of the signal: 130 for Ctrl-C, 143 for SIGTERM."""
        super().__init__(message)
        self.exit_code = exit_code


class ReaderClosedError(BskError):
    """Nobody reads stdout any more, as after `| head -1`; nothing is said about it."""

    exit_code = READER_CLOSED


def out_of_memory(error: BaseException) -> bool:
    """Say if an error, of Python or of torch on any device, is a lack of memory."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(
        each in said for each in ("out of memory", "allocate memory", "not enough memory")
    )


def nearest(name: str, known: list[str], also: str = "") -> str:
    """Return "did you mean X?" for the known name nearest to `name`, or a list of them; `also` would do too."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    more, other = ", ..." if len(known) > LISTED else "", f", or {also}" if also else ""
    return f"did you mean {close[0]}{other}?" if close else f"known: {', '.join(known[:LISTED])}{more}{other}"
