"""The errors that a user can meet, each with the exit code of its command.

A message is one line: the file or flag first, then what was expected and found, then the next step.
"""

DONE = 0
BUG = 1
INTERRUPTED = 130
READER_CLOSED = 141
LISTED = 30  # maximum number of names in a message


class BskError(Exception):
    """An error that the user can fix; `exit_code` is the exit status of the command."""

    exit_code = BUG


class UsageError(BskError):
    """An invalid flag or argument."""

    exit_code = 2


class InputError(BskError):
    """An input or output file that is missing, corrupt, inconsistent or not writable."""

    exit_code = 3


class DivergedError(BskError):
    """Training diverged: a loss or weight is not finite. The last good checkpoint is kept."""

    exit_code = 4


class CollapsedError(BskError):
    """Training showed catastrophic overfitting and was set to stop there. The last good checkpoint is kept."""

    exit_code = 4


class RequirementError(BskError):
    """A `--require` condition does not hold."""

    exit_code = 5


class StoppedError(BskError):
    """The user or the system stopped the command; what was computed is saved."""

    def __init__(self, message: str, exit_code: int = INTERRUPTED) -> None:
        """Store the exit code of the signal: 130 for Ctrl-C, 143 for SIGTERM."""
        super().__init__(message)
        self.exit_code = exit_code


class ReaderClosedError(BskError):
    """The reader of stdout has closed it, as with `| head -1`; nothing is printed about it."""

    exit_code = READER_CLOSED


def first_line(error: BaseException, most: int = 120) -> str:
    """Return the first line of an error's message, up to `most` characters, or its type if it is empty."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:most]


def named_error(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    return f"{type(error).__name__}: {first_line(error) if str(error).strip() else 'no message'}"


def kind_of(value: object) -> str:
    """Return the name of a value's type with its article: "a list", "an int"."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python or torch, on any device, is an out-of-memory error."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(
        each in said for each in ("out of memory", "allocate memory", "not enough memory", "alloc_failed")
    )


def nearest(name: str, known: list[str], also: str = "") -> str:
    """Return "did you mean X?" for the known name nearest to `name`, or a list of the known names.

    `also` is another possibility to mention.
    """
    import difflib

    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    more, other = ", ..." if len(known) > LISTED else "", f", or {also}" if also else ""
    return f"did you mean {close[0]}{other}?" if close else f"known: {', '.join(known[:LISTED])}{more}{other}"
